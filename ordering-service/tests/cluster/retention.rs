//! Retention: all nodes give up the same, tell their readers where the log begins, and go on through restarts and snapshots.

use std::time::Duration;

use bytes::Bytes;
use concordat_proto::{
    log::v1::{CanonicalCursor, Policy, Pruned, Reason},
    ordering::v1::{
        PruneGroup, ReadEntriesRequest, ReadEntriesResponse, command::Command, outcome::Outcome,
        subscribe_response::Response,
    },
};
use group_log::{Entry, Retention, verify_entry};
use ordering_service::config::Config;
use service_kit::status::StatusFacts;
use tokio::time::{Instant, sleep};
use tonic::Code;

use crate::support::{
    Cluster, PATIENCE, SHARD, Subscriber, commit, create, create_with, encode, id, policy, published, until,
};

const KEPT: u64 = 20;

fn keep_few(config: &mut Config) {
    config.keeping.limits = Retention { max_entries: Some(KEPT), max_age_ms: None };
    config.keeping.look_every = Duration::from_millis(100);
}

fn keep_briefly(config: &mut Config) {
    config.keeping.limits = Retention { max_entries: None, max_age_ms: Some(1500) };
    config.keeping.look_every = Duration::from_millis(100);
}

async fn group_with(cluster: &Cluster, name: &str, commits: u64) {
    assert!(matches!(cluster.submit(SHARD, create(name)).await, Outcome::Accepted(_)));
    for epoch in 0..commits {
        assert!(matches!(cluster.submit(SHARD, published(name, epoch)).await, Outcome::Accepted(_)));
    }
}

/// Waits until a node has given up everything up to `seq`.
async fn gone(cluster: &Cluster, node: u64, name: &str, seq: u64) {
    until("entries are given up", async || {
        let shards = cluster.node(node).node().shards.get();
        let reader = shards.and_then(|shards| shards.get(SHARD)).map(|shard| shard.reader().clone());
        reader.is_some_and(|reader| reader.pruned(name.as_bytes()).unwrap().seq >= seq)
    })
    .await;
}

/// What a reader is told who begins at `after`: the last response.
async fn told(cluster: &Cluster, node: u64, name: &str, after: u64) -> Response {
    let mut subscriber = Subscriber::open(cluster.ordering(node).await).await;
    subscriber.follow(1, name, after, Bytes::new()).await;
    subscriber.next().await.1
}

/// A node that has just been started is behind, and says so.
async fn read_once_caught_up(
    cluster: &Cluster,
    node: u64,
    request: ReadEntriesRequest,
) -> ReadEntriesResponse {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match cluster.ordering(node).await.read_entries(request.clone()).await {
            Ok(page) => return page.into_inner(),
            Err(refused) if refused.code() == Code::Unavailable && Instant::now() < deadline => {
                sleep(Duration::from_millis(20)).await;
            }
            Err(refused) => panic!("node {node} cannot be read: {refused}"),
        }
    }
}

