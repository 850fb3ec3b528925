//! The receiving side of what nodes say to one another.

use std::{collections::HashMap, sync::Arc};

use concordat_proto::raft::v1::{
    self as pb, peers_server::Peers, replicate_request::Request as Inbound,
    replicate_response::Response as Outbound,
};
use futures::StreamExt;
use openraft::{
    ReadPolicy,
    errors::{LinearizableReadError, RaftError},
    raft::{AppendEntriesRequest, StreamAppendError, TransferLeaderRequest, VoteRequest},
};
use service_kit::{net::PeerInfo, tls::Role};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    cluster::{admit, leader},
    error::ApiError,
    limits,
    node::Node,
    raft::{
        identity::{Cluster, Stranger},
        peer::Complaints,
        shard::SharedShard,
        snapshot_in,
        types::{NodeId, TypeConfig},
        wire,
    },
};

/// `concordat.raft.v1.Peers`.
pub struct PeersApi {
    node: Arc<Node>,
    complaints: Complaints,
    /// Snapshots that are being received.
    receiving: Semaphore,
}

impl PeersApi {
    /// For one node.
    pub fn new(node: Arc<Node>) -> Self {
        Self {
            node,
            complaints: Complaints::default(),
            receiving: Semaphore::new(limits::SNAPSHOTS_RECEIVED),
        }
    }

    /// Only members of this cluster, on the disks that the membership knows, are listened to.
    fn check(&self, from: Option<NodeId>, hello: Option<&pb::Hello>) -> Result<(), ApiError> {
        if let Some(hello) = hello {
            own_number(from, hello.node_id)?;
        }
        let known = hello.and_then(|hello| self.node.shards.get()?.node(hello.node_id));
        self.node.identity.check(hello, known.as_ref()).map_err(|stranger| {
            self.complaints.complain(&stranger.to_string(), || tracing::error!("refused a peer: {stranger}"));
            stranger.into()
        })
    }

    fn shard(
        &self,
        from: Option<NodeId>,
        hello: Option<&pb::Hello>,
        shard: u32,
    ) -> Result<&SharedShard, ApiError> {
        self.check(from, hello)?;
        self.node.shard(shard)
    }
}

#[tonic::async_trait]
impl Peers for PeersApi {
    async fn identify(
        &self,
        _: Request<pb::IdentifyRequest>,
    ) -> Result<Response<pb::IdentifyResponse>, Status> {
        let cluster = self.node.identity.cluster();
        Ok(Response::new(pb::IdentifyResponse {
            node_id: self.node.identity.node_id,
            disk_id: self.node.identity.disk_id.to_vec().into(),
            cluster_id: cluster.as_ref().map(|c| c.id.clone()).unwrap_or_default(),
            data_shards: cluster.map(|c| c.data_shards).unwrap_or_default(),
            formed: self.node.shards.get().is_some_and(|shards| shards.is_formed()),
        }))
    }

    async fn join(&self, request: Request<pb::JoinRequest>) -> Result<Response<pb::JoinResponse>, Status> {
        let request = request.into_inner();
        let me = &self.node.identity;
        if request.node_id != me.node_id || request.disk_id != me.disk_id[..] {
            let got = request.node_id;
            return Err(ApiError::Precondition(format!(
                "this is node {} on a disk of its own, the request is for node {got} or for a disk that it had before",
                me.node_id
            ))
            .into());
        }
        if request.cluster_id.is_empty() || !(1..=limits::DATA_SHARDS).contains(&request.data_shards) {
            return Err(ApiError::BadField {
                field: "data_shards",
                expected: format!("1 to {}, with a cluster id", limits::DATA_SHARDS),
                got: request.data_shards.to_string(),
            }
            .into());
        }
        let cluster = Cluster { id: request.cluster_id, data_shards: request.data_shards };
        self.node.join(cluster).await.map_err(ApiError::from)?;
        Ok(Response::new(pb::JoinResponse {}))
    }

