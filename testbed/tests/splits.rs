//! Sites are cut off from one another while commits flow: whoever reaches a quorum goes on, groups with branches go on everywhere, and the
//! history fits the logs.

#![allow(clippy::unwrap_used)] // A panic in a test is its report.

use std::{sync::Arc, time::Duration};

use links::{Cut, Links, Quality};
use testbed::{
    Cluster, ClusterOptions, Placement,
    load::{Load, LoadOptions},
    seed,
    wait::eventually,
};

const PROGRESS: Duration = Duration::from_secs(60);
const SITES: [&str; 3] = ["a", "b", "c"];

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_cut_off_from_the_majority_is_replaced_and_nothing_is_lost() {
    let seed = seed::seed("splits");
    let links = Arc::new(Links::start(SITES, seed).unwrap());
    for (a, b) in [("a", "b"), ("b", "c"), ("a", "c")] {
        links.set_both(a, b, Quality::delay(Duration::from_millis(3))).unwrap();
    }
    let nodes = SITES.map(str::to_owned).to_vec();
    let placement = Some(Placement { links: Arc::clone(&links), nodes, gateways: Vec::new() });
    let node_args = ["--timing", "region"].map(str::to_owned).to_vec();
    let cluster =
        Cluster::start(ClusterOptions { placement, node_args, ..ClusterOptions::default() }).await.unwrap();
    let load = Load::start(&cluster, &LoadOptions { seed, ..LoadOptions::default() }).await.unwrap();
    load.progress(200, PROGRESS).await.unwrap();
    for cut in [Cut::Stall, Cut::Reset] {
        let lonely = cluster.leader(1).await.unwrap();
        let others: Vec<_> = SITES.into_iter().filter(|site| *site != lonely.site()).collect();
        links.split(&[&others], cut).unwrap();
        eventually("another leader of shard 1", PROGRESS, async || {
            (cluster.current_leader(1).await? != lonely.id()).then_some(())
        })
        .await
        .unwrap();
        load.progress(200, PROGRESS).await.unwrap();
        links.heal_all();
        load.progress(200, PROGRESS).await.unwrap();
    }
    eprintln!("splits: {:?}", load.finish(&cluster).await.unwrap());
    assert!(links.bytes("a", "b").unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_with_branches_go_on_at_every_site_and_every_accepted_entry_is_in_the_log_in_the_end() {
    let seed = seed::seed("branches");
    let links = Arc::new(Links::start(SITES, seed).unwrap());
    for (a, b) in [("a", "b"), ("b", "c"), ("a", "c")] {
        links.set_both(a, b, Quality::delay(Duration::from_millis(3))).unwrap();
    }
    let sites = SITES.map(str::to_owned).to_vec();
    let options = ClusterOptions {
        gateways: 3,
        placement: Some(Placement { links: Arc::clone(&links), nodes: sites.clone(), gateways: sites }),
        node_args: ["--timing", "region"].map(str::to_owned).to_vec(),
        gateway_args: ["--profile", "region"].map(str::to_owned).to_vec(),
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start(options).await.unwrap();
    let options = LoadOptions { groups: 2, branching_groups: 3, seed, ..LoadOptions::default() };
    let load = Load::start(&cluster, &options).await.unwrap();
    load.progress(200, PROGRESS).await.unwrap();
    links.split(&[&["a", "b"], &["c"]], Cut::Stall).unwrap();
    load.branch_progress(50, PROGRESS).await.unwrap();
    load.progress(100, PROGRESS).await.unwrap();
    links.split(&[], Cut::Reset).unwrap();
    load.branch_progress(200, PROGRESS).await.unwrap();
    // A gateway is lost with what it holds, and comes back with it.
    let gateway = cluster.gateways()[1].clone();
    gateway.service().kill().await.unwrap();
    gateway.service().start().unwrap();
    load.branch_progress(50, PROGRESS).await.unwrap();
    links.heal_both("a", "b").unwrap();
    load.progress(50, PROGRESS).await.unwrap();
    links.heal_all();
    load.progress(200, PROGRESS).await.unwrap();
    let seen = load.finish_all(&cluster).await.unwrap();
    eprintln!("branches: {seen:?}");
    assert!(seen.branching.provisional > 0 && seen.branching.aside > 0, "both sides of every split counted");
    assert_eq!(seen.branching.late, 0, "no gateway was evicted, and none lied");
}