/// What is left of a group's log at a node, checked from the chain hash of what is gone on.
async fn left(cluster: &Cluster, node: u64, name: &str) -> Vec<concordat_proto::log::v1::Entry> {
    let shards = cluster.node(node).node().shards.get().unwrap();
    let pruned = shards.get(SHARD).unwrap().reader().pruned(name.as_bytes()).unwrap();
    let cursor = Some(CanonicalCursor { seq: pruned.seq, chain_hash: pruned.chain.to_bytes() });
    let request = ReadEntriesRequest { group_id: id(name), cursor, max_entries: 0, linearizable: true };
    let page = read_once_caught_up(cluster, node, request).await;
    let mut chain = pruned.chain;
    for entry in &page.entries {
        chain = verify_entry(&chain, &Entry::try_from(entry.clone()).unwrap()).unwrap();
    }
    assert_eq!(chain.to_bytes(), page.head.unwrap().chain_hash);
    page.entries
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_gives_up_the_same_and_tells_its_readers() {
    let cluster = Cluster::start_with(3, keep_few).await;
    group_with(&cluster, "long", 60).await;
    group_with(&cluster, "short", 5).await;
    for node in 1..=3 {
        gone(&cluster, node, "long", 61 - KEPT).await;
        let Response::Pruned(Pruned { oldest_seq, head, group_info }) = told(&cluster, node, "long", 3).await
        else {
            panic!("not told")
        };
        assert_eq!((oldest_seq, head.unwrap().seq), (62 - KEPT, 61));
        assert_eq!(&group_info[..], b"group info of 60");
        assert!(matches!(told(&cluster, node, "long", 61 - KEPT).await, Response::Entries(_)));
        assert!(matches!(told(&cluster, node, "short", 0).await, Response::Entries(_)));

        let cursor = Some(CanonicalCursor { seq: 7, chain_hash: Bytes::new() });
        let request =
            ReadEntriesRequest { group_id: id("long"), cursor, max_entries: 0, linearizable: false };
        let refused = cluster.ordering(node).await.read_entries(request).await.unwrap_err();
        let facts = StatusFacts::of(&refused);
        assert_eq!((refused.code(), facts.reason.as_deref()), (Code::OutOfRange, Some("PRUNED")));
        assert_eq!(facts.metadata["oldest_seq"], (62 - KEPT).to_string());
    }
    let logs =
        [left(&cluster, 1, "long").await, left(&cluster, 2, "long").await, left(&cluster, 3, "long").await];
    assert_eq!(logs[0].len() as u64, KEPT);
    assert!(logs[0] == logs[1] && logs[1] == logs[2]);
    // A commit that was made long ago gets the answer that it got then.
    assert!(matches!(cluster.submit(SHARD, published("long", 3)).await, Outcome::Accepted(a) if a.seq == 5));
    let late = cluster.submit(SHARD, commit("long", 3, b"late")).await;
    assert!(matches!(late, Outcome::Superseded(superseded) if superseded.winner.is_none()));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_go_when_they_are_old_but_never_the_way_back_into_the_group() {
    let cluster = Cluster::start_with(1, keep_briefly).await;
    group_with(&cluster, "aging", 8).await;
    assert!(matches!(
        cluster.submit(SHARD, commit("aging", 8, b"without a GroupInfo")).await,
        Outcome::Accepted(_)
    ));
    group_with(&cluster, "closed off", 0).await;
    assert!(matches!(cluster.submit(SHARD, commit("closed off", 0, b"c")).await, Outcome::Accepted(_)));
    // Nothing goes while a reader could not come back ...
    group_with(&cluster, "clock", 3).await;
    gone(&cluster, 1, "clock", 3).await;
    assert_eq!(left(&cluster, 1, "aging").await.len(), 10);
    assert_eq!(left(&cluster, 1, "closed off").await.len(), 2);
    // ... and everything before the GroupInfo that leads back, once there is one.
    assert!(matches!(cluster.submit(SHARD, published("aging", 9)).await, Outcome::Accepted(_)));
    gone(&cluster, 1, "aging", 10).await;
    assert_eq!(left(&cluster, 1, "aging").await.len(), 1);
    cluster.stop().await;
}

fn keeping(retain_entries: u64) -> Policy {
    Policy { retain_entries, ..Policy::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_keep_what_they_choose_within_what_the_cluster_allows() {
    let cluster = Cluster::start_with(1, |config| {
        keep_few(config);
        config.keeping.most = Retention { max_entries: Some(2 * KEPT), max_age_ms: None };
    })
    .await;
    let groups = [
        ("few", Some(keeping(10)), 10),
        ("unasked", None, KEPT),
        ("greedy", Some(keeping(1 << 40)), 2 * KEPT),
    ];
    for (name, policy, _) in &groups {
        assert!(matches!(
            cluster.submit(SHARD, create_with(name, policy.clone())).await,
            Outcome::Accepted(_)
        ));
        for epoch in 0..60 {
            assert!(matches!(cluster.submit(SHARD, published(name, epoch)).await, Outcome::Accepted(_)));
        }
    }
    for (name, _, kept) in &groups {
        gone(&cluster, 1, name, 61 - kept).await;
    }
    for (name, _, kept) in &groups {
        assert_eq!(left(&cluster, 1, name).await.len() as u64, *kept, "{name}");
    }
    // Who is told so is told how to come back.
    let Response::Pruned(Pruned { oldest_seq, group_info, .. }) = told(&cluster, 1, "few", 3).await else {
        panic!("not told")
    };
    assert_eq!((oldest_seq, &group_info[..]), (52, &b"group info of 60"[..]));
    // A group may change its mind.
    let fewer = cluster.submit(SHARD, policy("greedy", 60, keeping(5))).await;
    assert!(matches!(fewer, Outcome::Accepted(_)));
    assert!(matches!(cluster.submit(SHARD, published("greedy", 60)).await, Outcome::Accepted(_)));
    gone(&cluster, 1, "greedy", 63 - 5).await;
    cluster.stop().await;
}

/// Where nothing is configured, groups are looked at seldom, but they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_may_keep_little_where_others_keep_everything() {
    let cluster =
        Cluster::start_with(1, |config| config.keeping.look_every = Duration::from_millis(20)).await;
    group_with(&cluster, "whole", 30).await;
    assert!(matches!(
        cluster.submit(SHARD, create_with("few", Some(keeping(10)))).await,
        Outcome::Accepted(_)
    ));
    for epoch in 0..30 {
        assert!(matches!(cluster.submit(SHARD, published("few", epoch)).await, Outcome::Accepted(_)));
    }
    gone(&cluster, 1, "few", 21).await;
    assert_eq!((left(&cluster, 1, "few").await.len(), left(&cluster, 1, "whole").await.len()), (10, 31));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_and_a_node_that_comes_by_snapshot_keep_to_what_is_gone() {
    let mut cluster = Cluster::start_with(3, |config| {
        keep_few(config);
        config.compaction.snapshot_every = 100;
        config.compaction.keep_entries = 10;
    })
    .await;
    group_with(&cluster, "first", 30).await;
    cluster.stop_node(3).await;
    group_with(&cluster, "second", 400).await;
    // In the middle of giving up.
    let leader = cluster.leader(SHARD).await;
    cluster.stop_node(leader).await;
    cluster.start_node(leader).await;
    gone(&cluster, 1, "second", 401 - KEPT).await;
    gone(&cluster, 2, "second", 401 - KEPT).await;
    cluster.start_node(3).await;
    gone(&cluster, 3, "first", 31 - KEPT).await;
    gone(&cluster, 3, "second", 401 - KEPT).await;
    for name in ["first", "second"] {
        let logs =
            [left(&cluster, 1, name).await, left(&cluster, 2, name).await, left(&cluster, 3, name).await];
        assert_eq!(logs[0].len() as u64, KEPT);
        assert!(logs[0] == logs[1] && logs[1] == logs[2], "{name}");
    }
    assert!(matches!(cluster.submit(SHARD, published("second", 400)).await, Outcome::Accepted(_)));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_nodes_give_up_entries() {
    let cluster = Cluster::start(1).await;
    group_with(&cluster, "kept", 5).await;
    let prune = encode(Command::PruneGroup(PruneGroup { group_id: id("kept"), upto_seq: 3 }));
    let refused = cluster.submit(SHARD, prune).await;
    assert!(matches!(refused, Outcome::Refused(refused) if refused.reason() == Reason::PermissionDenied));
    assert_eq!(left(&cluster, 1, "kept").await.len(), 6);
    cluster.stop().await;
}
