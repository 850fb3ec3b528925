//! Nodes that become members by themselves.

use std::collections::BTreeSet;

use concordat_proto::ordering::v1::{GetStatusRequest, RemoveRequest};
use ordering_service::{
    config::Join,
    dev::{local_config, start_node},
    server::{Running, Seams},
};

use crate::support::{Cluster, until};

/// Starts the node of a fourth machine: it has no number, and asks the others to let it in.
async fn fourth(cluster: &Cluster, disk: &str) -> Running {
    // The first start finds free ports, which are remembered; a node has to know its own address before it asks.
    if !cluster.path().join("node-4.ports").exists() {
        let mut config = local_config(cluster.path(), 4).unwrap();
        config.data_dir = cluster.path().join("ports-only");
        start_node(cluster.path(), config, Seams::system()).await.unwrap().stop().await;
    }
    let mut config = local_config(cluster.path(), 4).unwrap();
    config.node_id = None;
    config.data_dir = cluster.path().join(disk);
    config.join = Some(Join {
        // A seed that is the node itself, and one where nobody listens, do no harm.
        seeds: [config.peer_listen.clone(), "127.0.0.1:1".into()]
            .into_iter()
            .chain(cluster.running().map(|node| node.addresses().peers.to_string()))
            .collect(),
        peer_address: config.peer_listen.clone(),
        address: config.listen.clone(),
        site: "harbour".into(),
    });
    start_node(cluster.path(), config, Seams::system()).await.unwrap()
}

async fn voters(cluster: &Cluster) -> Vec<BTreeSet<u64>> {
    let status = cluster.admin(1).await.get_status(GetStatusRequest {}).await.unwrap().into_inner();
    status.shards.iter().map(|shard| shard.voters.iter().map(|voter| voter.node_id).collect()).collect()
}

async fn joins(cluster: &Cluster, id: u64) {
    until("the node votes everywhere", async || {
        voters(cluster).await.iter().all(|voters| *voters == BTreeSet::from([1, 2, 3, id]))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_by_itself_and_keeps_its_number_and_its_place() {
    let cluster = Cluster::start(3).await;
    cluster.group_with("joining", 20).await;
    let node = fourth(&cluster, "disk").await;
    let id = node.node().identity.node_id;
    assert!(id > 3, "a number was drawn: {id}");
    joins(&cluster, id).await;
    node.stop().await;
    let node = fourth(&cluster, "disk").await;
    assert_eq!(node.node().identity.node_id, id);
    // Removed, as before a scale-down, and back with its disk, as after a scale-up.
    cluster.admin(1).await.remove(RemoveRequest { node_id: id }).await.unwrap();
    assert!(voters(&cluster).await.iter().all(|voters| *voters == BTreeSet::from([1, 2, 3])));
    node.stop().await;
    let node = fourth(&cluster, "disk").await;
    assert_eq!(node.node().identity.node_id, id);
    joins(&cluster, id).await;
    cluster.group_with("afterwards", 5).await;
    node.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_disk_comes_back_as_another_node_in_the_place_of_the_former_one() {
    let cluster = Cluster::start(3).await;
    cluster.group_with("kept", 20).await;
    let node = fourth(&cluster, "disk").await;
    let before = node.node().identity.node_id;
    joins(&cluster, before).await;
    node.stop().await;
    let node = fourth(&cluster, "another disk").await;
    let after = node.node().identity.node_id;
    assert_ne!(before, after);
    joins(&cluster, after).await;
    let reader = node.node().clone();
    until("the new disk holds what the others hold", async || {
        let shards = reader.shards().ok();
        let head =
            shards.and_then(|shards| shards.get(1)?.reader().head(&crate::support::id("kept")).ok()?);
        head.is_some_and(|head| head.seq == 21)
    })
    .await;
    node.stop().await;
    cluster.stop().await;
}
