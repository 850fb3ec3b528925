//! The cluster grows and shrinks while commits flow.

#![allow(clippy::unwrap_used)] // A panic in a test is its report.

use std::time::Duration;

use testbed::{
    Cluster, ClusterOptions,
    limits::STOP_DEADLINE,
    load::{Load, LoadOptions},
    seed,
};

const PROGRESS: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_fourth_and_a_fifth_node_join_and_a_first_one_leaves_while_commits_flow() {
    let seed = seed::seed("membership");
    let node_args = ["--snapshot-every", "200", "--keep-entries", "50"].map(str::to_owned).to_vec();
    let cluster = Cluster::start(ClusterOptions { node_args, ..ClusterOptions::default() }).await.unwrap();
    let load = Load::start(&cluster, &LoadOptions { seed, ..LoadOptions::default() }).await.unwrap();
    // Enough for a snapshot, so that the newcomers cannot be served from the log alone.
    load.progress(1000, PROGRESS).await.unwrap();
    for _ in 0..2 {
        let node = cluster.add_node().await.unwrap();
        eprintln!("membership: node {} has joined", node.id());
        load.progress(100, PROGRESS).await.unwrap();
    }
    let leaver = cluster.leader(1).await.unwrap();
    cluster.remove_node(leaver.id()).await.unwrap();
    load.progress(100, PROGRESS).await.unwrap();
    leaver.service().stop(STOP_DEADLINE).await.unwrap();
    eprintln!("membership: node {}, a leader, was removed and has stopped", leaver.id());
    load.progress(200, PROGRESS).await.unwrap();

    // Four voters are left: one more may fail.
    let other = cluster.leader(2).await.unwrap();
    other.service().kill().await.unwrap();
    load.progress(100, PROGRESS).await.unwrap();
    other.service().start().unwrap();
    other.service().wait_ready().await.unwrap();
    let summary = load.finish(&cluster).await.unwrap();
    eprintln!("membership: {summary:?}");

    let status = cluster.leader(1).await.unwrap().admin().status().await.unwrap();
    for shard in status.shards {
        let voters: Vec<_> = shard.voters.iter().map(|voter| voter.node_id).collect();
        assert_eq!(voters.len(), 4, "shard {} has the voters {voters:?}", shard.shard);
        assert!(!voters.contains(&leaver.id()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_forms_once_and_answers_that_it_exists() {
    let cluster = Cluster::start(ClusterOptions { nodes: 1, ..ClusterOptions::default() }).await.unwrap();
    let again = cluster.bootstrap().await.unwrap_err();
    eprintln!("membership: {again}");
    let node = cluster.node(1);
    let id = node.admin().status().await.unwrap().cluster_id;
    assert!(!id.is_empty());
    node.service().stop(STOP_DEADLINE).await.unwrap();
    node.service().start().unwrap();
    node.service().wait_ready().await.unwrap();
    assert_eq!(node.admin().status().await.unwrap().cluster_id, id);
}
