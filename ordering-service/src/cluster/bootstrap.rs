//! Forming a cluster out of empty nodes, once.
//!
//! The steps: every node is asked who it is; every node is told the cluster's id (after which it refuses any other); every shard
//! is initialized with the full membership. A crash in between leaves a state from which the same request carries on: the id is
//! taken from the nodes that have it, and a shard that is initialized already keeps its membership.

use std::collections::{BTreeMap, BTreeSet};

use concordat_proto::ordering::v1::BootstrapRequest;
use service_kit::rng::Randomness;
use tokio::time::{Instant, sleep};

use super::{Found, bad, check_address, check_distinct, identify, join, node_info};
use crate::{
    error::ApiError,
    limits,
    node::Node,
    raft::{
        identity::Cluster,
        shards::Shards,
        types::{Membership, NodeId, NodeInfo},
    },
};

/// Forms the cluster. Returns its id.
///
/// # Errors
/// A node that can not be reached or is not empty, and requests that make no sense.
pub async fn bootstrap(node: &Node, request: BootstrapRequest) -> Result<String, ApiError> {
    let data_shards = check(node, &request)?;
    let mut found = BTreeMap::new();
    for address in &request.nodes {
        found.insert(address.node_id, identify(node, address.node_id, &address.peer_address).await?);
    }
    let own = found.get(&node.identity.node_id).filter(|own| own.disk_id == node.identity.disk_id);
    if own.is_none() {
        return Err(bad(
            "nodes",
            "this node's own peer address beside its id",
            "the address of another process",
        ));
    }
    let cluster_id = match cluster_to_continue(node, &found, data_shards).await? {
        Some(id) => id,
        None => new_cluster_id(&node.randomness),
    };
    let cluster = Cluster { id: cluster_id.clone(), data_shards };
    node.join(cluster).await?;
    let mut members = BTreeMap::new();
    for address in &request.nodes {
        let disk_id = found[&address.node_id].disk_id;
        if address.node_id != node.identity.node_id {
            join(node, address, disk_id).await?;
        }
        members.insert(address.node_id, node_info(address, disk_id));
    }
    let shards = node.shards()?;
    initialize(shards, &members).await?;
    tracing::info!(cluster = %cluster_id, nodes = members.len(), data_shards, "formed a cluster");
    wait_for_leaders(shards).await?;
    Ok(cluster_id)
}

/// Whether the cluster that this node belongs to is formed, so that bootstrapping it again would be refused.
///
/// # Errors
/// A shard has stopped.
pub async fn is_complete(node: &Node) -> Result<bool, ApiError> {
    match node.shards.get() {
        Some(shards) => all_initialized(shards).await,
        None => Ok(false),
    }
}

fn check(node: &Node, request: &BootstrapRequest) -> Result<u32, ApiError> {
    if request.nodes.is_empty() || request.nodes.len() > limits::NODES {
        return Err(bad("nodes", format!("1 to {} nodes", limits::NODES), request.nodes.len()));
    }
    request.nodes.iter().try_for_each(check_address)?;
    check_distinct(&request.nodes)?;
    if !request.nodes.iter().any(|n| n.node_id == node.identity.node_id) {
        let expected =
            format!("all first voters, node {} (which was called) among them", node.identity.node_id);
        return Err(bad("nodes", expected, "others only"));
    }
    match request.data_shards {
        0 => Ok(limits::DATA_SHARDS_DEFAULT),
        n if n <= limits::DATA_SHARDS => Ok(n),
        n => Err(bad("data_shards", format!("at most {}", limits::DATA_SHARDS), n)),
    }
}

/// The cluster that an earlier, interrupted request began to form with exactly these nodes. None if all are empty.
async fn cluster_to_continue(
    node: &Node,
    found: &BTreeMap<NodeId, Found>,
    data_shards: u32,
) -> Result<Option<String>, ApiError> {
    let begun: BTreeSet<_> =
        found.values().filter(|f| !f.about.cluster_id.is_empty()).map(|f| &f.about.cluster_id).collect();
    let Some(id) = begun.first().map(|id| (*id).clone()) else { return Ok(None) };
    let refuse = |message: String| Err(ApiError::Precondition(message));
    let other_remedy = "A cluster is formed only once. To extend it, use add-learner; to start over, empty the data \
                        directories of all its nodes";
    if begun.len() > 1 {
        return refuse(format!("the nodes belong to {} different clusters. {other_remedy}", begun.len()));
    }
    if let Some(node) =
        found.values().find(|f| !f.about.cluster_id.is_empty() && f.about.data_shards != data_shards)
    {
        let (id, shards) = (node.about.node_id, node.about.data_shards);
        return refuse(format!(
            "node {id} belongs to a cluster with {shards} data shards already. {other_remedy}"
        ));
    }
    let formed = found.values().find(|f| f.about.formed).map(|f| f.about.node_id);
    let Some(formed) = formed else { return Ok(Some(id)) };
    // Some shards are initialized. Going on is right only if this node can see that others are not.
    let Some(shards) = node.shards.get() else {
        return refuse(format!("node {formed} belongs to cluster {id} already. {other_remedy}"));
    };
    if all_initialized(shards).await? {
        return refuse(format!("this node belongs to cluster {id} already. {other_remedy}"));
    }
    Ok(Some(id))
}

async fn all_initialized(shards: &Shards) -> Result<bool, ApiError> {
    for shard in shards.iter() {
        let initialized = shard.raft().is_initialized().await;
        if !initialized.map_err(|e| ApiError::Stopped { shard: shard.id(), message: e.to_string() })? {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn initialize(shards: &Shards, members: &BTreeMap<NodeId, NodeInfo>) -> Result<(), ApiError> {
    let wanted = Membership::new(vec![members.keys().copied().collect()], members.clone())
        .map_err(|error| ApiError::Precondition(error.to_string()))?;
    for shard in shards.iter() {
        let stopped = |message: String| ApiError::Stopped { shard: shard.id(), message };
        if shard.raft().is_initialized().await.map_err(|e| stopped(e.to_string()))? {
            if shard.membership() != wanted {
                return Err(ApiError::Precondition(format!(
                    "shard {} was initialized with other nodes, addresses or disks by an earlier request: repeat exactly that \
                     request, or empty the data directories of all nodes and start over",
                    shard.id()
                )));
            }
            continue;
        }
        shard.raft().initialize(members.clone()).await.map_err(|error| stopped(error.to_string()))?;
    }
    Ok(())
}

async fn wait_for_leaders(shards: &Shards) -> Result<(), ApiError> {
    let deadline = Instant::now() + limits::ADMIN_TIMEOUT;
    while !shards.iter().all(|shard| shard.view().leader.is_some()) {
        if Instant::now() > deadline {
            let what = "the cluster was formed, but the election of its leaders".to_owned();
            return Err(ApiError::Unfinished { what, limit: limits::ADMIN_TIMEOUT });
        }
        sleep(limits::QUORUM_SAMPLE_INTERVAL).await;
    }
    Ok(())
}

/// The id of a cluster that begins.
pub fn new_cluster_id(randomness: &Randomness) -> String {
    randomness.bytes::<16>().iter().map(|byte| format!("{byte:02x}")).collect()
}
