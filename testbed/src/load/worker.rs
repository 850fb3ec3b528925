//! One client of one group: it submits in the position it believes in, and learns from every answer.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use group_log::{
    ClientId, Commit, Content, Create, EntryKind, GroupId, GroupKind, Policy, StateId, Submission,
};
use rand::{Rng, RngCore};
use rand_chacha::ChaCha8Rng;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    history::{Answer, Call, ContentKey, History},
    limits::RETRY_PAUSE,
    mls_bytes::{ContentType, group_info, private_message},
    ordering::OrderingClient,
};

use super::{AUTHOR, route::Route};

/// Of a hundred submissions without an answer, so many are given up instead of submitted again.
const ABANDONED_PERCENT: u32 = 10;

pub(super) struct Worker {
    client: OrderingClient,
    history: Arc<History>,
    accepted: Arc<AtomicU64>,
    group: GroupId,
    route: Route,
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
        route: Route,
        message_bytes: usize,
        rng: ChaCha8Rng,
    ) -> Self {
        Self { client, history, accepted, group, route, message_bytes, rng, position: None, created: false }
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
            while !stop.is_cancelled() {
                match self.attempt(&key, &submission).await {
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
    async fn attempt(&mut self, key: &ContentKey, submission: &Submission) -> Option<Answer> {
        let start = self.history.moment();
        let answer = self.route.attempt(submission).await?;
        let end = self.history.moment();
        if matches!(answer, Answer::Accepted { .. }) {
            self.accepted.fetch_add(1, Ordering::Relaxed);
        }
        let (group, epoch) = (self.group.clone(), submission.epoch);
        let (key, recorded) = (key.clone(), answer.clone());
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
        let author = ClientId::new(Bytes::from_static(AUTHOR)).expect("a short name is a client id");
        let submission = |epoch, parent_state_id, content| Submission {
            group_id: self.group.clone(),
            author,
            epoch,
            parent_state_id,
            content,
        };
        let Some((epoch, state)) = self.position else {
            // All clients of a group create it with the same bytes: one does, the others are told so.
            let group_info = group_info(self.group.as_bytes(), 0);
            let create = Create { kind: GroupKind::Mls, policy: Policy::default(), group_info };
            return submission(0, None, Content::Create(create));
        };
        let mut message = vec![0; self.message_bytes];
        self.rng.fill_bytes(&mut message);
        let wrapped = |content| private_message(self.group.as_bytes(), epoch, content, &message);
        let content = match self.rng.random_range(0..10) {
            0..2 => Content::Application { message: wrapped(ContentType::Application) },
            2 => Content::Proposal { message: wrapped(ContentType::Proposal) },
            _ => Content::Commit(Commit {
                message: wrapped(ContentType::Commit),
                welcome: Bytes::new(),
                group_info: Bytes::new(),
                recipients: Vec::new(),
            }),
        };
        let parent = self.rng.random::<bool>().then_some(state);
        submission(epoch, parent, content)
    }
}
