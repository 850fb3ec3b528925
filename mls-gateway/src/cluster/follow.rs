//! One multiplexed stream that follows groups and inboxes on one node. When the node dies, lags or shows a log that does not fit, or
//! when a nearer one is there, everything goes on with another node, from where it was.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use concordat_proto::{
    convert,
    log::v1::{CanonicalCursor, Entry, Head, InboxCursor, PendingWelcome, Pruned, Reason, Refused},
    ordering::v1::{
        FollowGroup, FollowInbox, SubscribeRequest, SubscribeResponse, UnfollowGroup, UnfollowInbox,
        subscribe_request::Request, subscribe_response::Response,
    },
};
use group_log::{ClientId, GroupId};
use tokio::{
    sync::mpsc,
    time::{Instant, interval, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::Streaming;

use super::pool::{Node, Pool};
use crate::{
    limits::{
        CONNECT_TIMEOUT, FOLLOW_NEARER_AFTER, FOLLOW_REQUESTS_MAX, FOLLOW_RETRY_PAUSE, RECONNECT_PAUSE,
    },
    metrics,
};

/// How often the followed node and those that wait are looked at.
const TICK: Duration = FOLLOW_RETRY_PAUSE;

/// What is to happen after something was handed to a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Continue,
    /// Ask again in a moment, from the sink's cursor: the node may not have caught up yet.
    AskAgain,
    /// The node cannot be trusted with this log: go on with another.
    OtherNode,
    /// Nobody is interested any more.
    Stop,
}

/// Takes in a followed group. Must not block.
pub trait GroupSink: Send + Sync + 'static {
    /// The group that is followed.
    fn group_id(&self) -> &GroupId;
    /// Where to go on.
    fn cursor(&self) -> CanonicalCursor;
    /// Another node is followed from now on.
    fn restarted(&self, now: Instant);
    /// The next entries.
    fn entries(&self, entries: Vec<Entry>) -> Verdict;
    /// Everything up to this head was delivered.
    fn caught_up(&self, head: Head) -> Verdict;
    /// The node cannot follow the group.
    fn refused(&self, refused: Refused) -> Verdict;
    /// The cluster has accepted something for too long that was not delivered.
    fn is_lagging(&self, now: Instant) -> bool;
}

/// Takes in a followed inbox. Must not block.
pub trait InboxSink: Send + Sync + 'static {
    /// Whose inbox.
    fn client_id(&self) -> &ClientId;
    /// Where to go on.
    fn cursor(&self) -> InboxCursor;
    /// The next Welcomes.
    fn welcomes(&self, welcomes: Vec<PendingWelcome>) -> Verdict;
}

#[derive(Clone)]
enum Followed {
    Group(Arc<dyn GroupSink>),
    Inbox(Arc<dyn InboxSink>),
}

enum Order {
    Follow(u64, Followed),
    Unfollow(u64),
}

/// Starts and ends following. Clones share the stream.
#[derive(Clone)]
pub struct Follower {
    orders: mpsc::UnboundedSender<Order>,
    next_id: Arc<AtomicU64>,
}

/// Ends following when dropped.
pub struct FollowGuard {
    id: u64,
    orders: mpsc::UnboundedSender<Order>,
}

impl Drop for FollowGuard {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Unfollow(self.id));
    }
}

impl Follower {
    /// Starts the task that owns the stream.
    pub(super) fn start(pool: Arc<Pool>) -> (Self, AbortOnDropHandle<()>) {
        // One order per follow and unfollow; both are bounded by whoever follows.
        let (orders, incoming) = mpsc::unbounded_channel();
        let task =
            Task { pool, incoming, followed: BTreeMap::new(), outbox: VecDeque::new(), again: Vec::new() };
        let handle = AbortOnDropHandle::new(tokio::spawn(task.run()));
        (Self { orders, next_id: Arc::default() }, handle)
    }

    /// Follows a group until the guard is dropped.
    pub fn group(&self, sink: Arc<dyn GroupSink>) -> FollowGuard {
        self.follow(Followed::Group(sink))
    }

    /// Follows an inbox until the guard is dropped.
    pub fn inbox(&self, sink: Arc<dyn InboxSink>) -> FollowGuard {
        self.follow(Followed::Inbox(sink))
    }

    fn follow(&self, what: Followed) -> FollowGuard {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed) + 1;
        let _ = self.orders.send(Order::Follow(id, what));
        FollowGuard { id, orders: self.orders.clone() }
    }
}

struct Task {
    pool: Arc<Pool>,
    incoming: mpsc::UnboundedReceiver<Order>,
    followed: BTreeMap<u64, Followed>,
    /// Requests that wait for the transport: one per follow at most, and their ends.
    outbox: VecDeque<Request>,
    /// To be asked for again.
    again: Vec<u64>,
}

/// Why a node is followed no longer.
enum Switch {
    Stop,
    Idle,
    Because(&'static str),
}

impl Task {
    async fn run(mut self) {
        let mut avoid: Option<String> = None;
        loop {
            // Without anything to follow there is no stream.
            while self.followed.is_empty() {
                match self.incoming.recv().await {
                    Some(order) => self.take(order),
                    None => return,
                }
            }
            let nodes = self.pool.by_preference();
            let other = nodes.iter().find(|n| Some(&n.address) != avoid.as_ref()).or(nodes.first()).cloned();
            let Some(node) = other else {
                sleep(RECONNECT_PAUSE).await;
                continue;
            };
            match self.follow(&node).await {
                Switch::Stop => return,
                Switch::Idle => {}
                Switch::Because(cause) => {
                    metrics::follow_switch(cause);
                    tracing::info!(
                        node = node.address,
                        cause,
                        "following ends with this node and goes on with another"
                    );
                    avoid = Some(node.address.clone());
                    sleep(RECONNECT_PAUSE / 4).await;
                }
            }
        }
    }

