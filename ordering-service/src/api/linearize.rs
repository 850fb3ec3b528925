//! Linearizable reads: ask the leader how far the log has to be applied, then wait for that here.

use concordat_proto::raft::v1::{ReadIndexRequest, read_index_response::Response};
use openraft::{
    ReadPolicy,
    errors::{LinearizableReadError, RaftError},
};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{error::ApiError, limits, node::Node, raft::shard::SharedShard};

enum Asked {
    Index(u64),
    /// Nobody knows the leader, or it changed just now.
    Again,
}

/// Returns once this node has applied everything in `shard` that was accepted before the call.
///
/// # Errors
/// No quorum confirms it in time.
pub async fn linearize(node: &Node, shard: &SharedShard) -> Result<(), ApiError> {
    let limit = node.timing.read;
    let deadline = Instant::now() + limit;
    let no_quorum = || ApiError::NoQuorum { shard: shard.id(), waited: limit };
    let index = loop {
        match timeout_at(deadline, ask(node, shard, deadline)).await.map_err(|_| no_quorum())?? {
            Asked::Index(index) => break index,
            Asked::Again if Instant::now() > deadline => return Err(no_quorum()),
            Asked::Again => sleep(limits::QUORUM_SAMPLE_INTERVAL).await,
        }
    };
    let left = deadline.saturating_duration_since(Instant::now());
    if shard.applied(index, left).await { Ok(()) } else { Err(no_quorum()) }
}

async fn ask(node: &Node, shard: &SharedShard, deadline: Instant) -> Result<Asked, ApiError> {
    let Some((leader, info)) = shard.leader() else { return Ok(Asked::Again) };
    if leader == node.identity.node_id {
        return match shard.raft().get_read_log_id(ReadPolicy::ReadIndex).await {
            Ok((read, _)) => Ok(Asked::Index(read.index())),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => Ok(Asked::Again),
            Err(RaftError::APIError(_)) => Ok(Asked::Again),
            Err(RaftError::Fatal(fatal)) => {
                Err(ApiError::Stopped { shard: shard.id(), message: fatal.to_string() })
            }
        };
    }
    let Some(peer) = node.peers.get(leader, &info) else { return Ok(Asked::Again) };
    let request = ReadIndexRequest { hello: peer.hello(), shard: shard.id() };
    let mut client = peer.fast();
    let left = deadline.saturating_duration_since(Instant::now());
    match peer.ask(left, client.read_index(request)).await {
        Ok(answer) => Ok(match answer.response {
            Some(Response::ReadLogId(id)) => Asked::Index(id.index),
            _ => Asked::Again,
        }),
        Err(_) => Ok(Asked::Again),
    }
}