    async fn admit(&self, request: Request<pb::AdmitRequest>) -> Result<Response<pb::AdmitResponse>, Status> {
        let (from, request) = (proven(&request), request.into_inner());
        own_number(from, request.node_id)?;
        admit::admit(&self.node, request).await?;
        Ok(Response::new(pb::AdmitResponse {}))
    }

    type ReplicateStream = ReceiverStream<Result<pb::ReplicateResponse, Status>>;

    async fn replicate(
        &self,
        request: Request<Streaming<pb::ReplicateRequest>>,
    ) -> Result<Response<Self::ReplicateStream>, Status> {
        let (from, mut inbound) = (proven(&request), request.into_inner());
        let first = inbound.message().await?.and_then(|message| message.request);
        let hello = match first {
            Some(Inbound::Hello(hello)) => Some(hello),
            _ => None,
        };
        self.check(from, hello.as_ref())?;
        let (out, answers) = mpsc::channel(limits::PEER_QUEUE);
        let lanes = Lanes { node: self.node.clone(), out, open: HashMap::new() };
        tokio::spawn(lanes.run(inbound));
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn heartbeat(
        &self,
        request: Request<pb::HeartbeatRequest>,
    ) -> Result<Response<pb::AppendResult>, Status> {
        let (from, request) = (proven(&request), request.into_inner());
        let shard = self.shard(from, request.hello.as_ref(), request.shard)?;
        let append =
            request.append.ok_or(wire::Malformed("a heartbeat without a request")).map_err(ApiError::from)?;
        let append = wire::append_in(append).map_err(ApiError::from)?;
        let (prev, last) = (append.prev_log_id, append.entries.last().map(|e| e.log_id));
        let answer = shard.raft().append_entries(append).await.map_err(|fatal| stopped(shard, &fatal))?;
        let result = match answer {
            openraft::raft::AppendEntriesResponse::Conflict => {
                let at = prev.ok_or_else(|| Status::internal("an empty log can not conflict"))?;
                Err(StreamAppendError::Conflict(at))
            }
            openraft::raft::AppendEntriesResponse::HigherVote(vote) => {
                Err(StreamAppendError::HigherVote(vote))
            }
            openraft::raft::AppendEntriesResponse::PartialSuccess(matched) => Ok(matched),
            openraft::raft::AppendEntriesResponse::Success => Ok(last.or(prev)),
        };
        Ok(Response::new(wire::result_out(result)))
    }

    async fn vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteResponse>, Status> {
        let (from, request) = (proven(&request), request.into_inner());
        let shard = self.shard(from, request.hello.as_ref(), request.shard)?;
        let ask = VoteRequest {
            vote: wire::vote_in(request.vote.as_ref()).map_err(ApiError::from)?,
            last_log_id: request.last_log_id.as_ref().map(wire::log_id_in),
            leadership_transfer: request.leadership_transfer,
        };
        let raft = shard.raft();
        let answer = if request.pre_vote { raft.pre_vote(ask).await } else { raft.vote(ask).await };
        let answer = answer.map_err(|error| stopped(shard, &error))?;
        Ok(Response::new(pb::VoteResponse {
            vote: Some(wire::vote_out(&answer.vote)),
            granted: answer.vote_granted,
            last_log_id: answer.last_log_id.as_ref().map(wire::log_id_out),
        }))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        let (from, request) = (proven(&request), request.into_inner());
        let shard = self.shard(from, request.hello.as_ref(), request.shard)?;
        let from = wire::vote_in(request.from_leader.as_ref()).map_err(ApiError::from)?;
        let last = request.last_log_id.as_ref().map(wire::log_id_in);
        let (leaving, taking_over) =
            (TransferLeaderRequest::new(from, request.to_node_id, last), shard.clone());
        // It waits for entries that are under way. Where round trips are long the leader gives up before that, and must be replaced all the
        // same: so it goes on without it.
        let answer =
            tokio::spawn(async move { taking_over.raft().handle_transfer_leader(leaving).await }).await;
        let answer =
            answer.map_err(|ended| stopped(shard, &ended))?.map_err(|fatal| stopped(shard, &fatal))?;
        let refused = answer.err().map(|error| error.to_string()).unwrap_or_default();
        Ok(Response::new(pb::TransferLeaderResponse { refused }))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<pb::InstallSnapshotRequest>>,
    ) -> Result<Response<pb::InstallSnapshotResponse>, Status> {
        let (from, mut inbound) = (proven(&request), request.into_inner());
        let head = snapshot_in::head(&mut inbound).await?;
        let shard = self.shard(from, head.hello.as_ref(), head.shard)?;
        let (what, limit) = ("snapshots being received", limits::SNAPSHOTS_RECEIVED);
        let _room = self.receiving.try_acquire().map_err(|_| ApiError::Overloaded { what, limit })?;
        let vote = snapshot_in::receive(&self.node.storage, shard, &head, inbound).await?;
        Ok(Response::new(pb::InstallSnapshotResponse { vote: Some(wire::vote_out(&vote)) }))
    }

    async fn read_index(
        &self,
        request: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexResponse>, Status> {
        use pb::read_index_response::Response as Answer;
        let (from, request) = (proven(&request), request.into_inner());
        let shard = self.shard(from, request.hello.as_ref(), request.shard)?;
        let answer = match shard.raft().get_read_log_id(ReadPolicy::ReadIndex).await {
            Ok((read, _)) => Answer::ReadLogId(wire::log_id_out(read.log_id())),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => {
                Answer::LeaderNodeId(to.leader_id.unwrap_or(0))
            }
            Err(RaftError::APIError(other)) => Answer::NoQuorum(other.to_string()),
            Err(RaftError::Fatal(fatal)) => return Err(stopped(shard, &fatal)),
        };
        Ok(Response::new(pb::ReadIndexResponse { response: Some(answer) }))
    }

    async fn administer(
        &self,
        request: Request<pb::AdministerRequest>,
    ) -> Result<Response<pb::AdministerResponse>, Status> {
        let (from, request) = (proven(&request), request.into_inner());
        let shard = self.shard(from, request.hello.as_ref(), request.shard)?;
        let change =
            request.change.ok_or(wire::Malformed("a change without a change")).map_err(ApiError::from)?;
        let limit = match change {
            pb::administer_request::Change::AddLearner(_) => limits::LEARNER_TIMEOUT,
            _ => limits::ADMIN_TIMEOUT,
        };
        Ok(Response::new(leader::answer(&self.node, shard, change, limit).await))
    }

    async fn ping(&self, request: Request<pb::PingRequest>) -> Result<Response<pb::PingResponse>, Status> {
        self.check(proven(&request), request.get_ref().hello.as_ref())?;
        let me = self.node.identity.node_id;
        // Ages are taken now, not from the last sample: the asker counts from when it asked.
        let led = self.node.shards()?.iter().filter_map(|shard| {
            let view = shard.view();
            let quorum_at = view.led_quorum_at.filter(|_| view.leader == Some(me))?;
            let quorum_age_ms = u64::try_from(quorum_at.elapsed().as_millis()).unwrap_or(u64::MAX);
            Some(pb::LedShard { shard: shard.id(), term: view.term, quorum_age_ms })
        });
        let gateways = self.node.watchers.here().into_iter();
        let gateways = gateways.map(|id| bytes::Bytes::copy_from_slice(&id.0)).collect();
        Ok(Response::new(pb::PingResponse {
            led: led.collect(),
            gateways,
            round_trips: self.node.reach.own_round_trips(self.node.timing.alive_within()),
            should_not_lead: self.node.should_not_lead(),
        }))
    }
}

/// The node that the caller's certificate is for; nothing without TLS, or if the certificate is for any.
/// Then the membership's disk id is what tells nodes apart.
fn proven<T>(request: &Request<T>) -> Option<NodeId> {
    match request.extensions().get::<PeerInfo>()?.identity.as_deref()?.role {
        Role::Node(id) => id,
        _ => None,
    }
}

/// A node speaks for itself only.
fn own_number(proven: Option<NodeId>, claimed: NodeId) -> Result<(), ApiError> {
    match proven {
        Some(got) if got != claimed => Err(Stranger::WrongCertificate { expected: claimed, got }.into()),
        _ => Ok(()),
    }
}

fn stopped(shard: &SharedShard, error: &impl ToString) -> Status {
    ApiError::Stopped { shard: shard.id(), message: error.to_string() }.into()
}

/// The lanes of one replication stream.
struct Lanes {
    node: Arc<Node>,
    out: mpsc::Sender<Result<pb::ReplicateResponse, Status>>,
    open: HashMap<u64, mpsc::Sender<AppendEntriesRequest<TypeConfig>>>,
}

impl Lanes {
    async fn run(mut self, mut inbound: Streaming<pb::ReplicateRequest>) {
        loop {
            let message = tokio::select! {
                message = inbound.message() => message,
                // A draining server ends its streams, so that it does not wait for its peers.
                () = self.node.stop.cancelled() => return,
            };
            let done = match message {
                Ok(Some(message)) => match message.request {
                    Some(Inbound::Append(append)) => self.append(append),
                    Some(Inbound::Close(close)) => {
                        self.open.remove(&close.lane);
                        Ok(())
                    }
                    Some(Inbound::Hello(_)) | None => {
                        Err(Status::invalid_argument("expected an append or a close"))
                    }
                },
                Ok(None) | Err(_) => return,
            };
            if let Err(status) = done {
                let _ = self.out.send(Err(status)).await;
                return;
            }
        }
    }

    fn append(&mut self, request: pb::LaneAppend) -> Result<(), Status> {
        let append =
            request.append.ok_or(wire::Malformed("an append without a request")).map_err(ApiError::from)?;
        let append = wire::append_in(append).map_err(ApiError::from)?;
        if !append.entries.is_empty() {
            self.node.storage.writable().map_err(ApiError::from)?;
        }
        if !self.open.contains_key(&request.lane) {
            if self.open.len() >= limits::LANES_PER_STREAM {
                self.open.retain(|_, lane| !lane.is_closed());
            }
            if self.open.len() >= limits::LANES_PER_STREAM {
                let (what, limit) = ("lanes of one stream", limits::LANES_PER_STREAM);
                return Err(ApiError::Overloaded { what, limit }.into());
            }
            let shard = self.node.shard(request.shard)?.clone();
            let (requests_in, requests) = mpsc::channel(limits::LANE_REQUESTS);
            tokio::spawn(answer_lane(request.lane, shard, ReceiverStream::new(requests), self.out.clone()));
            self.open.insert(request.lane, requests_in);
        }
        match self.open[&request.lane].try_send(append) {
            // A lane that has ended answered with the reason; what was sent before that arrived is void.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => {
                let (what, limit) = ("requests of one lane", limits::LANE_REQUESTS);
                Err(ApiError::Overloaded { what, limit }.into())
            }
        }
    }
}

async fn answer_lane(
    lane: u64,
    shard: SharedShard,
    requests: ReceiverStream<AppendEntriesRequest<TypeConfig>>,
    out: mpsc::Sender<Result<pb::ReplicateResponse, Status>>,
) {
    let mut results = Box::pin(shard.raft().stream_append(requests));
    while let Some(result) = results.next().await {
        let response = match result {
            Ok(result) => Outbound::Result(pb::LaneResult { lane, result: Some(wire::result_out(result)) }),
            Err(fatal) => Outbound::Failed(pb::LaneFailed { lane, message: fatal.to_string() }),
        };
        if out.send(Ok(pb::ReplicateResponse { response: Some(response) })).await.is_err() {
            return;
        }
    }
}
