//! Reads, linearizable ones on every node, and the quorum watch.

use crate::support::{Cluster, SHARD, commit, encode, id, until};
use concordat_proto::{
    log::v1::KeyPackage,
    ordering::v1::{
        AssignGroup, GetKeyPackageStatusRequest, LocateRequest, UploadKeyPackages, WatchQuorumRequest,
        command::Command as Wrapped, outcome::Outcome,
    },
};
use service_kit::status::reason;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_linearizable_read_on_a_follower_sees_everything_that_was_accepted() {
    let cluster = Cluster::start(3).await;
    cluster.group_with("read", 0).await;
    let leader = cluster.leader(SHARD).await;
    for epoch in 0..30 {
        let Outcome::Accepted(accepted) = cluster.submit(SHARD, commit("read", epoch, b"c")).await else {
            panic!("not accepted");
        };
        for node in 1..=3 {
            let head = cluster.head(node, "read", true).await.unwrap();
            assert!(head.seq >= accepted.seq, "node {node} (leader {leader}) is behind");
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_a_linearizable_read_fails_and_a_local_one_does_not() {
    let mut cluster = Cluster::start(3).await;
    cluster.group_with("alone", 2).await;
    until("every node has it", async || {
        cluster.head(1, "alone", false).await.is_ok_and(|head| head.seq == 3)
    })
    .await;
    cluster.stop_node(2).await;
    cluster.stop_node(3).await;
    let error = cluster.head(1, "alone", true).await.unwrap_err();
    assert_eq!(reason(&error).as_deref(), Some("NO_QUORUM"));
    assert_eq!(cluster.head(1, "alone", false).await.unwrap().seq, 3);
    let state = cluster.node(1).node().quorum.latest();
    assert!(state.shards.iter().all(|shard| !shard.has_quorum), "{state:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_directory_answers_on_every_node() {
    let cluster = Cluster::start(3).await;
    let assign = AssignGroup { group_id: id("placed"), shard: SHARD };
    let outcome = cluster.submit(0, encode(Wrapped::AssignGroup(assign))).await;
    assert!(matches!(outcome, Outcome::GroupAssigned(a) if a.shard == SHARD));
    let key_packages = (0..3u8).map(|n| KeyPackage {
        key_package_ref: vec![n; 8].into(),
        key_package: vec![n; 40].into(),
        last_resort: n == 2,
    });
    let upload =
        UploadKeyPackages { client_id: id("bob"), key_packages: key_packages.collect(), replace: false };
    let outcome = cluster.submit(0, encode(Wrapped::UploadKeyPackages(upload))).await;
    assert!(matches!(outcome, Outcome::KeyPackagesUploaded(_)), "{outcome:?}");
    for node in 1..=3 {
        let mut client = cluster.ordering(node).await;
        let found =
            client.locate(LocateRequest { group_id: id("placed"), linearizable: true }).await.unwrap();
        assert_eq!((found.get_ref().found, found.get_ref().shard), (true, SHARD));
        let none = client.locate(LocateRequest { group_id: id("lost"), linearizable: true }).await.unwrap();
        assert!(!none.get_ref().found);
        let request = GetKeyPackageStatusRequest { client_id: id("bob"), linearizable: true };
        let status = client.get_key_package_status(request).await.unwrap().into_inner();
        assert_eq!((status.one_time_left, status.has_last_resort), (2, true));
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_quorum_watch_tells_of_a_lost_quorum_and_of_its_return() {
    let mut cluster = Cluster::start(3).await;
    cluster.leader(SHARD).await;
    let watch = cluster.ordering(1).await.watch_quorum(WatchQuorumRequest::default()).await.unwrap();
    let mut states = watch.into_inner();
    let wait_for = async |states: &mut tonic::Streaming<_>, wanted: bool| {
        let deadline = tokio::time::Instant::now() + crate::support::PATIENCE;
        loop {
            assert!(tokio::time::Instant::now() < deadline, "has_quorum never became {wanted}");
            let state: concordat_proto::ordering::v1::QuorumState = states.message().await.unwrap().unwrap();
            assert_eq!(state.node_id, 1);
            if state.shards.len() == 2 && state.shards.iter().all(|shard| shard.has_quorum == wanted) {
                return;
            }
        }
    };
    wait_for(&mut states, true).await;
    cluster.stop_node(2).await;
    cluster.stop_node(3).await;
    wait_for(&mut states, false).await;
    cluster.start_node(2).await;
    wait_for(&mut states, true).await;
    cluster.stop().await;
}
