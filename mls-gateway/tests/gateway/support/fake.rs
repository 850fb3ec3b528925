//! A cluster in memory that keeps the real rules and misbehaves on order: it loses replies, denies that it leads, forges entries, lags.
//! It stands behind the real wire, so that everything above it is real.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use concordat_proto::{
    convert::{GroupCommand, refused},
    log::v1 as log,
    ordering::v1::{
        self as pb, command,
        ordering_server::{Ordering, OrderingServer},
        outcome, subscribe_request, subscribe_response,
    },
};
use futures::Stream;
use group_log::{Cursor, Decision, MemoryLog, Submission};
use prost::Message;
use service_kit::{net::tcp_network, status::StatusBuilder};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Request, Response, Status, Streaming, transport::Server};

use super::forks::Forks;

pub const DATA_SHARD: u32 = 1;

#[derive(Default)]
pub struct State {
    pub logs: BTreeMap<Bytes, MemoryLog>,
    /// DeMLS groups.
    pub forks: Forks,
    /// The node that leads every shard, from 0.
    pub leader: usize,
    pub no_quorum: bool,
    /// So many commands are applied, but their answers are lost with the stream.
    pub lose_replies: usize,
    /// So many commands are answered with a leader that does not lead.
    pub deny_leading: usize,
    /// Commands for these groups are never answered, nor applied.
    pub stalled: BTreeSet<Bytes>,
    /// Commands that were not answered.
    pub unanswered: usize,
    /// This node shows entries with another author.
    pub forger: Option<usize>,
    /// This node never shows more than so many entries of a group.
    pub laggard: Option<(usize, u64)>,
    /// Commands that reached the rules.
    pub applied: usize,
    /// Group follows that each node has begun.
    pub follows: HashMap<usize, usize>,
    /// Entries that were read in pages.
    pub read_entries: usize,
}

pub struct FakeCluster {
    shared: Arc<Shared>,
    _servers: Vec<AbortOnDropHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<()>,
    addresses: Vec<String>,
}

impl FakeCluster {
    pub async fn start(nodes: usize) -> Self {
        let mut listeners = Vec::new();
        for _ in 0..nodes {
            listeners.push(tcp_network().listen("127.0.0.1:0".into()).await.unwrap());
        }
        let addresses = listeners.iter().map(|l| l.local_addr().to_string()).collect();
        let shared = Arc::new(Shared { state: Mutex::default(), changed: watch::Sender::new(()), addresses });
        let serve = |(index, listener)| {
            let node = FakeNode { index, shared: Arc::clone(&shared) };
            let server =
                Server::builder().add_service(OrderingServer::new(node)).serve_with_incoming(listener);
            AbortOnDropHandle::new(tokio::spawn(async move { server.await.unwrap() }))
        };
        let servers = listeners.into_iter().enumerate().map(serve).collect();
        Self { shared, _servers: servers }
    }

    pub fn addresses(&self) -> Vec<String> {
        self.shared.addresses.clone()
    }

    /// Changes how the cluster behaves.
    pub fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state());
        self.shared.changed.send_replace(());
    }

    pub fn get<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.shared.state())
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

struct FakeNode {
    index: usize,
    shared: Arc<Shared>,
}

impl Shared {
    /// A command for a group that nothing is answered for.
    fn is_stalled(&self, command: &[u8]) -> bool {
        let mut state = self.state();
        let command = pb::Command::decode(command).unwrap().command;
        let is_stalled = matches!(command, Some(command::Command::Group(submission)) if state.stalled.contains(&submission.group_id));
        state.unanswered += usize::from(is_stalled);
        is_stalled
    }

    /// Carries a command out. Nothing: it is carried out, but the reply is lost.
    fn decide(&self, node: usize, command: &[u8]) -> Option<outcome::Outcome> {
        let mut state = self.state();
        let not_leader = |leader: usize| {
            let leader_address = self.addresses[leader].clone();
            Some(outcome::Outcome::NotLeader(pb::NotLeader { leader_node_id: 1, leader_address }))
        };
        if state.deny_leading > 0 {
            state.deny_leading -= 1;
            return not_leader((node + 1) % self.addresses.len());
        }
        if node != state.leader {
            return not_leader(state.leader);
        }
        if state.no_quorum {
            return Some(outcome::Outcome::Unknown(pb::Unknown::default()));
        }
        state.applied += 1;
        let command = pb::Command::decode(command).unwrap().command.unwrap();
        let for_group = GroupCommand::try_from(command.clone()).ok();
        let outcome = match command {
            _ if for_group.as_ref().is_some_and(|command| state.forks.concerns(command)) => {
                state.forks.apply(for_group.unwrap())
            }
            command::Command::AssignGroup(_) => {
                outcome::Outcome::GroupAssigned(pb::GroupAssigned { shard: DATA_SHARD })
            }
            command::Command::Group(submission) => {
                let submission = Submission::try_from(submission).unwrap();
                let log = state.logs.entry(submission.group_id.to_bytes()).or_default();
                match log.apply(&submission) {
                    Decision::Accepted(accepted) => outcome::Outcome::Accepted(accepted.into()),
                    Decision::Superseded { winner_seq } => {
                        let winner = log.entry(winner_seq).unwrap();
                        outcome::Outcome::Superseded(log::Superseded::by(winner).unwrap())
                    }
                    Decision::Refused(refusal) => outcome::Outcome::Refused((&refusal).into()),
                }
            }
            _ => outcome::Outcome::Refused(refused(log::Reason::UnknownCommand, "not faked", [])),
        };
        drop(state);
        self.changed.send_replace(());
        let mut state = self.state();
        if state.lose_replies > 0 {
            state.lose_replies -= 1;
            return None;
        }
        Some(outcome)
    }

