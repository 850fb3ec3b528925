//! This node's view of the cluster.

use std::time::Duration;

use concordat_proto::ordering::v1::{ExpectedCommit, GetStatusResponse, NodeAddress, ShardStatus};

use crate::{
    node::Node,
    placement::view::Outlook,
    raft::{
        shard::Shard,
        types::{Membership, NodeId},
    },
};

/// The status of this node.
pub fn status(node: &Node) -> GetStatusResponse {
    let quorum = node.quorum.latest();
    let shards = node.shards.get().into_iter().flat_map(|shards| shards.iter());
    GetStatusResponse {
        cluster_id: node.identity.cluster().map(|c| c.id).unwrap_or_default(),
        node_id: node.identity.node_id,
        shards: shards
            .map(|shard| {
                let mut status = shard_status(node, shard);
                if let Some(quorum) = quorum.shards.iter().find(|q| q.shard == shard.id()) {
                    status.has_quorum = quorum.has_quorum;
                    status.quorum_age_ms = quorum.quorum_age_ms;
                }
                status
            })
            .collect(),
        version: env!("CARGO_PKG_VERSION").into(),
    }
}

fn shard_status(node: &Node, shard: &Shard) -> ShardStatus {
    let metrics = shard.metrics();
    let view = shard.view();
    let membership = metrics.membership_config.membership();
    let index = |id: Option<crate::raft::types::LogId>| id.map_or(0, |id| id.index);
    let replication = metrics.replication.iter().flatten();
    ShardStatus {
        shard: shard.id(),
        term: view.term,
        leader_node_id: view.leader.unwrap_or(0),
        voters: addresses(membership, membership.voter_ids()),
        learners: addresses(membership, membership.learner_ids()),
        last_log_index: metrics.last_log_index.unwrap_or(0),
        committed_index: index(metrics.cluster_committed),
        applied_index: index(metrics.last_applied),
        purged_index: index(metrics.purged),
        snapshot_index: index(metrics.snapshot),
        has_quorum: false,
        quorum_age_ms: u64::MAX,
        matched_index: replication.map(|(node, matched)| (*node, index(*matched))).collect(),
        preferred_site: node.config.placing.preferred.get(&shard.id()).cloned().unwrap_or_default(),
        expected_commit: node.placement.outlook(shard.id()).map(|outlook| expected(node, &outlook)),
    }
}

fn expected(node: &Node, outlook: &Outlook) -> ExpectedCommit {
    let micros = |latency: Duration| u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    let (best, latency) = outlook.best();
    ExpectedCommit {
        here_us: micros(outlook.here),
        best_us: micros(latency),
        best_node_id: best.unwrap_or(node.identity.node_id),
    }
}

fn addresses(membership: &Membership, ids: impl Iterator<Item = NodeId>) -> Vec<NodeAddress> {
    let known = ids.filter_map(|node_id| membership.get_node(&node_id).map(|info| (node_id, info)));
    known
        .map(|(node_id, info)| NodeAddress {
            node_id,
            peer_address: info.peer_address.clone(),
            address: info.address.clone(),
            site: info.site.clone(),
        })
        .collect()
}
