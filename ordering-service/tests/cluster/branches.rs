//! DeMLS groups in a cluster of real nodes: branches are reported, collected and brought together, also over a change of the leader.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use concordat_proto::{
    convert::{GroupCommand, log_entry},
    log::v1::{BranchEntry as WireEntry, Reason},
    ordering::v1::{
        Command as WireCommand, EvictGatewayRequest, ListGatewaysRequest, QuorumState,
        ReadBranchEntriesRequest, RegisteredGateway, WatchQuorumRequest, outcome::Outcome,
    },
};
use group_log::{
    ChainVerifier, ClientId, Commit, Content, Create, GroupId, GroupKind, Policy, StateId, Submission,
    fork::{BranchEntry, Close, Command, CommitFacts, GatewayId, LeafId, Mark, Report},
};
use ordering_service::{branches::Waits, config::Config, dev::DevCluster, server::Seams};
use prost::Message;
use service_kit::clock::ManualClock;
use tonic::Streaming;

use crate::support::{Cluster, SHARD, Subscriber, id, until};

const GROUP: &str = "forked";
const A: GatewayId = GatewayId([1; 16]);
const B: GatewayId = GatewayId([2; 16]);

/// A collection waits for gateways that are there for as long as a test may take.
fn patient(config: &mut Config) {
    let collect_at_least = Duration::from_millis(200);
    config.waits = Waits { collect_for: Duration::from_secs(300), collect_at_least, evict_after: None };
}

fn leaf(n: u8) -> LeafId {
    LeafId([n; 32])
}

fn alice() -> ClientId {
    ClientId::new(&b"alice"[..]).unwrap()
}

fn encoded(command: Command) -> Bytes {
    let group_id = GroupId::new(id(GROUP)).unwrap();
    WireCommand::from(GroupCommand { group_id, command }).encode_to_vec().into()
}

fn submission(parent: Option<StateId>, epoch: u64, content: Content, facts: CommitFacts) -> Bytes {
    let group_id = GroupId::new(id(GROUP)).unwrap();
    let submission = Submission { group_id, author: alice(), epoch, parent_state_id: parent, content };
    encoded(Command::Submit { submission, facts })
}

fn commit(text: &str) -> Content {
    let (message, welcome, group_info) =
        (Bytes::copy_from_slice(text.as_bytes()), Bytes::new(), Bytes::new());
    Content::Commit(Commit { message, welcome, group_info, recipients: Vec::new() })
}

fn by(author: u8) -> CommitFacts {
    CommitFacts { author: Some(leaf(author)), ..CommitFacts::default() }
}

fn entry(parent: StateId, content: Content, facts: CommitFacts) -> BranchEntry {
    BranchEntry { parent, author: alice(), content, facts }
}

fn report(gateway: GatewayId, entries: &[BranchEntry]) -> Bytes {
    encoded(Command::Report(Report { gateway, entries: entries.to_vec(), complete: true }))
}

fn gateway_id(gateway: GatewayId) -> Bytes {
    Bytes::copy_from_slice(&gateway.0)
}

/// A DeMLS group with three members, known to both gateways. Gives its first state.
async fn forked(cluster: &Cluster) -> StateId {
    let group_info = Bytes::from_static(b"group info");
    let create = Create { kind: GroupKind::Demls, policy: Policy::default(), group_info };
    let facts = CommitFacts { adds: vec![leaf(1), leaf(2), leaf(3)], ..CommitFacts::default() };
    let created = cluster.submit(SHARD, submission(None, 0, Content::Create(create), facts)).await;
    assert!(matches!(created, Outcome::Accepted(_)), "{created:?}");
    for gateway in [A, B] {
        let register = Command::Register { gateway, position: 1, departures: 0 };
        let noted = cluster.submit(SHARD, encoded(register)).await;
        assert!(matches!(noted, Outcome::GatewayNoted(_)), "{noted:?}");
    }
    head(cluster).await.0
}