    /// What this node shows after `seq`.
    fn entries(&self, node: usize, group_id: &Bytes, seq: u64, max: usize) -> Vec<log::Entry> {
        let state = self.state();
        if let Some(group) = state.forks.groups.get(group_id) {
            return group.entries(seq, max);
        }
        let Some(group) = state.logs.get(group_id) else { return Vec::new() };
        let shown = state.laggard.filter(|(index, _)| *index == node).map_or(u64::MAX, |(_, shown)| shown);
        let mut entries: Vec<log::Entry> =
            group.entries(seq + 1, max).filter(|e| e.seq <= shown).map(Into::into).collect();
        if state.forger == Some(node) {
            entries.iter_mut().for_each(|e| e.author = Bytes::from_static(b"mallory"));
        }
        entries
    }

    fn head(&self, group_id: &Bytes) -> Result<log::Head, Status> {
        let state = self.state();
        let fork = state.forks.groups.get(group_id).and_then(|group| group.fork.current());
        let head = state.logs.get(group_id).and_then(|log| log.current()).or(fork).map(log::Head::from);
        head.ok_or_else(|| StatusBuilder::new(Code::NotFound, "GROUP_NOT_FOUND", "no such group").build())
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Ordering for FakeNode {
    type SubmitStream = Answers<pb::SubmitResponse>;

    async fn submit(
        &self,
        request: Request<Streaming<pb::SubmitRequest>>,
    ) -> Result<Response<Self::SubmitStream>, Status> {
        let (answers, answered) = mpsc::channel(16);
        let (shared, node, mut requests) = (Arc::clone(&self.shared), self.index, request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(batch)) = requests.message().await {
                let mut outcomes = Vec::new();
                for submission in batch.submissions {
                    if shared.is_stalled(&submission.command) {
                        continue;
                    }
                    match shared.decide(node, &submission.command) {
                        Some(outcome) => outcomes.push(pb::SubmissionOutcome {
                            id: submission.id,
                            outcome: Some(pb::Outcome { outcome: Some(outcome) }),
                        }),
                        None => {
                            let _ = answers.send(Err(Status::unavailable("the connection is gone"))).await;
                            return;
                        }
                    }
                }
                if answers.send(Ok(pb::SubmitResponse { outcomes })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answered))))
    }

    type SubscribeStream = Answers<pb::SubscribeResponse>;

    async fn subscribe(
        &self,
        request: Request<Streaming<pb::SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let (answers, answered) = mpsc::channel(16);
        let (shared, node, mut requests) = (Arc::clone(&self.shared), self.index, request.into_inner());
        tokio::spawn(async move {
            let mut changed = shared.changed.subscribe();
            let mut follows: BTreeMap<u64, (Bytes, u64, bool)> = BTreeMap::new();
            loop {
                for (id, (group_id, seq, caught_up)) in &mut follows {
                    let entries = shared.entries(node, group_id, *seq, 100);
                    let mut responses = Vec::new();
                    if let Some(last) = entries.last() {
                        *seq = last.seq;
                        responses.push(subscribe_response::Response::Entries(pb::Entries { entries }));
                    }
                    if !*caught_up {
                        *caught_up = true;
                        let Ok(head) = shared.head(group_id) else { return };
                        responses.push(subscribe_response::Response::CaughtUp(head));
                    }
                    for response in responses {
                        let response = pb::SubscribeResponse { id: *id, response: Some(response) };
                        if answers.send(Ok(response)).await.is_err() {
                            return;
                        }
                    }
                }
                tokio::select! {
                    request = requests.message() => match request {
                        Ok(Some(pb::SubscribeRequest { request: Some(subscribe_request::Request::Follow(follow)) })) => {
                            *shared.state().follows.entry(node).or_default() += 1;
                            follows.insert(follow.id, (follow.group_id, follow.cursor.unwrap_or_default().seq, false));
                        }
                        Ok(Some(pb::SubscribeRequest { request: Some(subscribe_request::Request::Unfollow(end)) })) => {
                            follows.remove(&end.id);
                        }
                        Ok(Some(_)) => {}
                        Ok(None) | Err(_) => return,
                    },
                    _ = changed.changed() => {}
                    () = answers.closed() => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answered))))
    }

