//! The sending side of replication: the shards' lanes, multiplexed over one stream per peer.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use concordat_proto::raft::v1::{
    AppendResult, LaneAppend, LaneClose, ReplicateRequest, ReplicateResponse, replicate_request::Request,
    replicate_response::Response,
};
use futures::{Stream, StreamExt};
use openraft::raft::AppendEntriesRequest;
use parking_lot::Mutex;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{
    peer::{Peer, PeerError},
    types::{LogId, ShardId, TypeConfig},
    wire,
};
use crate::limits;

/// The replication stream to one peer. Opened when a lane needs it, and again after it broke.
#[derive(Default)]
pub struct PeerStream {
    link: tokio::sync::Mutex<Option<Arc<Link>>>,
}

/// One open stream.
struct Link {
    out: mpsc::Sender<ReplicateRequest>,
    /// Where the answers of each lane go. None once the stream broke.
    lanes: Mutex<Option<HashMap<u64, mpsc::Sender<LaneEvent>>>>,
    next_lane: AtomicU64,
}

enum LaneEvent {
    Result(AppendResult),
    Failed(String),
}

impl PeerStream {
    /// Opens a lane for one replication session of one shard.
    ///
    /// # Errors
    /// The peer can not be reached or refuses this node.
    pub async fn open_lane(
        &self,
        peer: Arc<Peer>,
        shard: ShardId,
        limit: Duration,
    ) -> Result<Lane, PeerError> {
        let mut link = self.link.lock().await;
        if let Some(lane) = link.as_ref().and_then(|link| link.open_lane(&peer, shard)) {
            return Ok(lane);
        }
        let fresh = Link::connect(&peer, limit).await?;
        let lane = fresh.open_lane(&peer, shard).ok_or_else(|| peer.broken("the stream broke at once"))?;
        *link = Some(fresh);
        Ok(lane)
    }
}

impl Link {
    async fn connect(peer: &Peer, limit: Duration) -> Result<Arc<Self>, PeerError> {
        let (out, requests) = mpsc::channel(limits::PEER_QUEUE);
        let hello = ReplicateRequest { request: peer.hello().map(Request::Hello) };
        out.try_send(hello).map_err(|_| peer.broken("the queue of a new stream is full"))?;
        let mut client = peer.bulk();
        let answers = peer.ask(limit, client.replicate(ReceiverStream::new(requests))).await?;
        let lanes = Mutex::new(Some(HashMap::new()));
        let link = Arc::new(Self { out, lanes, next_lane: AtomicU64::new(1) });
        tokio::spawn(dispatch(link.clone(), answers, peer.node_id()));
        Ok(link)
    }

    fn open_lane(self: &Arc<Self>, peer: &Arc<Peer>, shard: ShardId) -> Option<Lane> {
        let id = self.next_lane.fetch_add(1, Ordering::Relaxed);
        // One more than may be under way, for the message that ends the lane.
        let (events_in, events) = mpsc::channel(limits::LANE_REQUESTS + 1);
        self.lanes.lock().as_mut()?.insert(id, events_in);
        Some(Lane { id, shard, peer: peer.clone(), link: self.clone(), events })
    }
}

/// Hands answers to their lanes until the stream breaks; then every lane learns of it, since its sender is gone.
async fn dispatch(link: Arc<Link>, mut answers: Streaming<ReplicateResponse>, peer: u64) {
    loop {
        let (lane, event) = match answers.message().await {
            Ok(Some(ReplicateResponse { response: Some(Response::Result(r)) })) => {
                let Some(result) = r.result else { break };
                (r.lane, LaneEvent::Result(result))
            }
            Ok(Some(ReplicateResponse { response: Some(Response::Failed(f)) })) => {
                (f.lane, LaneEvent::Failed(f.message))
            }
            Ok(Some(ReplicateResponse { response: None })) => {
                tracing::warn!(
                    peer,
                    "an empty answer on the replication stream: both nodes must run the same version"
                );
                break;
            }
            Ok(None) => break,
            Err(status) => {
                tracing::info!(peer, "the replication stream ended: {}", status.message());
                break;
            }
        };
        let mut lanes = link.lanes.lock();
        let Some(lanes) = lanes.as_mut() else { break };
        // A lane that is gone wants no answer. A full one is a peer that answers what it was not asked.
        if let Some(to) = lanes.get(&lane)
            && let Err(mpsc::error::TrySendError::Full(_)) = to.try_send(event)
        {
            tracing::warn!(peer, "more answers than requests on the replication stream");
            break;
        }
    }
    *link.lanes.lock() = None;
}

/// One replication session of one shard.
pub struct Lane {
    id: u64,
    shard: ShardId,
    peer: Arc<Peer>,
    link: Arc<Link>,
    events: mpsc::Receiver<LaneEvent>,
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(lanes) = self.link.lanes.lock().as_mut() {
            lanes.remove(&self.id);
        }
        let close = Request::Close(LaneClose { lane: self.id });
        // With a full queue the receiver keeps an idle lane until the stream ends; its number of lanes is bounded.
        let _ = self.link.out.try_send(ReplicateRequest { request: Some(close) });
    }
}

