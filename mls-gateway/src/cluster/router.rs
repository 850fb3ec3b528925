//! Brings a command to the leader of its shard, wherever that is, and does not let go before the outcome is known or the time is up.
//!
//! Every command is idempotent by its content, so the same bytes may be submitted as often as it takes.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use concordat_proto::{
    log::v1::{Accepted, OnSide, Refused, RemoveFirst, Superseded},
    ordering::v1::{
        BranchesReported, Command, GatewayNoted, GroupAssigned, KeyPackageClaimed, KeyPackagesUploaded,
        Outcome, Reconciling, WelcomesAcked, command, outcome,
    },
};
use prost::Message;
use service_kit::rng::Randomness;
use tokio::time::{Instant, timeout_at};

use super::{
    pool::{Node, Pool},
    submit_stream::Attempt,
};
use crate::{
    error::GatewayError,
    limits::{ATTEMPT_TIMEOUT, COMMAND_BYTES_MAX, RETRY_PAUSE_MAX, RETRY_PAUSE_MIN, SUBMIT_DEADLINE},
    metrics,
    modes::{Mode, Modes},
};

/// The final outcome of a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Final {
    /// It is in the log.
    Accepted(Accepted),
    /// Another commit was first.
    Superseded(Box<Superseded>),
    /// The rules refused it.
    Refused(Refused),
    /// The group lives in this shard.
    GroupAssigned(GroupAssigned),
    /// The KeyPackages are stored.
    KeyPackagesUploaded(KeyPackagesUploaded),
    /// The KeyPackage is the claimer's.
    KeyPackageClaimed(KeyPackageClaimed),
    /// The Welcomes are dropped.
    WelcomesAcked(WelcomesAcked),
    /// It is on a branch that lost.
    OnSide(OnSide),
    /// Members must be removed first.
    RemoveFirst(RemoveFirst),
    /// Branches are being brought together: not an outcome.
    Reconciling(Reconciling),
    /// A report was taken in.
    BranchesReported(BranchesReported),
    /// What was said about a gateway was taken in.
    GatewayNoted(GatewayNoted),
}

impl From<Final> for Outcome {
    fn from(outcome: Final) -> Self {
        use outcome::Outcome as Wire;
        let outcome = match outcome {
            Final::Accepted(accepted) => Wire::Accepted(accepted),
            Final::Superseded(superseded) => Wire::Superseded(*superseded),
            Final::Refused(refused) => Wire::Refused(refused),
            Final::GroupAssigned(assigned) => Wire::GroupAssigned(assigned),
            Final::KeyPackagesUploaded(uploaded) => Wire::KeyPackagesUploaded(uploaded),
            Final::KeyPackageClaimed(claimed) => Wire::KeyPackageClaimed(claimed),
            Final::WelcomesAcked(acked) => Wire::WelcomesAcked(acked),
            Final::OnSide(side) => Wire::OnSide(side),
            Final::RemoveFirst(owed) => Wire::RemoveFirst(owed),
            Final::Reconciling(retry) => Wire::Reconciling(retry),
            Final::BranchesReported(reported) => Wire::BranchesReported(reported),
            Final::GatewayNoted(noted) => Wire::GatewayNoted(noted),
        };
        Outcome { outcome: Some(outcome) }
    }
}

impl Final {
    /// The final outcome that another gateway passed on, if it is one.
    pub fn from_outcome(outcome: Outcome) -> Option<Self> {
        use outcome::Outcome as Wire;
        Some(match outcome.outcome? {
            Wire::Accepted(accepted) => Self::Accepted(accepted),
            Wire::Superseded(superseded) => Self::Superseded(Box::new(superseded)),
            Wire::Refused(refused) => Self::Refused(refused),
            Wire::GroupAssigned(assigned) => Self::GroupAssigned(assigned),
            Wire::KeyPackagesUploaded(uploaded) => Self::KeyPackagesUploaded(uploaded),
            Wire::KeyPackageClaimed(claimed) => Self::KeyPackageClaimed(claimed),
            Wire::WelcomesAcked(acked) => Self::WelcomesAcked(acked),
            Wire::OnSide(side) => Self::OnSide(side),
            Wire::RemoveFirst(owed) => Self::RemoveFirst(owed),
            Wire::Reconciling(retry) => Self::Reconciling(retry),
            Wire::BranchesReported(reported) => Self::BranchesReported(reported),
            Wire::GatewayNoted(noted) => Self::GatewayNoted(noted),
            Wire::NotLeader(_)
            | Wire::Unknown(_)
            | Wire::Overloaded(_)
            | Wire::CollectionClosed(_)
            | Wire::GroupPruned(_) => return None,
        })
    }
}

/// Routes commands to leaders.
pub struct Router {
    pool: Arc<Pool>,
    modes: Arc<Modes>,
    rng: Randomness,
}

/// Why an attempt has to be repeated.
enum Again {
    NoLeader,
    NotLeader,
    NotSent,
    Lost,
    Overloaded { message: String, after: Duration },
}

impl Router {
    /// Routes over `pool`, refusing at once what `modes` says is unavailable.
    pub fn new(pool: Arc<Pool>, modes: Arc<Modes>, rng: Randomness) -> Self {
        Self { pool, modes, rng }
    }

