//! Submissions to DeMLS groups: to the cluster while there is a quorum, onto a branch while there is none.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use concordat_proto::{
    convert,
    gateway::v1::{AcceptedProvisional, SubmitResponse, submit_response::Outcome},
    log::v1::{self as pb, RemoveFirst},
    ordering::v1::{Command, GroupSubmission, command},
};
use group_log::{
    Accepted, Content, EntryKind, StateId, View,
    fork::{BranchEntry, BranchRefusal, ForkView, Mode, Recorded},
};
use prost::Message;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{
    Api,
    submit::{Parsed, Turn},
};
use crate::{
    cluster::Final,
    demls::{
        Group, GroupError, Registry, Watching,
        sequence::{Sequenced, sequence, sequence_elsewhere},
        states::Looked,
        subscription::owed_indices,
    },
    error::GatewayError,
    limits::{MODE_PATIENCE, PARENT_PATIENCE, RETRY_PAUSE_MAX, SUBMIT_DEADLINE},
    mls::{ParseError, Problem},
};

/// A submission that was held against the state that it was made in.
struct Prepared {
    group: Arc<Group>,
    /// It is not let go before there is an answer.
    _waits: Watching,
    entry: BranchEntry,
    looked: Looked,
    submission: GroupSubmission,
}

/// While it lives, the outcome of a submission is not known.
struct InDoubt(Arc<Group>);

impl InDoubt {
    fn begin(group: &Arc<Group>) -> Self {
        group.in_doubt.fetch_add(1, Ordering::Relaxed);
        group.wake.notify_waiters();
        Self(Arc::clone(group))
    }
}

impl Drop for InDoubt {
    fn drop(&mut self) {
        self.0.in_doubt.fetch_sub(1, Ordering::Relaxed);
        self.0.wake.notify_waiters();
    }
}

impl Api {
    /// What serves DeMLS groups.
    pub(super) fn registry(&self) -> Result<&Arc<Registry>, GatewayError> {
        self.demls.as_ref().ok_or(GatewayError::NoStorage)
    }

    /// The submission is for a DeMLS group. Whatever names no state and no dmls_epoch is not looked at any further: the cluster refuses
    /// it in a DeMLS group.
    pub(super) async fn is_for_demls(&self, parsed: &Parsed) -> Result<bool, GatewayError> {
        let (dmls, names_state) = (parsed.message.dmls, !parsed.submission.parent_state_id.is_empty());
        if !dmls && (!names_state || self.demls.is_none()) {
            return Ok(false);
        }
        let is_demls = self.registry()?.kind(&parsed.message.group_id).await? == pb::GroupKind::Demls;
        let what = "message";
        match (dmls, is_demls) {
            (true, false) => {
                let problem =
                    Problem::Unexpected("expected an MLSMessage, got a DMLSMessage: the group is not DeMLS");
                Err(ParseError { what, problem }.into())
            }
            (false, true) => {
                let problem =
                    Problem::Unexpected("expected a DMLSMessage, got an MLSMessage: the group is DeMLS");
                Err(ParseError { what, problem }.into())
            }
            _ => Ok(is_demls),
        }
    }