/// A lane with its requests under way.
struct Session<S> {
    lane: Lane,
    input: S,
    input_ended: bool,
    /// Bytes of each request that is not answered yet, oldest first.
    under_way: VecDeque<usize>,
    bytes_under_way: usize,
    progress_limit: Duration,
    deadline: Instant,
    /// Up to where the log was sent. None before the first request.
    sent: Option<Option<LogId>>,
    /// A notice of what was committed, which waits for entries to go with, and until when.
    notice: Option<(AppendEntriesRequest<TypeConfig>, Instant)>,
    ended: bool,
}

impl Lane {
    /// Sends all of `input`, a bounded part of it ahead of the answers, and returns the answers in order. Ends with an error
    /// when an answer is owed for longer than `progress_limit`.
    pub fn run<S>(
        self,
        input: S,
        progress_limit: Duration,
    ) -> impl Stream<Item = Result<wire::AppendResult, PeerError>> + Send
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        let session = Session {
            lane: self,
            input,
            input_ended: false,
            under_way: VecDeque::new(),
            bytes_under_way: 0,
            progress_limit,
            deadline: Instant::now() + progress_limit,
            sent: None,
            notice: None,
            ended: false,
        };
        futures::stream::unfold(session, |mut session| async move {
            let answer = session.next_answer().await?;
            session.ended = !matches!(answer, Ok(Ok(_)));
            Some((answer, session))
        })
    }
}

impl<S> Session<S>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
{
    async fn next_answer(&mut self) -> Option<Result<wire::AppendResult, PeerError>> {
        loop {
            if self.ended || (self.input_ended && self.under_way.is_empty() && self.notice.is_none()) {
                return None;
            }
            let may_send =
                self.under_way.len() < limits::LANE_REQUESTS && self.bytes_under_way < limits::LANE_BYTES;
            let notice_at = self.notice.as_ref().map_or(self.deadline, |(_, at)| *at);
            let sent = tokio::select! {
                biased;
                event = self.lane.events.recv(), if !self.under_way.is_empty() => return Some(self.answered(event)),
                request = self.input.next(), if may_send && !self.input_ended => self.take(request).await,
                () = sleep_until(notice_at), if may_send && self.notice.is_some() => self.send_notice().await,
                () = sleep_until(self.deadline), if !self.under_way.is_empty() => Err(self.stuck()),
            };
            if let Err(error) = sent {
                return Some(Err(error));
            }
        }
    }

    async fn take(&mut self, request: Option<AppendEntriesRequest<TypeConfig>>) -> Result<(), PeerError> {
        let Some(request) = request else {
            self.input_ended = true;
            return self.send_notice().await;
        };
        // What was sent before proves that the logs match up to here: this says only that more is committed. Entries that come
        // soon say so, too; their answer stands for both.
        if request.entries.is_empty() && self.sent.as_ref() == Some(&request.prev_log_id) {
            let at = self.notice.take().map_or_else(|| Instant::now() + limits::COMMIT_NOTICE, |(_, at)| at);
            self.notice = Some((request, at));
            return Ok(());
        }
        self.notice = None;
        self.send(request).await
    }

    async fn send_notice(&mut self) -> Result<(), PeerError> {
        match self.notice.take() {
            Some((notice, _)) => self.send(notice).await,
            None => Ok(()),
        }
    }

    fn answered(&mut self, event: Option<LaneEvent>) -> Result<wire::AppendResult, PeerError> {
        match event {
            Some(LaneEvent::Result(result)) => {
                self.bytes_under_way -= self.under_way.pop_front().unwrap_or(0);
                self.deadline = Instant::now() + self.progress_limit;
                wire::result_in(result).map_err(|malformed| self.lane.peer.broken(malformed))
            }
            Some(LaneEvent::Failed(message)) => Err(self.lane.peer.broken(message)),
            None => Err(self.lane.peer.broken("the replication stream ended")),
        }
    }

    async fn send(&mut self, request: AppendEntriesRequest<TypeConfig>) -> Result<(), PeerError> {
        self.sent = Some(request.entries.last().map(|last| last.log_id).or(request.prev_log_id));
        let append = wire::append_out(request);
        let bytes = prost::Message::encoded_len(&append);
        let request = LaneAppend { lane: self.lane.id, shard: self.lane.shard, append: Some(append) };
        let sending = self.lane.link.out.send(ReplicateRequest { request: Some(Request::Append(request)) });
        match timeout(self.progress_limit, sending).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(self.lane.peer.broken("the replication stream ended")),
            Err(_) => return Err(self.stuck()),
        }
        if self.under_way.is_empty() {
            self.deadline = Instant::now() + self.progress_limit;
        }
        self.under_way.push_back(bytes);
        self.bytes_under_way += bytes;
        Ok(())
    }

    fn stuck(&self) -> PeerError {
        self.lane.peer.broken(format!("no progress within {:?}", self.progress_limit))
    }
}
