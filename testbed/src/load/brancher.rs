//! One client of one group with branches: it stands at one gateway, goes on wherever that lets it, and notes what it was told.
//!
//! Its messages are private and its tree is hidden, so that gateways see nothing of the members: no removal is ever owed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use concordat_proto::{
    gateway::v1::{
        CreateGroupRequest, SubmitRequest, SubscribeRequest, gateway_client::GatewayClient,
        submit_response::Outcome, subscribe_response::Event,
    },
    log::v1::{GroupKind as WireKind, content::Content as WireContent},
};
use group_log::{Commit, Content, Create, GroupId, GroupKind, Policy, StateId, hash};
use rand::{Rng, RngCore};
use rand_chacha::ChaCha8Rng;
use service_kit::{channel::Channel, status::reason};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use crate::{
    cluster::Dialer,
    history::{BranchCall, History, Told},
    limits::{ANSWER_DEADLINE, RETRY_PAUSE},
    mls_bytes::{ContentType, group_info, private_message},
    raw::name_client,
};

/// How long a client reads to find out where its group stands.
const LOOK: Duration = Duration::from_secs(5);

/// Refusals that say nothing about what was submitted: the same bytes again.
const TEMPORARY: [&str; 6] =
    ["NO_QUORUM", "OUTCOME_UNKNOWN", "OVERLOADED", "STORAGE", "RECONCILING", "BRANCH_GAP"];

/// Refusals of something that was made where the group does not stand any more.
const MOVED_ON: [&str; 7] = [
    "EPOCH_TOO_OLD",
    "EPOCH_AHEAD",
    "WRONG_STATE",
    "NOT_A_LEAF",
    "DEAD_BRANCH",
    "BELOW_PROMISE",
    "GROUP_NOT_FOUND",
];

pub(super) struct Brancher {
    history: Arc<History>,
    /// Entries that were accepted by the quorum, and on branches.
    accepted: Arc<AtomicU64>,
    provisional: Arc<AtomicU64>,
    group: GroupId,
    channel: Channel,
    name: String,
    message_bytes: usize,
    rng: ChaCha8Rng,
    position: Option<(u64, StateId)>,
}

/// What one client submits: its bytes and where it was made.
struct Draft {
    epoch: u64,
    parent: StateId,
    content: Content,
}

impl Brancher {
    #[allow(clippy::too_many_arguments, reason = "everything a client is made from, once")]
    pub(super) fn new(
        history: Arc<History>,
        accepted: Arc<AtomicU64>,
        provisional: Arc<AtomicU64>,
        group: GroupId,
        gateway: &str,
        name: String,
        message_bytes: usize,
        rng: ChaCha8Rng,
    ) -> Self {
        // Gateways with certificates take nobody for a member whose tree they do not see: there is no such group at them.
        let channel = Dialer::plaintext().channel(gateway);
        Self { history, accepted, provisional, group, channel, name, message_bytes, rng, position: None }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        self.create(&stop).await;
        while !stop.is_cancelled() {
            let Some((epoch, parent)) = self.position else {
                self.position = self.look().await;
                if self.position.is_none() {
                    sleep(RETRY_PAUSE).await;
                }
                continue;
            };
            let draft = self.draw(epoch, parent);
            while !stop.is_cancelled() {
                match self.attempt(&draft).await {
                    Told::Unknown => sleep(RETRY_PAUSE).await,
                    told => {
                        self.learn(&draft, &told);
                        break;
                    }
                }
            }
        }
    }