    pub(super) async fn submit_demls(
        &self,
        parsed: Parsed,
        turn: Option<Turn>,
    ) -> Result<SubmitResponse, GatewayError> {
        let mut turn = match turn {
            Some(turn) => Some(turn.come().await),
            None => None,
        };
        let bytes = parsed.submission.encoded_len();
        let prepared = self.prepare(parsed).await?;
        let group = &prepared.group;
        let _under_way = self.meter.group(&group.id, bytes)?;
        let started = Instant::now();
        let (mut modes, mut in_doubt) = (group.modes(), None);
        loop {
            let mode = *modes.borrow_and_update();
            let quorum = self.registry()?.paths().reaches_quorum(group.shard);
            let outcome = match mode {
                Mode::Forked => {
                    let outcome = self.branch(&prepared).await?;
                    turn = None;
                    outcome
                }
                // Whoever is in doubt asks on, so that the doubt ends.
                Mode::Suspect if in_doubt.is_some() && quorum => {
                    self.order_demls(&prepared, &mut turn).await?
                }
                Mode::Ordered => self.order_demls(&prepared, &mut turn).await?,
                Mode::Suspect if !quorum && !group.may_fork().await => {
                    self.branch_elsewhere(&prepared).await?
                }
                Mode::Suspect | Mode::Reconciling => None,
            };
            match outcome {
                Some(Answered::Final(outcome)) => return Ok(SubmitResponse { outcome: Some(*outcome) }),
                Some(Answered::Reconciling(pause)) => {
                    if started.elapsed() >= MODE_PATIENCE {
                        return Err(GatewayError::Reconciling);
                    }
                    group.report_again().await;
                    sleep(pause).await;
                }
                Some(Answered::Unknown) => {
                    if started.elapsed() >= SUBMIT_DEADLINE {
                        return Err(GatewayError::OutcomeUnknown);
                    }
                    in_doubt.get_or_insert_with(|| InDoubt::begin(group));
                    // A branch takes it at once.
                    let forked = modes.wait_for(|now| *now == Mode::Forked);
                    let _ = timeout(RETRY_PAUSE_MAX, forked).await;
                }
                None => {
                    // It will be one or the other in a moment.
                    let patience = started + MODE_PATIENCE;
                    // Or another gateway is about to have a branch.
                    let look = (Instant::now() + RETRY_PAUSE_MAX).min(patience);
                    let waited = timeout_at(look, modes.wait_for(|now| *now != mode)).await.map(drop);
                    if waited.is_err() && Instant::now() >= patience {
                        return Err(match mode {
                            _ if in_doubt.is_some() => GatewayError::OutcomeUnknown,
                            Mode::Reconciling => GatewayError::Reconciling,
                            _ if group.may_fork().await => GatewayError::NoQuorum,
                            _ => GatewayError::MayNotFork,
                        });
                    }
                }
            }
        }
    }

    async fn prepare(&self, parsed: Parsed) -> Result<Prepared, GatewayError> {
        let group = self.registry()?.used(&parsed.message.group_id).await?;
        let waits = Watching::begin(&group);
        let Parsed { mut submission, author, message, .. } = parsed;
        let parent = convert::state_id("parent_state_id", &submission.parent_state_id);
        let parent: StateId = parent.map_err(GatewayError::bad_wire)?;
        let missing = || GatewayError::Protocol("a submission without content");
        let content = submission.content.clone().ok_or_else(missing)?;
        let content = Content::try_from(content).map_err(GatewayError::bad_wire)?;
        // The log here may be a moment behind what the client has seen elsewhere.
        let patience = if *group.live().borrow() { PARENT_PATIENCE } else { MODE_PATIENCE };
        if !group.wait_for_state(&parent, patience).await? {
            return Err(GroupError::from(BranchRefusal::UnknownParent { parent }).into());
        }
        let entry = BranchEntry { parent, author, content, facts: group_log::fork::CommitFacts::default() };
        let (entry, looked) = group.look(entry).await?;
        self.may_submit_demls(&group, &entry.author, &parent, &message, &looked).await?;
        submission.facts = convert::facts_out(&entry.facts);
        Ok(Prepared { group, _waits: waits, entry, looked, submission })
    }

