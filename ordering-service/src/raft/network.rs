//! openraft's network over the connections to the peers.

use std::{iter, sync::Arc, time::Duration};

use concordat_proto::raft::v1 as pb;
use futures::{Stream, StreamExt};
use openraft::{
    OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable},
    network::{Backoff, RPCOption},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
        TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use service_kit::rng::Randomness;

use super::{
    peer::{Peer, PeerError, Peers},
    snapshot_out,
    timing::Timing,
    types::{NodeId, NodeInfo, ShardId, TypeConfig, Vote},
    wire,
};
use crate::{limits, storage::SnapshotHandle};

type BoxFuture<'a, T> = futures::future::BoxFuture<'a, T>;
type BoxStream<'a, T> = futures::stream::BoxStream<'a, T>;
type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotHandle>;

/// Makes the clients of one shard.
#[derive(Clone)]
pub struct ShardNetwork {
    /// The shard.
    pub shard: ShardId,
    /// The other nodes.
    pub peers: Arc<Peers>,
    /// How long things may take.
    pub timing: Arc<Timing>,
    /// For pauses that differ from node to node.
    pub randomness: Randomness,
}

/// What a client is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Replication,
    Heartbeats,
}

/// Speaks to one node about one shard.
pub struct PeerClient {
    network: ShardNetwork,
    target: NodeId,
    peer: Option<Arc<Peer>>,
    purpose: Purpose,
}

impl ShardNetwork {
    fn client(&self, target: NodeId, node: &NodeInfo, purpose: Purpose) -> PeerClient {
        PeerClient { network: self.clone(), target, peer: self.peers.get(target, node), purpose }
    }
}

impl RaftNetworkFactory<TypeConfig> for ShardNetwork {
    type Network = PeerClient;

    async fn new_client(&mut self, target: NodeId, node: &NodeInfo) -> PeerClient {
        self.client(target, node, Purpose::Replication)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, node: &NodeInfo) -> PeerClient {
        self.client(target, node, Purpose::Heartbeats)
    }
}

impl PeerClient {
    fn peer(&self) -> Result<Arc<Peer>, RPCError<TypeConfig>> {
        self.peer.clone().ok_or_else(|| {
            RPCError::Unreachable(Unreachable::from_string(format!(
                "node {} has no usable peer address",
                self.target
            )))
        })
    }

    fn error(&self, error: PeerError, action: RPCTypes) -> RPCError<TypeConfig> {
        match error {
            PeerError::Unreachable { .. } | PeerError::Refused { .. } => {
                RPCError::Unreachable(Unreachable::new(&error))
            }
            PeerError::Broken { .. } => RPCError::Network(NetworkError::new(&error)),
            PeerError::TimedOut { limit, .. } => RPCError::Timeout(Timeout {
                action,
                id: self.network.peers.identity().node_id,
                target: self.target,
                timeout: limit,
            }),
        }
    }

    async fn heartbeat(
        &self,
        request: AppendEntriesRequest<TypeConfig>,
        limit: Duration,
    ) -> Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>> {
        let peer = self.peer()?;
        let request = pb::HeartbeatRequest {
            hello: peer.hello(),
            shard: self.network.shard,
            append: Some(wire::append_out(request)),
        };
        let mut client = peer.fast();
        let answer = peer.ask(limit, client.heartbeat(request)).await;
        let answer = answer.map_err(|error| self.error(error, RPCTypes::AppendEntries))?;
        wire::result_in(answer).map_err(|malformed| RPCError::Network(NetworkError::new(&malformed)))
    }

