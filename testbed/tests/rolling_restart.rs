//! Every process of a cluster is stopped in order and started again, one after another, while clients commit.

#![allow(clippy::unwrap_used)] // A panic in a test is its report.

use std::time::{Duration, Instant};

use testbed::{
    Cluster, ClusterOptions, Service,
    limits::STOP_DEADLINE,
    load::{Load, LoadOptions},
    seed,
};

const PROGRESS: Duration = Duration::from_secs(60);

/// SIGTERM, a clean exit, and ready again.
async fn restart(service: &Service) {
    let begun = Instant::now();
    let status = service.stop(STOP_DEADLINE).await.unwrap();
    assert!(status.success(), "{} ended with {status}:\n{}", service.name(), service.log_tail());
    let stopped = begun.elapsed();
    service.start().unwrap();
    service.wait_ready().await.unwrap();
    eprintln!(
        "rolling restart: {} stopped within {stopped:?}, ready after {:?}",
        service.name(),
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_under_load_fails_no_commit() {
    rolling_restart(ClusterOptions { gateways: 2, ..ClusterOptions::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_does_one_of_a_cluster_with_certificates() {
    rolling_restart(ClusterOptions { gateways: 2, secured: true, ..ClusterOptions::default() }).await;
}

async fn rolling_restart(options: ClusterOptions) {
    let seed = seed::seed("rolling_restart");
    let cluster = Cluster::start(options).await.unwrap();
    let through_gateways = LoadOptions {
        groups: 4,
        clients_per_group: 0,
        gateway_clients_per_group: 3,
        seed,
        ..LoadOptions::default()
    };

    // Nodes: a client of a gateway sees nothing of it, not even a call to repeat.
    let load = Load::start(&cluster, &through_gateways).await.unwrap();
    load.progress(100, PROGRESS).await.unwrap();
    for node in cluster.nodes() {
        restart(node.service()).await;
        load.progress(50, PROGRESS).await.unwrap();
    }
    let summary = load.finish(&cluster).await.unwrap();
    eprintln!("rolling restart of the nodes: {summary:?}");
    assert_eq!(summary.unknown, 0, "a call failed while nodes were restarted");

    // Gateways: their clients go to another one with the same bytes, and get an answer there.
    let load = Load::start(&cluster, &LoadOptions { seed: seed ^ 1, ..through_gateways }).await.unwrap();
    load.progress(100, PROGRESS).await.unwrap();
    for gateway in cluster.gateways() {
        restart(gateway.service()).await;
        load.progress(50, PROGRESS).await.unwrap();
    }
    let summary = load.finish(&cluster).await.unwrap();
    eprintln!("rolling restart of the gateways: {summary:?}");
}
