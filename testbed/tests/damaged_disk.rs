//! The tail of a log is cut off or has a wrong bit: the node refuses, or rejoins with what it lacks. Never a wrong answer.

#![allow(clippy::unwrap_used)] // A panic in a test is its report.

use std::{fs, time::Duration};

use rand::Rng;
use testbed::{
    Cluster, ClusterOptions,
    cluster::Node,
    load::{Load, LoadOptions},
    seed,
    wait::eventually,
};

const PROGRESS: Duration = Duration::from_secs(60);

/// How long the damaged node gets to do harm.
const QUORUM_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy)]
enum Damage {
    Truncate,
    FlipBit,
}

/// Damages the end of the newest file of a stopped node's log.
fn damage(node: &Node, damage: Damage, rng: &mut impl Rng) {
    let files = fs::read_dir(node.data_dir().join("log")).unwrap().map(|file| file.unwrap().path());
    let segments = files.filter(|path| path.extension().is_some_and(|kind| kind == "segment"));
    // Their names are numbers of one length.
    let newest = segments.max().expect("a node that has run has a log");
    let mut bytes = fs::read(&newest).unwrap();
    // Behind what was written are zeros, which stand for nothing.
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("a segment has a header") + 1;
    let reach = used.min(2000);
    let at = used - rng.random_range(1..=reach);
    match damage {
        Damage::Truncate => bytes.truncate(at),
        Damage::FlipBit => bytes[at] ^= 1 << rng.random_range(0..8),
    }
    fs::write(&newest, bytes).unwrap();
    eprintln!("damaged disk: {damage:?} at byte {at} of {used} in {}", newest.display());
}

/// The dangerous case: what the damaged node has acknowledged is held by one other node only, and that one is away when the damaged
/// node and one that knows nothing of it start. If they formed a quorum, acknowledged entries would be gone.
async fn damaged_tail(kind: Damage) {
    let seed = seed::seed("damaged disk");
    let mut rng = seed::rng(seed, 1 << 40);
    let cluster = Cluster::start(ClusterOptions::default()).await.unwrap();
    let load =
        Load::start(&cluster, &LoadOptions { seed, groups: 4, ..LoadOptions::default() }).await.unwrap();
    load.progress(100, PROGRESS).await.unwrap();
    let [behind, keeper, damaged] = [1, 2, 3].map(|id| cluster.node(id));
    behind.service().kill().await.unwrap();
    load.progress(200, PROGRESS).await.unwrap();
    damaged.service().kill().await.unwrap();
    keeper.service().kill().await.unwrap();
    damage(&damaged, kind, &mut rng);

    behind.service().start().unwrap();
    damaged.service().start().unwrap();
    behind.service().wait_live().await.unwrap();
    // The time that these two would need to form a quorum and to accept something.
    let went_on = load.progress(20, QUORUM_PATIENCE).await.is_ok();
    keeper.service().start().unwrap();
    keeper.service().wait_ready().await.unwrap();
    load.progress(100, PROGRESS).await.unwrap();
    // Either it has said that it cannot go on, or it has got back what it lacks.
    let refused = eventually("the damaged node to refuse or to be ready", PROGRESS, async || {
        match damaged.service().exit_status() {
            Some(status) => Some(!status.success()),
            None => damaged.service().is_ready().await.then_some(false),
        }
    });
    let refused =
        refused.await.unwrap_or_else(|timeout| panic!("{timeout}:\n{}", damaged.service().log_tail()));
    let log = damaged.service().log_tail();
    assert!(!log.contains("panicked"), "{log}");
    eprintln!(
        "damaged disk: the damaged node {}; without the keeper the others {}",
        if refused { "refused" } else { "rejoined" },
        if went_on { "went on" } else { "did not go on" }
    );
    if refused {
        eprintln!("damaged disk: {}", log.lines().last().unwrap_or(""));
        assert!(log.contains("corrupt"), "the reason is not clear:\n{log}");
        // The remedy that the message names.
        cluster.remove_node(damaged.id()).await.unwrap();
        let replacement = cluster.add_node().await.unwrap();
        eprintln!("damaged disk: node {} has taken its place", replacement.id());
        load.progress(100, PROGRESS).await.unwrap();
    }
    let summary = load.finish(&cluster).await.unwrap();
    eprintln!("damaged disk: {summary:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_tail_is_never_answered_from() {
    damaged_tail(Damage::Truncate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_the_tail_is_never_answered_from() {
    damaged_tail(Damage::FlipBit).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_or_foreign_disk_is_refused() {
    let seed = seed::seed("wiped disk");
    let cluster = Cluster::start(ClusterOptions::default()).await.unwrap();
    let load =
        Load::start(&cluster, &LoadOptions { seed, groups: 2, ..LoadOptions::default() }).await.unwrap();
    load.progress(50, PROGRESS).await.unwrap();
    let [wiped, foreign] = [2, 3].map(|id| cluster.node(id));

    wiped.service().kill().await.unwrap();
    fs::remove_dir_all(wiped.data_dir()).unwrap();
    wiped.service().start().unwrap();
    load.progress(50, PROGRESS).await.unwrap();
    assert!(!wiped.service().is_ready().await, "a wiped node takes part under its old id");

    wiped.service().kill().await.unwrap();
    foreign.service().kill().await.unwrap();
    if wiped.data_dir().exists() {
        fs::remove_dir_all(wiped.data_dir()).unwrap();
    }
    fs::rename(foreign.data_dir(), wiped.data_dir()).unwrap();
    wiped.service().start().unwrap();
    let status = wiped.service().ended(PROGRESS).await.unwrap();
    assert!(!status.success());
    let log = wiped.service().log_tail();
    assert!(log.contains("node 3") && log.contains("node 2"), "the reason is not clear:\n{log}");

    fs::rename(wiped.data_dir(), foreign.data_dir()).unwrap();
    foreign.service().start().unwrap();
    foreign.service().wait_ready().await.unwrap();
    load.progress(50, PROGRESS).await.unwrap();
    load.finish(&cluster).await.unwrap();
}