    async fn follow(&mut self, node: &Node) -> Switch {
        let (requests, outgoing) = mpsc::channel(FOLLOW_REQUESTS_MAX);
        self.again.clear();
        self.outbox.clear();
        let all: Vec<u64> = self.followed.keys().copied().collect();
        for id in all {
            if let Some(Followed::Group(sink)) = self.followed.get(&id) {
                sink.restarted(Instant::now());
            }
            self.ask(id);
        }
        // The first requests go along with the call, so that a node which answers only when spoken to is not waited for.
        while let Ok(room) = requests.try_reserve() {
            let Some(request) = self.outbox.pop_front() else { break };
            room.send(SubscribeRequest { request: Some(request) });
        }
        let mut client = node.client.clone();
        match timeout(CONNECT_TIMEOUT, client.subscribe(ReceiverStream::new(outgoing))).await {
            Ok(Ok(response)) => self.pump(node, requests, response.into_inner()).await,
            Ok(Err(_)) | Err(_) => Switch::Because("unreachable"),
        }
    }

    async fn pump(
        &mut self,
        node: &Node,
        requests: mpsc::Sender<SubscribeRequest>,
        mut responses: Streaming<SubscribeResponse>,
    ) -> Switch {
        let mut ticks = interval(TICK);
        let mut nearer_since = None;
        loop {
            tokio::select! {
                response = responses.message() => match response {
                    Ok(Some(response)) => {
                        if let Some(switch) = self.hand_on(response) {
                            return switch;
                        }
                    }
                    Ok(None) | Err(_) => return Switch::Because("broken"),
                },
                order = self.incoming.recv() => match order {
                    Some(order) => self.take(order),
                    None => return Switch::Stop,
                },
                room = requests.reserve(), if !self.outbox.is_empty() => {
                    let Ok(room) = room else { return Switch::Because("broken") };
                    if let Some(request) = self.outbox.pop_front() {
                        room.send(SubscribeRequest { request: Some(request) });
                    }
                }
                now = ticks.tick() => {
                    for id in std::mem::take(&mut self.again) {
                        self.ask(id);
                    }
                    if self.followed.is_empty() {
                        return Switch::Idle;
                    }
                    if !self.pool.board().is_current(&node.address, now) {
                        return Switch::Because("no_quorum");
                    }
                    if self.followed.values().any(|f| matches!(f, Followed::Group(g) if g.is_lagging(now))) {
                        return Switch::Because("lagging");
                    }
                    let since = self.pool.has_nearer(node).then(|| *nearer_since.get_or_insert(now));
                    if since.is_some_and(|since| now - since >= FOLLOW_NEARER_AFTER) {
                        return Switch::Because("nearer");
                    }
                    nearer_since = since;
                }
            }
        }
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Follow(id, what) => {
                self.followed.insert(id, what);
                self.ask(id);
            }
            Order::Unfollow(id) => {
                if let Some(followed) = self.followed.remove(&id) {
                    self.outbox.push_back(match followed {
                        Followed::Group(_) => Request::Unfollow(UnfollowGroup { id }),
                        Followed::Inbox(_) => Request::UnfollowInbox(UnfollowInbox { id }),
                    });
                }
            }
        }
    }

    fn ask(&mut self, id: u64) {
        let request = match self.followed.get(&id) {
            Some(Followed::Group(sink)) => Request::Follow(FollowGroup {
                id,
                group_id: sink.group_id().to_bytes(),
                cursor: Some(sink.cursor()),
            }),
            Some(Followed::Inbox(sink)) => Request::FollowInbox(FollowInbox {
                id,
                client_id: sink.client_id().to_bytes(),
                cursor: Some(sink.cursor()),
            }),
            None => return,
        };
        self.outbox.push_back(request);
    }

    fn hand_on(&mut self, response: SubscribeResponse) -> Option<Switch> {
        let id = response.id;
        // Answers may still come for what is followed no longer.
        let followed = self.followed.get(&id)?;
        let verdict = match (followed, response.response?) {
            (Followed::Group(sink), Response::Entries(entries)) => sink.entries(entries.entries),
            (Followed::Group(sink), Response::CaughtUp(head)) => sink.caught_up(head),
            (Followed::Group(sink), Response::Refused(refused)) => sink.refused(refused),
            (Followed::Group(sink), Response::Pruned(pruned)) => sink.refused(refused_as_pruned(&pruned)),
            (Followed::Inbox(sink), Response::Welcomes(welcomes)) => sink.welcomes(welcomes.welcomes),
            (Followed::Inbox(_), Response::Refused(_)) => Verdict::AskAgain,
            _ => Verdict::Continue,
        };
        match verdict {
            Verdict::Continue => None,
            Verdict::AskAgain => {
                self.again.push(id);
                None
            }
            Verdict::OtherNode => Some(Switch::Because("mismatch")),
            Verdict::Stop => {
                self.take(Order::Unfollow(id));
                None
            }
        }
    }
}

/// What comes after the sink's place is gone everywhere: no other node helps.
fn refused_as_pruned(pruned: &Pruned) -> Refused {
    let oldest = pruned.oldest_seq.to_string();
    let message = format!(
        "the log begins with entry {oldest}: come back by an external commit with the newest GroupInfo"
    );
    convert::refused(Reason::Pruned, message, [("oldest_seq", oldest)])
}