    async fn read_entries(
        &self,
        request: Request<pb::ReadEntriesRequest>,
    ) -> Result<Response<pb::ReadEntriesResponse>, Status> {
        let request = request.into_inner();
        let head = self.shared.head(&request.group_id)?;
        let cursor = Cursor::try_from(request.cursor.clone().unwrap_or_default()).unwrap();
        let state = self.shared.state();
        let checked = state.logs.get(&request.group_id).map(|log| log.read(&cursor, 1).map(drop));
        drop(state);
        if let Some(Err(error)) = checked {
            let refused = log::Refused::from(&error);
            let name = refused.reason().as_str_name().trim_start_matches("REASON_").to_owned();
            return Err(StatusBuilder::new(Code::FailedPrecondition, name, refused.message).build());
        }
        let max = if request.max_entries == 0 { 100 } else { request.max_entries as usize };
        let seq = request.cursor.unwrap_or_default().seq;
        let entries = self.shared.entries(self.index, &request.group_id, seq, max);
        self.shared.state().read_entries += entries.len();
        Ok(Response::new(pb::ReadEntriesResponse { entries, head: Some(head) }))
    }

    async fn read_branch_entries(
        &self,
        request: Request<pb::ReadBranchEntriesRequest>,
    ) -> Result<Response<pb::ReadBranchEntriesResponse>, Status> {
        let pb::ReadBranchEntriesRequest { group_id, ids } = request.into_inner();
        let entries = self.shared.state().forks.groups[&group_id].bodies(&ids);
        Ok(Response::new(pb::ReadBranchEntriesResponse { entries }))
    }

    async fn get_head(
        &self,
        request: Request<pb::GetHeadRequest>,
    ) -> Result<Response<pb::GetHeadResponse>, Status> {
        let request = request.into_inner();
        let head = self.shared.head(&request.group_id)?;
        let state = self.shared.state();
        let Some(log) = state.logs.get(&request.group_id) else {
            // DeMLS: nobody asks for the GroupInfo in these tests.
            let answer = pb::GetHeadResponse { head: Some(head), shard: DATA_SHARD, ..Default::default() };
            return Ok(Response::new(answer));
        };
        let current = log.current().unwrap();
        let (group_info, group_info_epoch) = (current.group_info_seq, current.group_info_epoch);
        let group_info = match log.entry(group_info).unwrap().content {
            group_log::Content::Create(create) => create.group_info,
            group_log::Content::Commit(commit) => commit.group_info,
            _ => Bytes::new(),
        };
        Ok(Response::new(pb::GetHeadResponse {
            head: Some(head),
            shard: DATA_SHARD,
            group_info,
            group_info_epoch,
        }))
    }

    async fn locate(
        &self,
        request: Request<pb::LocateRequest>,
    ) -> Result<Response<pb::LocateResponse>, Status> {
        let (state, group_id) = (self.shared.state(), request.into_inner().group_id);
        let found = state.logs.contains_key(&group_id) || state.forks.groups.contains_key(&group_id);
        drop(state);
        Ok(Response::new(pb::LocateResponse { found, shard: DATA_SHARD }))
    }

    async fn read_inbox(
        &self,
        _: Request<pb::ReadInboxRequest>,
    ) -> Result<Response<pb::ReadInboxResponse>, Status> {
        Ok(Response::new(pb::ReadInboxResponse::default()))
    }

    async fn get_key_package_status(
        &self,
        _: Request<pb::GetKeyPackageStatusRequest>,
    ) -> Result<Response<pb::GetKeyPackageStatusResponse>, Status> {
        Ok(Response::new(pb::GetKeyPackageStatusResponse::default()))
    }

    type WatchQuorumStream = Answers<pb::QuorumState>;

    async fn watch_quorum(
        &self,
        _: Request<pb::WatchQuorumRequest>,
    ) -> Result<Response<Self::WatchQuorumStream>, Status> {
        let (states, told) = mpsc::channel(4);
        let (shared, node) = (Arc::clone(&self.shared), self.index);
        tokio::spawn(async move {
            let mut changed = shared.changed.subscribe();
            loop {
                let state = shared.quorum(node);
                if states.send(Ok(state)).await.is_err() {
                    return;
                }
                let _ = tokio::time::timeout(Duration::from_millis(100), changed.changed()).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(told))))
    }
}

impl Shared {
    fn quorum(&self, node: usize) -> pb::QuorumState {
        let state = self.state();
        let shard = |shard| pb::ShardQuorum {
            shard,
            term: 1,
            leader_node_id: state.leader as u64 + 1,
            leader_address: self.addresses[state.leader].clone(),
            has_quorum: !state.no_quorum,
            quorum_age_ms: if state.no_quorum { u64::MAX } else { 0 },
            leader_site: String::new(),
        };
        let shards = vec![shard(0), shard(DATA_SHARD)];
        pb::QuorumState { node_id: node as u64 + 1, cluster_id: "fake".into(), shards }
    }
}
