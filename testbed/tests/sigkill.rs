//! Nodes are killed at any moment, again and again, under load: everything that clients saw must fit the logs in the end.

#![allow(clippy::unwrap_used)] // A panic in a test is its report.

use std::time::Duration;

use rand::{Rng, seq::IndexedRandom};
use testbed::{
    Cluster, ClusterOptions, Signal,
    load::{Load, LoadOptions},
    seed,
};

/// Kills in one run.
const KILLS: usize = 24;
/// Without this much progress in this time something hangs.
const PROGRESS: Duration = Duration::from_secs(60);

fn options() -> ClusterOptions {
    // Small logs, so that snapshots and purging happen in between.
    let node_args = ["--snapshot-every", "300", "--keep-entries", "100"].map(str::to_owned).to_vec();
    ClusterOptions { node_args, ..ClusterOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_accepted_is_lost_or_doubled_when_nodes_are_killed_at_any_moment() {
    let seed = seed::seed("sigkill");
    let mut rng = seed::rng(seed, 1 << 40);
    let cluster = Cluster::start(ClusterOptions { gateways: 2, ..options() }).await.unwrap();
    let options =
        LoadOptions { seed, clients_per_group: 2, gateway_clients_per_group: 2, ..LoadOptions::default() };
    let load = Load::start(&cluster, &options).await.unwrap();
    let mut kills = 0;
    while kills < KILLS {
        load.progress(rng.random_range(1..80), PROGRESS).await.unwrap();
        let nodes = cluster.nodes();
        // Now and then two at once, which also takes the quorum away.
        let count = if rng.random_ratio(1, 5) { 2 } else { 1 };
        let victims: Vec<_> = nodes.choose_multiple(&mut rng, count).collect();
        for victim in &victims {
            victim.service().kill().await.unwrap();
            kills += 1;
        }
        if victims.len() == 1 && rng.random() {
            // The others go on meanwhile.
            load.progress(rng.random_range(1..150), PROGRESS).await.unwrap();
        }
        for victim in &victims {
            victim.service().start().unwrap();
        }
        if rng.random_ratio(1, 6) {
            // Gateways keep nothing: one that is killed is missed by nobody for long.
            let gateways = cluster.gateways();
            let gateway = gateways.choose(&mut rng).unwrap();
            gateway.service().kill().await.unwrap();
            gateway.service().start().unwrap();
        }
    }
    for node in cluster.nodes() {
        node.service().wait_ready().await.unwrap();
    }
    load.progress(100, PROGRESS).await.unwrap();
    let summary = load.finish(&cluster).await.unwrap();
    eprintln!("sigkill: {kills} kills, {summary:?}");
    assert!(summary.commits > 0 && summary.superseded > 0 && summary.delivered >= summary.entries * 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_wrong_after_leaders_were_frozen_and_woken_up_again() {
    let seed = seed::seed("frozen leaders");
    let cluster = Cluster::start(options()).await.unwrap();
    let load =
        Load::start(&cluster, &LoadOptions { seed, groups: 4, ..LoadOptions::default() }).await.unwrap();
    for round in 0..4 {
        load.progress(30, PROGRESS).await.unwrap();
        let leader = cluster.leader(1 + round % 2).await.unwrap();
        leader.service().signal(Signal::Stop).await.unwrap();
        // Clients of the frozen node wait for answers that do not come, and go elsewhere.
        load.progress(30, PROGRESS).await.unwrap();
        leader.service().signal(Signal::Cont).await.unwrap();
    }
    load.progress(50, PROGRESS).await.unwrap();
    let summary = load.finish(&cluster).await.unwrap();
    eprintln!("frozen leaders: {summary:?}");
}