async fn head(cluster: &Cluster) -> (StateId, u64, u64) {
    let leader = cluster.leader(SHARD).await;
    let head = cluster.head(leader, GROUP, true).await.unwrap();
    (StateId::from_slice(&head.state_id).unwrap(), head.epoch, head.seq)
}

/// A gateway is there as long as somebody holds this.
async fn watch(cluster: &Cluster, node_id: u64, gateway: GatewayId) -> Streaming<QuorumState> {
    let request = WatchQuorumRequest { gateway_id: gateway_id(gateway) };
    let mut watching = cluster.ordering(node_id).await.watch_quorum(request).await.unwrap().into_inner();
    watching.message().await.unwrap().expect("a first state");
    watching
}

async fn until_seq(cluster: &Cluster, seq: u64) {
    until("the log has grown", async || head(cluster).await.2 >= seq).await;
}

async fn kinds(cluster: &Cluster, node_id: u64, count: u64) -> Vec<&'static str> {
    let entries = cluster.entries(node_id, GROUP, count).await;
    let mut verifier = ChainVerifier::new();
    let kinds = entries.into_iter().map(|entry| {
        let entry = log_entry(entry, Vec::new()).unwrap();
        verifier.push_item(&entry).unwrap();
        entry.item.kind().name()
    });
    kinds.collect()
}

