//! One client of one group: it submits in the position it believes in, and learns from every answer.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use concordat_proto::{log::v1::Reason, ordering::v1::outcome::Outcome};
use group_log::{
    Accepted, ClientId, Commit, Content, Create, Entry, EntryKind, GroupId, GroupKind, Policy, StateId,
    Submission,
};
use prost::Message;
use rand::{Rng, RngCore};
use rand_chacha::ChaCha8Rng;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    history::{Answer, Call, ContentKey, History},
    limits::RETRY_PAUSE,
    ordering::{Attempt, OrderingClient, group_command},
};

/// Of a hundred submissions without an answer, so many are given up instead of submitted again.
const ABANDONED_PERCENT: u32 = 10;

pub(super) struct Worker {
    client: OrderingClient,
    history: Arc<History>,
    accepted: Arc<AtomicU64>,
    group: GroupId,
    shard: u32,
    message_bytes: usize,
    rng: ChaCha8Rng,
    /// Epoch and state that this client believes to be current; nothing if it has to find out.
    position: Option<(u64, StateId)>,
    /// This client knows that the group exists.
    created: bool,
}

impl Worker {
    pub(super) fn new(
        client: OrderingClient,
        history: Arc<History>,
        accepted: Arc<AtomicU64>,
        group: GroupId,
        shard: u32,
        message_bytes: usize,
        rng: ChaCha8Rng,
    ) -> Self {
        Self { client, history, accepted, group, shard, message_bytes, rng, position: None, created: false }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            if self.created && self.position.is_none() {
                self.position = self.client.position(&self.group).await;
                if self.position.is_none() {
                    sleep(RETRY_PAUSE).await;
                    continue;
                }
            }
            let submission = self.draw();
            let key = ContentKey::of(&submission.content);
            let epoch = submission.epoch;
            let command = Bytes::from(group_command(submission).encode_to_vec());
            while !stop.is_cancelled() {
                match self.attempt(&key, epoch, command.clone()).await {
                    Some(Answer::Unknown) if self.rng.random_ratio(ABANDONED_PERCENT, 100) => break,
                    // The same bytes again.
                    Some(Answer::Unknown) | None => sleep(RETRY_PAUSE).await,
                    Some(answer) => {
                        self.learn(&key, answer);
                        break;
                    }
                }
            }
        }
    }

    /// One attempt; recorded unless nothing was proposed.
    async fn attempt(&mut self, key: &ContentKey, epoch: u64, command: Bytes) -> Option<Answer> {
        let start = self.history.moment();
        let attempt = self.client.attempt(self.shard, command).await;
        let end = self.history.moment();
        let answer = match attempt {
            Attempt::Lost => Answer::Unknown,
            Attempt::Answered(outcome) => answer(outcome)?,
        };
        if matches!(answer, Answer::Accepted { .. }) {
            self.accepted.fetch_add(1, Ordering::Relaxed);
        }
        let (group, key, recorded) = (self.group.clone(), key.clone(), answer.clone());
        self.history.call(Call { group, epoch, key, start, end, answer: recorded });
        Some(answer)
    }

    fn learn(&mut self, key: &ContentKey, answer: Answer) {
        match answer {
            Answer::Accepted { .. } if key.kind == EntryKind::Create => self.created = true,
            Answer::Accepted { epoch, state_id, .. } => self.position = Some((epoch, state_id)),
            Answer::Superseded { winner } => self.position = Some((winner.epoch + 1, winner.state_id)),
            Answer::Refused { reason } => {
                // Others have moved on, or the node that told the position was behind.
                let expected = ["EPOCH_TOO_OLD", "EPOCH_AHEAD", "WRONG_STATE"].contains(&reason.as_str());
                assert!(expected, "a correct {:?} was refused: {reason}", key.kind);
                self.position = None;
            }
            Answer::Unknown => {}
        }
    }

    fn draw(&mut self) -> Submission {
        let author = ClientId::new(Bytes::from_static(b"load")).expect("a short name is a client id");
        let submission = |epoch, parent_state_id, content| Submission {
            group_id: self.group.clone(),
            author,
            epoch,
            parent_state_id,
            content,
        };
        let Some((epoch, state)) = self.position else {
            // All clients of a group create it with the same bytes: one does, the others are told so.
            let group_info = self.group.to_bytes();
            let create = Create { kind: GroupKind::Mls, policy: Policy::default(), group_info };
            return submission(0, None, Content::Create(create));
        };
        let mut message = vec![0; self.message_bytes];
        self.rng.fill_bytes(&mut message);
        let message = Bytes::from(message);
        let content = match self.rng.random_range(0..10) {
            0..2 => Content::Application { message },
            2 => Content::Proposal { message },
            _ => Content::Commit(Commit {
                message,
                welcome: Bytes::new(),
                group_info: Bytes::new(),
                recipients: Vec::new(),
            }),
        };
        let parent = self.rng.random::<bool>().then_some(state);
        submission(epoch, parent, content)
    }
}

/// What an outcome says about a submission to a group; nothing if it was not even proposed.
fn answer(outcome: Outcome) -> Option<Answer> {
    Some(match outcome {
        Outcome::Accepted(accepted) => {
            let Accepted { seq, epoch, state_id, chain } =
                accepted.try_into().unwrap_or_else(|error| panic!("an accepted answer is broken: {error}"));
            Answer::Accepted { seq, epoch, state_id, chain }
        }
        Outcome::Superseded(superseded) => {
            let winner = superseded.winner.map(Entry::try_from);
            match winner {
                Some(Ok(winner)) => Answer::Superseded { winner: Box::new(winner) },
                other => panic!("a superseded answer has no usable winner: {other:?}"),
            }
        }
        Outcome::Refused(refused) => Answer::Refused {
            reason: Reason::try_from(refused.reason)
                .map_or("?", |reason| reason.as_str_name())
                .trim_start_matches("REASON_")
                .to_owned(),
        },
        Outcome::Unknown(_) => Answer::Unknown,
        Outcome::NotLeader(_) | Outcome::Overloaded(_) => return None,
        other => panic!("a submission to a group was answered with {other:?}"),
    })
}
