//! Finding a shard's leader, and having it do something.

use concordat_proto::raft::v1::{
    AdministerRequest, AdministerResponse, Done, administer_request::Change, administer_response::Response,
};
use tokio::time::{Duration, Instant, sleep};

use super::change;
use crate::{
    error::ApiError,
    limits,
    node::Node,
    raft::shard::{Shard, SharedShard},
};

/// What came of a change that a leader was asked for.
pub enum Answer {
    /// It is done.
    Done,
    /// The node does not lead the shard.
    NotLeader,
}

/// Has the leader of `shard` make a change, wherever it is. Waits for a leader if there is none.
///
/// # Errors
/// The leader refuses, or the change takes longer than `limit`.
pub async fn administer(
    node: &Node,
    shard: &SharedShard,
    change: Change,
    limit: Duration,
) -> Result<(), ApiError> {
    let deadline = Instant::now() + limit;
    loop {
        let answer = match shard.leader() {
            Some((leader, _)) if leader == node.identity.node_id => {
                change::carry_out(node, shard, change.clone(), deadline).await?
            }
            Some((leader, info)) => match node.peers.get(leader, &info) {
                Some(peer) => {
                    let request = AdministerRequest {
                        hello: peer.hello(),
                        shard: shard.id(),
                        change: Some(change.clone()),
                    };
                    let mut client = peer.fast();
                    let left = deadline.saturating_duration_since(Instant::now());
                    // A leader that died while it was asked is like one that never was: the change can be repeated.
                    match peer.ask(left, client.administer(request)).await {
                        Ok(response) => read(response, limit)?,
                        Err(error) => {
                            tracing::info!(
                                shard = shard.id(),
                                "the leader did not answer, trying again: {error}"
                            );
                            Answer::NotLeader
                        }
                    }
                }
                None => Answer::NotLeader,
            },
            None => Answer::NotLeader,
        };
        match answer {
            Answer::Done => return Ok(()),
            Answer::NotLeader if Instant::now() > deadline => {
                return Err(ApiError::NoQuorum { shard: shard.id(), waited: limit });
            }
            Answer::NotLeader => sleep(limits::NO_LEADER_RETRY).await,
        }
    }
}

fn read(response: AdministerResponse, limit: Duration) -> Result<Answer, ApiError> {
    match response.response {
        Some(Response::Done(_)) => Ok(Answer::Done),
        Some(Response::LeaderNodeId(_)) | None => Ok(Answer::NotLeader),
        Some(Response::Refused(message)) => Err(ApiError::Precondition(message)),
        Some(Response::Unfinished(what)) => Err(ApiError::Unfinished { what, limit }),
    }
}

/// The answer to a peer that asked this node as the leader.
pub async fn answer(node: &Node, shard: &Shard, change: Change, limit: Duration) -> AdministerResponse {
    let response = match change::carry_out(node, shard, change, Instant::now() + limit).await {
        Ok(Answer::Done) => Response::Done(Done {}),
        Ok(Answer::NotLeader) => Response::LeaderNodeId(shard.view().leader.unwrap_or(0)),
        Err(ApiError::Unfinished { what, .. }) => Response::Unfinished(what),
        Err(error) => Response::Refused(error.to_string()),
    };
    AdministerResponse { response: Some(response) }
}