async fn branch_entries(cluster: &Cluster, node_id: u64, ids: Vec<Bytes>) -> Vec<WireEntry> {
    let request = ReadBranchEntriesRequest { group_id: id(GROUP), ids };
    cluster.ordering(node_id).await.read_branch_entries(request).await.unwrap().into_inner().entries
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn branches_are_collected_until_every_gateway_that_is_there_has_reported() {
    let cluster = Cluster::start_with(3, patient).await;
    let first = forked(&cluster).await;
    let leader = cluster.leader(SHARD).await;
    // The other gateway is connected to a node that does not lead.
    let follower = 1 + leader % 3;
    let _watching = watch(&cluster, follower, B).await;
    until("the leader knows", async || cluster.node(leader).node().live_gateways().contains(&B)).await;
    let mut subscriber = Subscriber::open(cluster.ordering(follower).await).await;
    subscriber.follow(1, GROUP, 0, Bytes::new()).await;

    let won = entry(first, commit("won"), by(1));
    let more = entry(won.id().as_state(), commit("more"), by(2));
    let lost = entry(first, commit("lost"), by(3));
    let reported = cluster.submit(SHARD, report(A, &[won.clone(), more.clone()])).await;
    assert!(matches!(reported, Outcome::BranchesReported(ref r) if (r.new_entries, r.collection) == (2, 1)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let impatient = submission(Some(first), 0, commit("impatient"), by(1));
    assert!(
        matches!(cluster.submit(SHARD, impatient.clone()).await, Outcome::Reconciling(_)),
        "B is waited for"
    );
    cluster.submit(SHARD, report(B, std::slice::from_ref(&lost))).await;
    until_seq(&cluster, 4).await;

    let marked = subscriber.entries(0, 4).await;
    for node_id in 1..=3 {
        assert_eq!(kinds(&cluster, node_id, 4).await, ["create", "commit", "commit", "side"]);
        assert_eq!(cluster.entries(node_id, GROUP, 4).await, marked, "readers and subscribers see the same");
        let unknown = Bytes::from_static(&[9; 32]);
        let bodies = branch_entries(&cluster, node_id, vec![unknown, lost.id().to_bytes()]).await;
        assert_eq!(bodies, [WireEntry::from(lost.clone())]);
    }
    // The same bytes get the same answer, wherever the branch was decided.
    for _ in 0..2 {
        let again =
            cluster.submit(SHARD, submission(Some(first), 0, won.content.clone(), won.facts.clone())).await;
        assert!(matches!(again, Outcome::Accepted(ref accepted) if accepted.seq == 2), "{again:?}");
        let late = cluster.submit(SHARD, impatient.clone()).await;
        assert!(
            matches!(late, Outcome::Superseded(ref s) if s.winner.as_ref().unwrap().seq == 2),
            "{late:?}"
        );
    }
    let known = cluster.submit(SHARD, report(B, &[won, more, lost])).await;
    assert!(matches!(known, Outcome::BranchesReported(ref r) if (r.new_entries, r.collection) == (0, 0)));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_does_not_report_is_not_waited_for_longer_than_the_deadline() {
    let cluster = Cluster::start_with(1, |config| {
        let collect_for = Duration::from_secs(2);
        config.waits = Waits { collect_for, collect_at_least: Duration::from_millis(100), evict_after: None };
    })
    .await;
    let first = forked(&cluster).await;
    let _watching = watch(&cluster, 1, B).await;
    cluster.submit(SHARD, report(A, &[entry(first, commit("won"), by(1))])).await;
    until_seq(&cluster, 2).await;
    assert_eq!(kinds(&cluster, 1, 2).await, ["create", "commit"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_goes_on_with_the_collection_of_the_one_before() {
    let mut cluster = Cluster::start_with(3, patient).await;
    let first = forked(&cluster).await;
    let before = cluster.leader(SHARD).await;
    let mut watching = Vec::new();
    for node_id in 1..=3 {
        watching.push(watch(&cluster, node_id, B).await);
    }
    let won = entry(first, commit("won"), by(1));
    cluster.submit(SHARD, report(A, std::slice::from_ref(&won))).await;
    cluster.stop_node(before).await;
    let impatient = submission(Some(first), 0, commit("impatient"), by(2));
    assert!(matches!(cluster.submit(SHARD, impatient).await, Outcome::Reconciling(_)));
    assert_ne!(cluster.leader(SHARD).await, before);
    cluster.submit(SHARD, report(B, &[])).await;
    until_seq(&cluster, 2).await;
    cluster.start_node(before).await;
    for node_id in 1..=3 {
        assert_eq!(kinds(&cluster, node_id, 2).await, ["create", "commit"]);
    }
    cluster.stop().await;
}

async fn listed(cluster: &Cluster) -> Vec<RegisteredGateway> {
    cluster.admin(1).await.list_gateways(ListGatewaysRequest {}).await.unwrap().into_inner().gateways
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removals_come_first_and_an_evicted_gateway_is_late() {
    let cluster = Cluster::start_with(3, patient).await;
    let first = forked(&cluster).await;
    let removal = CommitFacts { removes: vec![leaf(3)], ..by(1) };
    let lost = entry(first, commit("removal"), removal.clone());
    cluster.submit(SHARD, submission(Some(first), 0, commit("canonical"), by(2))).await;
    cluster.submit(SHARD, report(A, &[lost])).await;
    let (state, epoch, _) = head(&cluster).await;
    let other = cluster.submit(SHARD, submission(Some(state), epoch, commit("other"), by(2))).await;
    assert!(matches!(other, Outcome::RemoveFirst(ref first) if first.owed == [Bytes::from_static(&[3; 32])]));
    let removed =
        cluster.submit(SHARD, submission(Some(state), epoch, commit("removal again"), removal)).await;
    assert!(matches!(removed, Outcome::Accepted(_)), "{removed:?}");

    // One gateway keeps up, the other holds everything back until it is evicted.
    let noted =
        cluster.submit(SHARD, encoded(Command::Ack { gateway: A, registration: 0, position: 4 })).await;
    assert!(matches!(noted, Outcome::GatewayNoted(ref noted) if noted.stable == 1), "{noted:?}");
    until("node 1 has it, too", async || cluster.head(1, GROUP, false).await.is_ok_and(|head| head.seq == 4))
        .await;
    let _watching = watch(&cluster, 2, A).await;
    until("A is known to be there", async || listed(&cluster).await.first().is_some_and(|a| a.connected))
        .await;
    let found: Vec<_> =
        listed(&cluster).await.iter().map(|g| (g.groups, g.holds_back, g.connected)).collect();
    assert_eq!(found, [(1, 0, true), (1, 1, false)]);
    let request = EvictGatewayRequest { gateway_id: gateway_id(B) };
    let evicted = cluster.admin(1).await.evict_gateway(request.clone()).await.unwrap().into_inner();
    assert_eq!(evicted.groups, 1);
    let again = cluster.admin(2).await.evict_gateway(request).await.unwrap().into_inner();
    assert_eq!(again.groups, 0);
    let late = entry(first, commit("late"), by(2));
    cluster.submit(SHARD, report(B, std::slice::from_ref(&late))).await;
    until_seq(&cluster, 6).await;
    for node_id in 1..=3 {
        let expected = ["create", "commit", "side", "commit", "stable", "late"];
        assert_eq!(kinds(&cluster, node_id, 6).await, expected);
    }
    let entries = cluster.entries(1, GROUP, 6).await;
    let Some(Mark::Stable { position }) = log_entry(entries[4].clone(), Vec::new()).unwrap().mark().cloned()
    else {
        panic!("stable")
    };
    assert_eq!(position, 4);
    assert_eq!(branch_entries(&cluster, 3, vec![late.id().to_bytes()]).await, [WireEntry::from(late)]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_nodes_close_collections_and_evict_gateways() {
    let cluster = Cluster::start(1).await;
    let first = forked(&cluster).await;
    let close = Command::Close(Close { collection: 1, nonce: [0; 32] });
    for command in [encoded(close), encoded(Command::Evict { gateway: A })] {
        let refused = cluster.submit(SHARD, command).await;
        assert!(
            matches!(refused, Outcome::Refused(ref r) if r.reason() == Reason::PermissionDenied),
            "{refused:?}"
        );
    }
    let far = StateId([9; 32]);
    let gap = cluster.submit(SHARD, report(A, &[entry(far, commit("c"), by(1))])).await;
    assert!(matches!(gap, Outcome::Refused(ref r) if r.reason() == Reason::BranchGap), "{gap:?}");
    assert_eq!(head(&cluster).await, (first, 0, 1));
    cluster.stop().await;
}

/// The clock is the test's. Hours in which a leader was there count; a time without a quorum does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_nobody_has_seen_for_long_is_evicted_but_a_long_outage_evicts_nobody() {
    const HOUR_MS: u64 = 3600 * 1000;
    let clock = ManualClock::at_ms(1_700_000_000_000);
    let seams = Seams { clock: Arc::new(clock.clone()), ..Seams::system() };
    let dir = tempfile::tempdir().unwrap();
    let adjust = |config: &mut Config| config.waits.evict_after = Some(Duration::from_secs(4 * 3600));
    let dev = DevCluster::start_with(dir.path(), 1, 1, seams, adjust).await.unwrap();
    let cluster = Cluster::of(dir, dev);
    forked(&cluster).await;
    let _watching = watch(&cluster, 1, A).await;
    let noted = async |at_ms| {
        until("a leader has noted who is there", async || {
            let reader = cluster.node(1).node().shard(SHARD).unwrap().reader();
            reader.gateways_noted_at_ms().unwrap() == Some(at_ms)
        })
        .await;
    };
    let mut now_ms = 1_700_000_000_000;
    noted(now_ms).await;
    for hours in [72.0, 1.5, 1.5] {
        let passed = (hours * HOUR_MS as f64) as u64;
        clock.advance_ms(passed);
        now_ms += passed;
        noted(now_ms).await;
        assert_eq!(listed(&cluster).await.len(), 2, "three hours are not four");
    }
    clock.advance_ms(3 * HOUR_MS / 2);
    until("it is evicted", async || listed(&cluster).await.len() == 1).await;
    assert_eq!(listed(&cluster).await[0].gateway_id, gateway_id(A));
    cluster.stop().await;
}