    /// Submits to the cluster, for as long as the group does not go on without it.
    async fn order_demls<T>(
        &self,
        prepared: &Prepared,
        turn: &mut Option<T>,
    ) -> Result<Option<Answered>, GatewayError> {
        let group = &prepared.group;
        let command = Command { command: Some(command::Command::Group(prepared.submission.clone())) };
        let mut modes = group.modes();
        let ordering = self.registry()?.paths().submit(group.shard, &command);
        tokio::pin!(ordering);
        // Polled once before the next in turn may start.
        let first = futures::poll!(&mut ordering);
        *turn = None;
        let outcome = match first {
            std::task::Poll::Ready(outcome) => outcome,
            std::task::Poll::Pending => tokio::select! {
                outcome = &mut ordering => outcome,
                // What became of it is not known: so it goes first on the branch.
                _ = modes.wait_for(|mode| *mode == Mode::Forked) => return Ok(Some(Answered::Unknown)),
            },
        };
        Ok(Some(match outcome {
            Ok(Final::Accepted(accepted)) => {
                self.registry()?.expect(&group.id, accepted.seq);
                Answered::Final(Box::new(Outcome::Accepted(accepted)))
            }
            Ok(Final::Superseded(mut superseded)) => {
                // Facts are for gateways.
                superseded.winner.iter_mut().for_each(|winner| winner.facts = None);
                Answered::Final(Box::new(Outcome::Superseded(*superseded)))
            }
            Ok(Final::OnSide(side)) => Answered::Final(Box::new(Outcome::OnSide(side))),
            Ok(Final::RemoveFirst(owed)) => Answered::Final(Box::new(remove_first(group, owed)?)),
            Ok(Final::Reconciling(retry)) => {
                Answered::Reconciling(Duration::from_millis(retry.retry_after_ms.into()).min(RETRY_PAUSE_MAX))
            }
            Ok(Final::Refused(refused)) => return Err(GatewayError::Refused(refused)),
            Ok(_) => return Err(GatewayError::Protocol("an outcome that does not belong to the command")),
            Err(GatewayError::OutcomeUnknown) => Answered::Unknown,
            // Nothing was proposed: the mode will tell how it goes on.
            Err(GatewayError::NoQuorum | GatewayError::Unreachable(_)) if group.mode() != Mode::Ordered => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }))
    }

    async fn branch(&self, prepared: &Prepared) -> Result<Option<Answered>, GatewayError> {
        let Prepared { group, entry, looked, .. } = prepared;
        let sequenced = sequence(group, self.registry()?.paths(), entry.clone(), looked).await?;
        self.sequenced(prepared, sequenced).await
    }

    /// The same at another gateway, if one is reached that may.
    async fn branch_elsewhere(&self, prepared: &Prepared) -> Result<Option<Answered>, GatewayError> {
        let Prepared { group, entry, .. } = prepared;
        match sequence_elsewhere(group, self.registry()?.paths(), entry.clone()).await? {
            Some(sequenced) => self.sequenced(prepared, sequenced).await,
            None => Ok(None),
        }
    }

    async fn sequenced(
        &self,
        prepared: &Prepared,
        sequenced: Sequenced,
    ) -> Result<Option<Answered>, GatewayError> {
        let Prepared { group, entry, .. } = prepared;
        let (id, copies) = match sequenced {
            Sequenced::Accepted { id, copies } => (id, copies),
            Sequenced::RemoveFirst(owed) => {
                return Ok(Some(Answered::Final(Box::new(remove_first(group, owed)?))));
            }
            Sequenced::NotForked => return Ok(None),
        };
        if let Some(Recorded::Canonical { seq, .. }) = group.rows.recorded(&id)?
            && let Some(record) = group.rows.record(seq)?
        {
            // It had been ordered before the quorum was lost.
            let accepted = Accepted::from_record(seq, &record);
            return Ok(Some(Answered::Final(Box::new(Outcome::Accepted(accepted.into())))));
        }
        let found = group.find(&id).await?.ok_or(GatewayError::Protocol("an accepted entry is missing"))?;
        let is_commit = entry.content.kind() == EntryKind::Commit;
        let state = if is_commit { id.as_state() } else { entry.parent };
        let accepted = AcceptedProvisional {
            entry_id: id.to_bytes(),
            epoch: found.epoch + u64::from(is_commit),
            state_id: state.to_bytes(),
            fork_state_id: found.fork.to_bytes(),
            copies,
        };
        Ok(Some(Answered::Final(Box::new(Outcome::AcceptedProvisional(accepted)))))
    }
}

enum Answered {
    Final(Box<Outcome>),
    Reconciling(Duration),
    Unknown,
}

fn remove_first(group: &Group, mut owed: RemoveFirst) -> Result<Outcome, GatewayError> {
    owed.owed_leaf_indices = owed_indices(group, &owed.owed)?;
    Ok(Outcome::RemoveFirst(owed))
}