    /// All clients of a group create it with the same bytes: one does, the others are told so.
    async fn create(&mut self, stop: &CancellationToken) {
        let group_info = group_info(self.group.as_bytes(), 0);
        let state = hash::create_state_id(&self.group, 0, &group_info);
        let request =
            CreateGroupRequest { group_info: group_info.clone(), kind: WireKind::Demls.into(), policy: None };
        let content =
            Content::Create(Create { kind: GroupKind::Demls, policy: Policy::default(), group_info });
        let id = hash::entry_id(&state, &content);
        while !stop.is_cancelled() {
            let answer = self.client().create_group(self.named(request.clone())).await;
            let accepted = answer.ok().and_then(|answer| answer.into_inner().accepted);
            let told = accepted.map_or(Told::Unknown, |accepted| Told::Accepted { seq: accepted.seq });
            let is_there = told != Told::Unknown;
            self.history.branch_call(BranchCall { group: self.group.clone(), id, told });
            if is_there {
                self.position = Some((0, state));
                return;
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    async fn attempt(&mut self, draft: &Draft) -> Told {
        let message = match &draft.content {
            Content::Commit(commit) => commit.message.clone(),
            Content::Application { message } => message.clone(),
            other => unreachable!("no client draws a {:?}", other.kind()),
        };
        let request =
            SubmitRequest { message, parent_state_id: draft.parent.to_bytes(), ..SubmitRequest::default() };
        let answer = self.client().submit(self.named(request)).await;
        let told = match answer.map(|answer| answer.into_inner().outcome) {
            Ok(Some(outcome)) => told(outcome),
            Ok(None) => panic!("a submission was answered with nothing"),
            Err(status) => refusal(&status),
        };
        match told {
            Told::Accepted { .. } => _ = self.accepted.fetch_add(1, Ordering::Relaxed),
            Told::Provisional => _ = self.provisional.fetch_add(1, Ordering::Relaxed),
            _ => {}
        }
        let id = hash::entry_id(&draft.parent, &draft.content);
        self.history.branch_call(BranchCall { group: self.group.clone(), id, told: told.clone() });
        told
    }

    fn learn(&mut self, draft: &Draft, told: &Told) {
        match told {
            Told::Accepted { .. } | Told::Provisional => {
                if let Content::Commit(_) = &draft.content {
                    let state = hash::entry_id(&draft.parent, &draft.content).as_state();
                    self.position = Some((draft.epoch + 1, state));
                }
            }
            Told::Superseded | Told::OnSide => self.position = None,
            Told::Refused { reason } => {
                assert!(MOVED_ON.contains(&reason.as_str()), "something correct was refused: {reason}");
                self.position = None;
            }
            Told::Unknown => {}
        }
    }

    /// Where the group stands at this gateway: at the end of a branch from the head if there is one, else at the head.
    async fn look(&mut self) -> Option<(u64, StateId)> {
        let request = SubscribeRequest {
            group_id: self.group.to_bytes(),
            cursor: None,
            known_branch_entries: Vec::new(),
        };
        let mut request = self.named(request);
        // For as long as it is read.
        request.set_timeout(LOOK);
        let mut events = self.client().subscribe(request).await.ok()?.into_inner();
        let mut branches: Vec<(u64, StateId, StateId)> = Vec::new();
        let read = async {
            loop {
                match events.message().await.ok()??.event? {
                    Event::BranchEntry(event) => {
                        let entry = event.entry?;
                        if matches!(entry.content?.content?, WireContent::Commit(_)) {
                            let id = StateId::from_slice(&event.entry_id).ok()?;
                            let fork = StateId::from_slice(&event.fork_state_id).ok()?;
                            branches.push((event.epoch + 1, id, fork));
                        }
                    }
                    Event::CaughtUp(head) => return Some(head),
                    Event::Entry(_) | Event::ModeChange(_) | Event::Pruned(_) => {}
                }
            }
        };
        let head = timeout(LOOK, read).await.ok()??;
        let state = StateId::from_slice(&head.state_id).ok()?;
        let ends = branches.into_iter().filter(|(_, _, fork)| *fork == state);
        let longest = ends.max_by_key(|(epoch, ..)| *epoch);
        Some(longest.map_or((head.epoch, state), |(epoch, state, _)| (epoch, state)))
    }

    fn draw(&mut self, epoch: u64, parent: StateId) -> Draft {
        let mut secret = vec![0; self.message_bytes];
        self.rng.fill_bytes(&mut secret);
        let wrapped = |content| {
            // A DMLSMessage: an MLSMessage, and the dmls_epoch as a vector.
            let message = private_message(self.group.as_bytes(), epoch, content, &secret);
            Bytes::from([&message[..], &[32], &[9; 32]].concat())
        };
        let content = if self.rng.random_ratio(3, 10) {
            Content::Application { message: wrapped(ContentType::Application) }
        } else {
            Content::Commit(Commit {
                message: wrapped(ContentType::Commit),
                welcome: Bytes::new(),
                group_info: Bytes::new(),
                recipients: Vec::new(),
            })
        };
        Draft { epoch, parent, content }
    }

    fn client(&self) -> GatewayClient<Channel> {
        GatewayClient::new(self.channel.clone())
    }

    fn named<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        name_client(request.metadata_mut(), self.name.as_bytes());
        request.set_timeout(ANSWER_DEADLINE);
        request
    }
}

fn told(outcome: Outcome) -> Told {
    match outcome {
        Outcome::Accepted(accepted) => Told::Accepted { seq: accepted.seq },
        Outcome::AcceptedProvisional(_) => Told::Provisional,
        Outcome::Superseded(_) => Told::Superseded,
        Outcome::OnSide(_) => Told::OnSide,
        other => panic!("nothing is owed in a group of private messages, and yet: {other:?}"),
    }
}

fn refusal(status: &Status) -> Told {
    match reason(status) {
        Some(reason) if !TEMPORARY.contains(&reason.as_str()) => Told::Refused { reason },
        _ => Told::Unknown,
    }
}