    async fn ask_vote(
        &self,
        request: VoteRequest<TypeConfig>,
        pre_vote: bool,
        option: &RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let peer = self.peer()?;
        let request = pb::VoteRequest {
            hello: peer.hello(),
            shard: self.network.shard,
            vote: Some(wire::vote_out(&request.vote)),
            last_log_id: request.last_log_id.as_ref().map(wire::log_id_out),
            leadership_transfer: request.leadership_transfer,
            pre_vote,
        };
        let mut client = peer.fast();
        let limit = option.soft_ttl().max(self.network.timing.peer_request);
        let answer = peer.ask(limit, client.vote(request)).await;
        let answer = answer.map_err(|error| self.error(error, RPCTypes::Vote))?;
        let vote = wire::vote_in(answer.vote.as_ref());
        Ok(VoteResponse {
            vote: vote.map_err(|malformed| RPCError::Network(NetworkError::new(&malformed)))?,
            vote_granted: answer.granted,
            last_log_id: answer.last_log_id.as_ref().map(wire::log_id_in),
        })
    }
}

impl RaftNetworkV2<TypeConfig> for PeerClient {
    type SnapshotData = SnapshotHandle;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        Ok(self.heartbeat(request, option.soft_ttl()).await?.into())
    }

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<
            BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>,
            RPCError<TypeConfig>,
        >,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            if self.purpose == Purpose::Heartbeats {
                let answers = match input.next().await {
                    Some(request) => vec![self.heartbeat(request, option.hard_ttl()).await],
                    None => Vec::new(),
                };
                return Ok(futures::stream::iter(answers).boxed());
            }
            let peer = self.peer()?;
            let lane =
                peer.stream().open_lane(peer.clone(), self.network.shard, self.network.timing.peer_request);
            let lane = lane.await.map_err(|error| self.error(error, RPCTypes::AppendEntries))?;
            let answers = lane.run(input, self.network.timing.append_progress);
            let this = &*self;
            Ok(answers.map(move |r| r.map_err(|error| this.error(error, RPCTypes::AppendEntries))).boxed())
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_vote(request, false, &option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_vote(request, true, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let peer = self.peer()?;
        let sending = snapshot_out::send(&peer, self.network.shard, &vote, snapshot);
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = sending => {
                let vote = sent.map_err(|error| self.error(error, RPCTypes::InstallSnapshot))?;
                Ok(SnapshotResponse::new(vote))
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        // The others vote for the target without this: its request says that the leader wants it so. Told of the transfer they would stop
        // waiting for the leader at once, and one that is nearer than the target would be elected in its place.
        if *request.to_node_id() != self.target {
            return Ok(Ok(()));
        }
        let peer = self.peer()?;
        let message = pb::TransferLeaderRequest {
            hello: peer.hello(),
            shard: self.network.shard,
            from_leader: Some(wire::vote_out(request.from_leader())),
            to_node_id: *request.to_node_id(),
            last_log_id: request.last_log_id().map(wire::log_id_out),
        };
        let mut client = peer.fast();
        let answer = peer.ask(option.hard_ttl(), client.transfer_leader(message)).await;
        let answer = answer.map_err(|error| self.error(error, RPCTypes::TransferLeader))?;
        if answer.refused.is_empty() {
            return Ok(Ok(()));
        }
        tracing::info!(
            shard = self.network.shard,
            peer = self.target,
            "leadership refused: {}",
            answer.refused
        );
        let (expected, actual) = (request.last_log_id().copied(), None);
        Ok(Err(TransferLeaderError::LogNotFlushed { expected, actual }))
    }

    fn backoff(&self) -> Option<Backoff> {
        let randomness = self.network.randomness.clone();
        let growing =
            iter::successors(Some(limits::RECONNECT_MIN), |d| Some((*d * 2).min(limits::RECONNECT_MAX)));
        Some(Backoff::new(growing.map(move |pause| jittered(pause, &randomness))))
    }
}

/// Between half of `pause` and all of it, so that nodes that lost the same peer do not all come back at once.
fn jittered(pause: Duration, randomness: &Randomness) -> Duration {
    let half = pause / 2;
    half + Duration::from_micros(randomness.below(u64::try_from(half.as_micros()).unwrap_or(0)))
}
