//! Adding an empty node to a cluster that runs.

use concordat_proto::{
    ordering::v1::AddLearnerRequest,
    raft::v1::{AddLearner, administer_request::Change},
};

use super::{bad, check_address, identify, join, leader::administer, node_info};
use crate::{error::ApiError, limits, node::Node, raft::wire::node_out};

/// Adds a learner to every shard, and waits until it has caught up.
///
/// # Errors
/// The node is not empty, can not be reached, or its id was used before.
pub async fn add_learner(node: &Node, request: AddLearnerRequest) -> Result<(), ApiError> {
    let address = request.node.ok_or_else(|| bad("node", "present", "nothing"))?;
    check_address(&address)?;
    let shards = node.shards()?;
    let found = identify(node, address.node_id, &address.peer_address).await?;
    let info = node_info(&address, found.disk_id);
    let cluster = node.identity.cluster().ok_or(ApiError::NoCluster)?;
    let node_id = address.node_id;
    let refuse = |message: String| Err(ApiError::Precondition(message));
    match shards.node(node_id) {
        // The same request again, perhaps because it did not finish.
        Some(known) if known == info => {}
        Some(_) => {
            return refuse(format!(
                "node {node_id} is in the cluster already, with other addresses or another disk: use a node id that was never used"
            ));
        }
        // A node that was removed may come back with its disk: its votes and its log are its own. Another cluster's may not.
        None if found.about.formed && found.about.cluster_id != cluster.id => {
            return refuse(format!(
                "node {node_id} holds data of cluster {}: empty its data directory and give it a node id that was never used",
                found.about.cluster_id
            ));
        }
        None if !found.about.cluster_id.is_empty() && found.about.cluster_id != cluster.id => {
            return refuse(format!(
                "node {node_id} belongs to cluster {}: empty its data directory first",
                found.about.cluster_id
            ));
        }
        None if shards.nodes().len() >= limits::NODES => {
            return refuse(format!("the cluster has {} nodes already, which is the limit", limits::NODES));
        }
        None => {}
    }
    join(node, &address, found.disk_id).await?;
    let max_lag = if request.max_lag == 0 { limits::LEARNER_LAG_DEFAULT } else { request.max_lag };
    for shard in shards.iter() {
        let learner = AddLearner { node: Some(node_out(node_id, &info)), max_lag };
        administer(node, shard, Change::AddLearner(learner), limits::LEARNER_TIMEOUT).await?;
    }
    tracing::info!(node = node_id, "added a learner");
    Ok(())
}
