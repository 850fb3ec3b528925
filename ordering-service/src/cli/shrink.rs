//! `ordering-service admin shrink`: what a scale-down does before nodes go away.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use concordat_proto::ordering::v1::{
    GetStatusRequest, GetStatusResponse, NodeAddress, RemoveRequest, admin_client::AdminClient,
};
use tonic::transport::Channel;

use super::admin::told;

pub(super) async fn run(
    client: &mut AdminClient<Channel>,
    keep: &[String],
    site: &str,
) -> anyhow::Result<()> {
    let status = client.get_status(GetStatusRequest {}).await.map_err(told)?.into_inner();
    if status.cluster_id.is_empty() {
        bail!("the node belongs to no cluster: nothing can be taken out of it");
    }
    let leaving = leaving(&status, keep, site);
    for node in &leaving {
        let removed = client.remove(RemoveRequest { node_id: node.node_id }).await.map_err(told);
        removed.with_context(|| format!("node {} at {} stays", node.node_id, node.peer_address))?;
        println!("node {} at {} is removed", node.node_id, node.peer_address);
    }
    if leaving.is_empty() {
        println!("no node has to go");
    }
    Ok(())
}

/// Members of the site that are not kept, in the order of their numbers.
fn leaving(status: &GetStatusResponse, keep: &[String], site: &str) -> Vec<NodeAddress> {
    let members = status.shards.iter().flat_map(|shard| shard.voters.iter().chain(&shard.learners));
    let leaving = members.filter(|node| node.site == site && !keep.contains(&node.peer_address));
    let by_id: BTreeMap<u64, NodeAddress> = leaving.map(|node| (node.node_id, node.clone())).collect();
    by_id.into_values().collect()
}

#[cfg(test)]
mod tests {
    use concordat_proto::ordering::v1::ShardStatus;

    use super::*;

    fn node(node_id: u64, site: &str) -> NodeAddress {
        let peer_address = format!("n{node_id}:7200");
        NodeAddress { node_id, peer_address, address: String::new(), site: site.into() }
    }

    #[test]
    fn only_nodes_of_the_site_that_are_not_kept_leave_each_once() {
        let shard = |shard| ShardStatus {
            shard,
            voters: vec![node(1, "a"), node(2, "a"), node(4, "b")],
            learners: vec![node(3, "a")],
            ..ShardStatus::default()
        };
        let status = GetStatusResponse { shards: vec![shard(0), shard(1)], ..GetStatusResponse::default() };
        let keep = ["n1:7200".to_owned()];
        let ids = |site| leaving(&status, &keep, site).iter().map(|n| n.node_id).collect::<Vec<_>>();
        assert_eq!(ids("a"), [2, 3]);
        assert_eq!(ids("b"), [4]);
        assert!(ids("").is_empty());
    }
}
