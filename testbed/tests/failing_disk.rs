//! A disk that does not sync, and a disk that is full: a clear message and a refusal, and the others go on.

#![allow(clippy::unwrap_used)] // A panic in a test is its report.

use std::{sync::Arc, time::Duration};

use testbed::{
    Cluster, ClusterOptions,
    cluster::Node,
    disk_faults::{DiskFault, DiskFaults},
    load::{Load, LoadOptions},
    seed,
    wait::eventually,
};

const PROGRESS: Duration = Duration::from_secs(60);

struct Run {
    cluster: Cluster,
    load: Load,
    faults: Vec<DiskFaults>,
}

/// A cluster with switchable disk faults and load on it; nothing if this machine cannot do that.
async fn start(name: &str) -> Option<Run> {
    let seed = seed::seed(name);
    let cluster = Cluster::prepare(ClusterOptions::default()).unwrap();
    let mut faults = Vec::new();
    for node in cluster.nodes() {
        match DiskFaults::prepare(&node, &cluster.dir()) {
            Ok(prepared) => faults.push(prepared),
            Err(unavailable) => {
                eprintln!("{name}: SKIPPED: {unavailable}");
                return None;
            }
        }
        node.service().start().unwrap();
    }
    for node in cluster.nodes() {
        node.service().wait_live().await.unwrap();
    }
    cluster.bootstrap().await.unwrap();
    for node in cluster.nodes() {
        node.service().wait_ready().await.unwrap();
    }
    let load =
        Load::start(&cluster, &LoadOptions { seed, groups: 4, ..LoadOptions::default() }).await.unwrap();
    load.progress(100, PROGRESS).await.unwrap();
    Some(Run { cluster, load, faults })
}

async fn restart(node: &Arc<Node>) {
    if node.service().is_running() {
        node.service().kill().await.unwrap();
    }
    node.service().start().unwrap();
    node.service().wait_ready().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_does_not_sync_ends_with_a_clear_message_and_the_others_go_on() {
    let Some(run) = start("fsync error").await else { return };
    // The leader: its own acknowledgement is the one that counts most.
    let victim = run.cluster.leader(1).await.unwrap();
    let faults = &run.faults[usize::try_from(victim.id()).unwrap() - 1];
    faults.begin(DiskFault::FsyncError).unwrap();
    let status = victim.service().ended(PROGRESS).await.unwrap();
    let log = victim.service().log_tail();
    assert!(!status.success(), "the process ended as if nothing was wrong");
    assert!(
        log.contains("Input/output error") || log.contains("IO error"),
        "the reason is not clear:\n{log}"
    );
    run.load.progress(100, PROGRESS).await.unwrap();

    faults.end(DiskFault::FsyncError).unwrap();
    restart(&victim).await;
    run.load.progress(100, PROGRESS).await.unwrap();
    let summary = run.load.finish(&run.cluster).await.unwrap();
    eprintln!("fsync error: {summary:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_is_full_says_so_and_the_others_go_on() {
    let Some(run) = start("full disk").await else { return };
    let victim = run.cluster.leader(1).await.unwrap();
    let faults = &run.faults[usize::try_from(victim.id()).unwrap() - 1];
    faults.begin(DiskFault::Full).unwrap();
    eventually("the node to say that its disk is full", PROGRESS, async || {
        victim.service().log_tail().to_lowercase().contains("disk").then_some(())
    })
    .await
    .unwrap();
    let log = victim.service().log_tail();
    assert!(!log.contains("panicked"), "{log}");
    run.load.progress(100, PROGRESS).await.unwrap();

    faults.end(DiskFault::Full).unwrap();
    restart(&victim).await;
    run.load.progress(100, PROGRESS).await.unwrap();
    let summary = run.load.finish(&run.cluster).await.unwrap();
    eprintln!("full disk: {summary:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_all_disks_are_full_at_once() {
    let Some(run) = start("all disks full").await else { return };
    for faults in &run.faults {
        faults.begin(DiskFault::Full).unwrap();
    }
    // Nobody can accept anything now; give up only when all of them have noticed.
    eventually("all nodes to say that their disks are full", PROGRESS, async || {
        let said = |node: &Arc<Node>| node.service().log_tail().to_lowercase().contains("disk");
        run.cluster.nodes().iter().all(said).then_some(())
    })
    .await
    .unwrap();
    for faults in &run.faults {
        faults.end(DiskFault::Full).unwrap();
    }
    for node in run.cluster.nodes() {
        if node.service().is_running() {
            node.service().kill().await.unwrap();
        }
        node.service().start().unwrap();
    }
    for node in run.cluster.nodes() {
        node.service().wait_ready().await.unwrap();
    }
    run.load.progress(100, PROGRESS).await.unwrap();
    let summary = run.load.finish(&run.cluster).await.unwrap();
    eprintln!("all disks full: {summary:?}");
}