    /// Submits a command and returns its final outcome. Fails after [`SUBMIT_DEADLINE`] at the latest, and at once if the shard is
    /// unavailable.
    pub async fn submit(&self, shard: u32, command: &Command) -> Result<Final, GatewayError> {
        let length = command.encoded_len();
        if length > COMMAND_BYTES_MAX {
            let expected = format!("at most {COMMAND_BYTES_MAX} bytes in all");
            return Err(GatewayError::bad_field("request", expected, length));
        }
        let started = Instant::now();
        let result =
            self.route(shard, lane(command), command.encode_to_vec().into(), started + SUBMIT_DEADLINE).await;
        metrics::ordered(started.elapsed());
        result
    }

    async fn route(
        &self,
        shard: u32,
        lane: Bytes,
        command: Bytes,
        deadline: Instant,
    ) -> Result<Final, GatewayError> {
        let mut pause = RETRY_PAUSE_MIN;
        // An attempt was lost: the command may be applied although nobody said so.
        let mut in_doubt = false;
        loop {
            if self.modes.of(shard) == Mode::Unavailable {
                return Err(if in_doubt { GatewayError::OutcomeUnknown } else { GatewayError::NoQuorum });
            }
            let mut changes = self.pool.board().changes();
            let again = match self.attempt(shard, &lane, &command, deadline).await {
                Ok(outcome) => return Ok(outcome),
                Err(again) => again,
            };
            metrics::retry(again.cause());
            in_doubt |= matches!(again, Again::Lost);
            let wait = match &again {
                Again::Overloaded { after, .. } => (*after).max(pause),
                _ => pause,
            };
            if Instant::now() + wait >= deadline {
                return Err(match again {
                    _ if in_doubt => GatewayError::OutcomeUnknown,
                    Again::Overloaded { message, after } => GatewayError::Overloaded {
                        what: "an ordering node",
                        limit: message,
                        retry_after: after,
                    },
                    _ => GatewayError::NoQuorum,
                });
            }
            let wake = Instant::now()
                + wait / 2
                + Duration::from_micros(self.rng.below(wait.as_micros() as u64 / 2 + 1));
            // News about leaders end the pause; an overloaded node is left alone for as long as it asked.
            let news = async {
                match again {
                    Again::NoLeader | Again::NotLeader | Again::NotSent | Again::Lost => {
                        changes.changed().await.is_ok()
                    }
                    Again::Overloaded { .. } => std::future::pending().await,
                }
            };
            let _ = timeout_at(wake, news).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }

    async fn attempt(
        &self,
        shard: u32,
        lane: &Bytes,
        command: &Bytes,
        deadline: Instant,
    ) -> Result<Final, Again> {
        let node = self.leader(shard).ok_or(Again::NoLeader)?;
        let limit = ATTEMPT_TIMEOUT.min(deadline.saturating_duration_since(Instant::now()));
        let attempt = tokio::select! {
            attempt = node.submissions.submit(lane.clone(), shard, command.clone(), limit) => attempt,
            // Whoever was asked hangs or is cut off: the new leader knows, or will learn, what becomes of it.
            () = self.another_leads(shard, &node.address) => Attempt::Lost,
        };
        let outcome = match attempt {
            Attempt::Answered(outcome) => outcome,
            Attempt::Lost => return Err(Again::Lost),
            Attempt::NotSent => return Err(Again::NotSent),
        };
        match outcome.outcome {
            Some(outcome::Outcome::NotLeader(hint)) => {
                self.pool.board().not_leader(shard, &node.address, &hint);
                Err(Again::NotLeader)
            }
            Some(outcome::Outcome::Overloaded(overloaded)) => Err(Again::Overloaded {
                message: overloaded.message,
                after: Duration::from_millis(overloaded.retry_after_ms.into()),
            }),
            // An answer of a kind that this version does not know may stand for anything; gateways close no collections.
            outcome => Final::from_outcome(Outcome { outcome }).ok_or(Again::Lost),
        }
    }

    /// Completes when another node than the one at `asked` is found to lead.
    async fn another_leads(&self, shard: u32, asked: &str) {
        let mut changes = self.pool.board().changes();
        loop {
            changes.borrow_and_update();
            if self.pool.board().leader(shard).is_some_and(|leader| leader != asked) {
                return;
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The node believed to lead; if nobody is, any node, which will name one or refuse without harm.
    fn leader(&self, shard: u32) -> Option<Arc<Node>> {
        if let Some(node) = self.pool.board().leader(shard).and_then(|address| self.pool.node(&address)) {
            return Some(node);
        }
        let nodes = self.pool.by_preference();
        let any = self.rng.below(nodes.len() as u64) as usize;
        nodes.into_iter().nth(any)
    }
}

/// What waits its turn together: the submissions of a group, and everything else.
fn lane(command: &Command) -> Bytes {
    match &command.command {
        Some(command::Command::Group(submission)) => submission.group_id.clone(),
        _ => Bytes::new(),
    }
}

impl Again {
    fn cause(&self) -> &'static str {
        match self {
            Self::NoLeader => "no_leader",
            Self::NotLeader => "not_leader",
            Self::NotSent => "not_sent",
            Self::Lost => "lost",
            Self::Overloaded { .. } => "overloaded",
        }
    }
}
