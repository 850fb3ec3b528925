//! Nodes come and go while commits flow; wiped and foreign disks stay out; a cluster is formed once.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crate::support::{Cluster, SHARD, Submitter, Subscriber, commit, create, until, url};
use bytes::Bytes;
use concordat_proto::ordering::v1::{
    AddLearnerRequest, BootstrapRequest, GetStatusRequest, PromoteRequest, RemoveRequest, Submission,
    TransferLeaderRequest, ordering_client::OrderingClient, outcome::Outcome,
};
use ordering_service::{dev::node_address, raft::types::NodeInfo};
use service_kit::status::reason;

/// Commits to a group as fast as one client can, through whichever of these nodes leads.
struct Traffic {
    stop: Arc<AtomicBool>,
    epoch: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Traffic {
    async fn start(cluster: &Cluster, name: &'static str) -> Self {
        assert!(matches!(cluster.submit(SHARD, create(name)).await, Outcome::Accepted(_)));
        let urls: Vec<String> = cluster.running().map(url).collect();
        let (stop, epoch) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, at) = (stop.clone(), epoch.clone());
        let task = tokio::spawn(async move {
            let mut nodes = urls.iter().cycle();
            let mut told = None;
            while !stopped.load(Ordering::Relaxed) {
                let url = told.take().or_else(|| nodes.next().cloned()).expect("a cycle never ends");
                told = commit_through(url, name, &at, &stopped).await;
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        });
        Self { stop, epoch, task }
    }

    /// Waits until commits have gone on from now.
    async fn flows(&self) {
        let from = self.epoch.load(Ordering::Relaxed);
        until("commits flow", async || self.epoch.load(Ordering::Relaxed) > from + 5).await;
    }

    async fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        self.epoch.load(Ordering::Relaxed)
    }
}

/// Commits through one node as long as it leads. Returns where it says that the leader is.
async fn commit_through(url: String, name: &str, at: &AtomicU64, stopped: &AtomicBool) -> Option<String> {
    let client = OrderingClient::connect(url).await.ok()?;
    let mut stream = Submitter::open(client).await.ok()?;
    while !stopped.load(Ordering::Relaxed) {
        let epoch = at.load(Ordering::Relaxed);
        match stream.try_submit(SHARD, commit(name, epoch, b"traffic")).await? {
            Outcome::Accepted(accepted) => {
                assert_eq!(accepted.epoch, epoch + 1);
                at.store(epoch + 1, Ordering::Relaxed);
            }
            Outcome::NotLeader(to) if to.leader_address.is_empty() => return None,
            Outcome::NotLeader(to) => return Some(format!("http://{}", to.leader_address)),
            Outcome::Unknown(_) | Outcome::Overloaded(_) => return None,
            other => panic!("{other:?}"),
        }
    }
    None
}

