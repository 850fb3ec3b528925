//! Forming a cluster, and changing who belongs to it and who leads it.

pub mod admit;
pub mod bootstrap;
pub mod change;
pub mod hand_over;
pub mod leader;
pub mod learner;
pub mod status;

use std::{collections::BTreeSet, time::Duration};

use concordat_proto::{
    ordering::v1::NodeAddress,
    raft::v1::{IdentifyRequest, IdentifyResponse, administer_request::Change},
};
use tokio::time::timeout;

use crate::{
    error::ApiError,
    limits,
    node::Node,
    raft::{
        peer::{PeerError, channel, client},
        types::{NodeId, NodeInfo},
        wire,
    },
};

/// Has the leader of every shard make a change.
///
/// # Errors
/// The change is refused, or takes too long, in one of them. It may be made in others then; the same again carries on.
pub async fn in_every_shard(node: &Node, change: Change) -> Result<(), ApiError> {
    for shard in node.shards()?.iter() {
        leader::administer(node, shard, change.clone(), limits::ADMIN_TIMEOUT).await?;
    }
    Ok(())
}

/// How long the first contact with a node may take.
const FIRST_CONTACT: Duration = Duration::from_secs(3);

fn bad(field: &'static str, expected: impl Into<String>, got: impl ToString) -> ApiError {
    ApiError::BadField { field, expected: expected.into(), got: got.to_string() }
}

/// Checks what an operator says about a node.
fn check_address(node: &NodeAddress) -> Result<(), ApiError> {
    if node.node_id == 0 {
        return Err(bad("node_id", "at least 1", 0));
    }
    for (field, value) in [("peer_address", &node.peer_address), ("address", &node.address)] {
        let port =
            value.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
        if value.len() > limits::NAME_BYTES || !matches!(port, Some(Ok(1..))) {
            let expected = format!("host:port of at most {} bytes", limits::NAME_BYTES);
            return Err(bad(field, expected, format!("{value:?}")));
        }
    }
    if node.site.len() > limits::NAME_BYTES {
        return Err(bad("site", format!("at most {} bytes", limits::NAME_BYTES), node.site.len()));
    }
    Ok(())
}

fn check_distinct(nodes: &[NodeAddress]) -> Result<(), ApiError> {
    let ids: BTreeSet<_> = nodes.iter().map(|n| n.node_id).collect();
    let peers: BTreeSet<_> = nodes.iter().map(|n| &n.peer_address).collect();
    if ids.len() < nodes.len() || peers.len() < nodes.len() {
        return Err(bad("nodes", "nodes with distinct ids and distinct peer addresses", "a repetition"));
    }
    Ok(())
}

fn node_info(address: &NodeAddress, disk_id: [u8; 16]) -> NodeInfo {
    NodeInfo {
        peer_address: address.peer_address.clone(),
        address: address.address.clone(),
        site: address.site.clone(),
        disk_id,
    }
}

/// What answers at an address, before it is a peer.
struct Found {
    disk_id: [u8; 16],
    about: IdentifyResponse,
}

/// Asks who answers at `peer_address`; it must be node `node_id`.
async fn identify(node: &Node, node_id: NodeId, peer_address: &str) -> Result<Found, ApiError> {
    let address = peer_address.to_owned();
    let unreachable = |message: String| PeerError::Unreachable { node_id, address: address.clone(), message };
    let channel =
        channel(peer_address, node.peers.network()).ok_or_else(|| unreachable("not host:port".into()))?;
    let mut client = client(channel);
    let about = match timeout(FIRST_CONTACT, client.identify(IdentifyRequest {})).await {
        Ok(Ok(about)) => about.into_inner(),
        Ok(Err(status)) => return Err(unreachable(status.message().to_owned()).into()),
        Err(_) => return Err(PeerError::TimedOut { node_id, address, limit: FIRST_CONTACT }.into()),
    };
    if about.node_id != node_id {
        return Err(ApiError::Precondition(format!(
            "node {} answers at {peer_address}, expected node {node_id}: check the peer addresses",
            about.node_id
        )));
    }
    Ok(Found { disk_id: wire::disk_id_in(&about.disk_id)?, about })
}

/// Makes the node at `address` part of the cluster. It must be empty, or part of it already.
async fn join(node: &Node, address: &NodeAddress, disk_id: [u8; 16]) -> Result<(), ApiError> {
    use concordat_proto::raft::v1::JoinRequest;
    let cluster = node.identity.cluster().ok_or(ApiError::NoCluster)?;
    let node_id = address.node_id;
    let to = address.peer_address.clone();
    let failed = |message: String| PeerError::Broken { node_id, address: to.clone(), message };
    let channel = channel(&to, node.peers.network()).ok_or_else(|| failed("not host:port".into()))?;
    let request = JoinRequest {
        cluster_id: cluster.id,
        data_shards: cluster.data_shards,
        node_id,
        disk_id: disk_id.to_vec().into(),
    };
    match timeout(limits::ADMIN_TIMEOUT, client(channel).join(request)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(status)) => Err(failed(status.message().to_owned()).into()),
        Err(_) => Err(PeerError::TimedOut { node_id, address: to, limit: limits::ADMIN_TIMEOUT }.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(node_id: u64, peer: &str) -> NodeAddress {
        NodeAddress { node_id, peer_address: peer.into(), address: "h:1".into(), site: String::new() }
    }

    #[test]
    fn addresses_are_checked_before_anything_is_done() {
        assert!(check_address(&address(1, "host:9000")).is_ok());
        assert!(check_address(&address(1, "[::1]:9000")).is_ok());
        for bad in ["", "host", ":1", "host:0", "host:99999", "host:x"] {
            assert!(check_address(&address(1, bad)).is_err(), "{bad}");
        }
        assert!(check_address(&address(0, "host:1")).is_err());
        assert!(check_distinct(&[address(1, "a:1"), address(2, "b:1")]).is_ok());
        assert!(check_distinct(&[address(1, "a:1"), address(1, "b:1")]).is_err());
        assert!(check_distinct(&[address(1, "a:1"), address(2, "a:1")]).is_err());
    }
}
