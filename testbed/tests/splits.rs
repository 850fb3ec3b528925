//! Sites are cut off from one another while commits flow: whoever reaches a quorum goes on, and the history fits the logs.

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