async fn add(cluster: &mut Cluster, node_id: u64, through: u64) {
    cluster.start_node(node_id).await;
    let node = Some(node_address(node_id, cluster.node(node_id).addresses()));
    let mut admin = cluster.admin(through).await;
    admin.add_learner(AddLearnerRequest { node, max_lag: 0 }).await.unwrap();
    admin.promote(PromoteRequest { node_ids: vec![node_id] }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_added_and_removed_while_commits_flow() {
    let mut cluster = Cluster::start(3).await;
    let traffic = Traffic::start(&cluster, "traffic").await;
    traffic.flows().await;
    add(&mut cluster, 4, 1).await;
    traffic.flows().await;
    add(&mut cluster, 5, 2).await;
    traffic.flows().await;
    // The leader itself goes.
    let gone = cluster.leader(SHARD).await;
    let stays = gone % 5 + 1;
    let mut admin = cluster.admin(stays).await;
    admin.remove(RemoveRequest { node_id: gone }).await.unwrap();
    traffic.flows().await;
    let rest: Vec<u64> = (1..=5).filter(|id| *id != gone).collect();
    let status = admin.get_status(GetStatusRequest {}).await.unwrap().into_inner();
    for shard in &status.shards {
        let voters: Vec<u64> = shard.voters.iter().map(|v| v.node_id).collect();
        assert_eq!(voters, rest, "shard {}", shard.shard);
        assert!(shard.learners.is_empty());
    }
    let epochs = traffic.end().await;
    let mut logs = Vec::new();
    for node in &rest {
        logs.push(cluster.entries(*node, "traffic", epochs + 1).await);
    }
    assert!(logs.windows(2).all(|pair| pair[0] == pair[1]), "a node that came later has the same log");
    // A node that is gone is no node of this cluster.
    let unknown = admin.remove(RemoveRequest { node_id: gone }).await.unwrap_err();
    assert_eq!(reason(&unknown).as_deref(), Some("MALFORMED"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_loses_the_quorum_is_refused() {
    let mut cluster = Cluster::start(3).await;
    cluster.stop_node(3).await;
    let leader = cluster.leader(SHARD).await;
    until("the node that stopped is missed", async || {
        let node = cluster.node(leader).node();
        !node.reach.reachable(node.timing.alive_within()).contains(&3)
    })
    .await;
    let other = if leader == 1 { 2 } else { 1 };
    let refused = cluster.admin(leader).await.remove(RemoveRequest { node_id: other }).await.unwrap_err();
    assert_eq!(reason(&refused).as_deref(), Some("PRECONDITION"), "{refused:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_on_request() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader(SHARD).await;
    let to = leader % 3 + 1;
    cluster.group_with("handed", 3).await;
    until("the target is caught up", async || {
        let request = TransferLeaderRequest { shard: SHARD, to_node_id: to };
        cluster.admin(leader).await.transfer_leader(request).await.is_ok()
    })
    .await;
    until("the target leads", async || cluster.leader(SHARD).await == to).await;
    assert!(matches!(cluster.submit(SHARD, commit("handed", 3, b"c")).await, Outcome::Accepted(_)));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_past_the_purge_catches_up_from_a_snapshot() {
    let mut cluster = Cluster::start_with(3, |config| {
        config.compaction.snapshot_every = 100;
        config.compaction.keep_entries = 10;
    })
    .await;
    cluster.group_with("before", 3).await;
    cluster.stop_node(3).await;
    cluster.group_with("meanwhile", 400).await;
    let leader = cluster.leader(SHARD).await;
    let shard = || cluster.node(leader).node().shards.get().unwrap().get(SHARD).unwrap().metrics();
    let missed = shard().last_log_index.unwrap() / 2;
    // A snapshot is taken on a commit: one that was due while another was being written needs one more.
    let more = AtomicU64::new(0);
    until("the log is purged", async || {
        let name = format!("more {}", more.fetch_add(1, Ordering::Relaxed));
        cluster.submit(SHARD, create(&name)).await;
        shard().purged.is_some_and(|purged| purged.index > missed)
    })
    .await;
    cluster.start_node(3).await;
    let caught_up = cluster.entries(3, "meanwhile", 401).await;
    assert_eq!(caught_up, cluster.entries(leader, "meanwhile", 401).await);
    assert_eq!(cluster.entries(3, "before", 4).await.len(), 4);
    let snapshot = cluster.node(3).node().shards.get().unwrap().get(SHARD).unwrap().metrics().snapshot;
    assert!(snapshot.is_some_and(|last| last.index > missed), "{snapshot:?}");
    assert!(matches!(cluster.submit(SHARD, commit("meanwhile", 400, b"c")).await, Outcome::Accepted(_)));
    assert_eq!(cluster.entries(3, "meanwhile", 402).await.len(), 402);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_node_has_let_go_of_its_data() {
    let mut cluster = Cluster::start(3).await;
    cluster.group_with("followed", 3).await;
    for node in 1..=3 {
        // Streams that are open, and reads that have just begun.
        let subscriber = Subscriber::open(cluster.ordering(node).await).await;
        subscriber.follow(1, "followed", 0, Bytes::new()).await;
        let submitter = Submitter::open(cluster.ordering(node).await).await.unwrap();
        submitter
            .send(vec![Submission { id: 1, shard: SHARD, command: create(&format!("at {node}")) }])
            .await;
        cluster.stop_node(node).await;
        let path = cluster.path().join(format!("node-{node}/db"));
        let options = rocksdb::Options::default();
        let families = rocksdb::DB::list_cf(&options, &path).unwrap();
        rocksdb::DB::open_cf(&options, &path, families).unwrap();
        drop((subscriber, submitter));
    }
    for node in 1..=3 {
        cluster.start_node(node).await;
    }
    cluster.group_with("later", 1).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_disk_is_refused() {
    let mut cluster = Cluster::start(3).await;
    cluster.group_with("kept", 3).await;
    cluster.stop_node(3).await;
    std::fs::remove_dir_all(cluster.path().join("node-3")).unwrap();
    cluster.start_node(3).await;
    cluster.group_with("later", 3).await;
    // The empty node refuses its peers, takes part in nothing, and adding it under its old number is refused, too.
    assert!(cluster.node(3).node().shards.get().is_none());
    let node = Some(node_address(3, cluster.node(3).addresses()));
    let refused =
        cluster.admin(1).await.add_learner(AddLearnerRequest { node, max_lag: 0 }).await.unwrap_err();
    assert_eq!(reason(&refused).as_deref(), Some("PRECONDITION"));
    assert!(refused.message().contains("never used"), "{refused:?}");
    assert!(cluster.node(3).node().identity.cluster().is_none());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_formed_once() {
    let cluster = Cluster::start(3).await;
    let nodes: Vec<_> =
        cluster.running().map(|node| node_address(node.node().identity.node_id, node.addresses())).collect();
    let again = BootstrapRequest { nodes: nodes.clone(), data_shards: 1 };
    let refused = cluster.admin(1).await.bootstrap(again).await.unwrap_err();
    assert_eq!(reason(&refused).as_deref(), Some("PRECONDITION"));
    // Nodes of two clusters can not be mixed.
    let other = Cluster::start(1).await;
    let address = node_address(1, other.node(1).addresses());
    let refused =
        other.admin(1).await.bootstrap(BootstrapRequest { nodes: vec![address], data_shards: 1 }).await;
    assert_eq!(reason(&refused.unwrap_err()).as_deref(), Some("PRECONDITION"));
    let mut stolen = node_address(4, other.node(1).addresses());
    stolen.node_id = 1;
    let refused =
        cluster.admin(2).await.add_learner(AddLearnerRequest { node: Some(stolen), max_lag: 0 }).await;
    assert_eq!(reason(&refused.unwrap_err()).as_deref(), Some("PRECONDITION"));
    cluster.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forming_a_cluster_that_broke_off_is_finished_by_the_same_request() {
    let mut cluster = Cluster::empty(3).await;
    let nodes: Vec<_> = (1..=3).map(|id| node_address(id, cluster.node(id).addresses())).collect();
    let request = BootstrapRequest { nodes, data_shards: 1 };
    // As if the process had died after two of three nodes were told, and then again after one of two shards was initialized.
    let begun = Cluster::begun();
    for id in [1, 2] {
        cluster.node(id).node().join(begun.clone()).await.unwrap();
    }
    let members = request.nodes.iter().map(|address| {
        let disk_id = cluster.node(address.node_id).node().identity.disk_id;
        let info = NodeInfo {
            peer_address: address.peer_address.clone(),
            address: address.address.clone(),
            site: String::new(),
            disk_id,
        };
        (address.node_id, info)
    });
    let members: BTreeMap<_, _> = members.collect();
    cluster.node(1).node().shards.get().unwrap().directory().raft().initialize(members).await.unwrap();
    let formed = cluster.admin(1).await.bootstrap(request.clone()).await.unwrap();
    assert_eq!(formed.into_inner().cluster_id, begun.id);
    cluster.group_with("formed", 3).await;
    let refused = cluster.admin(1).await.bootstrap(request).await.unwrap_err();
    assert_eq!(reason(&refused).as_deref(), Some("PRECONDITION"));
    // All of that survives a restart of every node.
    for id in 1..=3 {
        cluster.stop_node(id).await;
    }
    for id in 1..=3 {
        cluster.start_node(id).await;
    }
    assert!(matches!(cluster.submit(SHARD, commit("formed", 3, b"c")).await, Outcome::Accepted(_)));
    cluster.stop().await;
}
