//! The crash: the node that leads most shards is killed, and the time that they are without a leader is measured.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use concordat_proto::ordering::v1::{WatchQuorumRequest, ordering_client::OrderingClient as Wire};
use testbed::{Cluster, cluster::Node, wait::until};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tonic::transport::Endpoint;

use crate::{
    limits::{AWAY, ELECTION_DEADLINE},
    progress::Progress,
};

/// What the crash did.
#[derive(Debug, Clone)]
pub(crate) struct Crash {
    /// The killed node.
    pub(crate) node: u64,
    /// The shards that it led, and how long each was without a leader: from the kill until a survivor said that another node leads and
    /// a quorum answers.
    pub(crate) leaderless: BTreeMap<u32, Duration>,
    /// From its restart until the node was ready again.
    pub(crate) rejoined_after: Duration,
}

/// When each shard was first seen under another leader.
type Elected = Arc<Mutex<BTreeMap<u32, Instant>>>;

/// Kills the leader, waits for the next, and starts the killed node again.
pub(crate) async fn run(cluster: &Cluster, data_shards: u32, progress: &Progress) -> anyhow::Result<Crash> {
    let victim = busiest_leader(cluster, data_shards).await?;
    let led = led_by(cluster, victim.id(), data_shards).await;
    let elected = Elected::default();
    let mut watchers = JoinSet::new();
    for node in cluster.nodes().into_iter().filter(|node| node.id() != victim.id()) {
        watchers.spawn(watch(node.address().to_owned(), victim.id(), led.clone(), Arc::clone(&elected)));
    }

    let killed = Instant::now();
    victim.service().kill().await?;
    progress.done(&format!("node {} (leader of shards {led:?}) was killed with SIGKILL", victim.id()));
    let everywhere = until("a new leader of every shard", ELECTION_DEADLINE, || {
        let elected = elected.lock().unwrap_or_else(PoisonError::into_inner);
        led.iter().all(|shard| elected.contains_key(shard)).then(|| elected.clone())
    });
    let everywhere = everywhere.await.context("after the leader was killed")?;
    watchers.abort_all();
    let leaderless: BTreeMap<_, _> =
        everywhere.into_iter().map(|(shard, at)| (shard, at.saturating_duration_since(killed))).collect();
    let longest = leaderless.values().max().copied().unwrap_or_default();
    progress.done(&format!("all shards have a leader again after {} ms", longest.as_millis()));

    sleep(AWAY.saturating_sub(killed.elapsed())).await;
    let restarted = Instant::now();
    victim.service().start()?;
    victim.service().wait_ready().await?;
    let rejoined_after = restarted.elapsed();
    progress.done(&format!("node {} is back, ready after {} ms", victim.id(), rejoined_after.as_millis()));
    Ok(Crash { node: victim.id(), leaderless, rejoined_after })
}

async fn busiest_leader(cluster: &Cluster, data_shards: u32) -> anyhow::Result<Arc<Node>> {
    let mut led: BTreeMap<u64, usize> = BTreeMap::new();
    for shard in 1..=data_shards {
        *led.entry(cluster.leader(shard).await?.id()).or_default() += 1;
    }
    let (busiest, _) = led.into_iter().max_by_key(|(_, shards)| *shards).context("no shard has a leader")?;
    Ok(cluster.node(busiest))
}

async fn led_by(cluster: &Cluster, node: u64, data_shards: u32) -> Vec<u32> {
    let mut led = Vec::new();
    for shard in 0..=data_shards {
        if cluster.current_leader(shard).await == Some(node) {
            led.push(shard);
        }
    }
    led
}

/// Listens to what one survivor says about who leads.
async fn watch(address: String, victim: u64, led: Vec<u32>, elected: Elected) {
    let Ok(endpoint) = Endpoint::from_shared(format!("http://{address}")) else { return };
    let Ok(mut client) = endpoint.connect().await.map(Wire::new) else { return };
    let Ok(states) = client.watch_quorum(WatchQuorumRequest::default()).await else { return };
    let mut states = states.into_inner();
    while let Ok(Some(state)) = states.message().await {
        let now = Instant::now();
        let mut elected = elected.lock().unwrap_or_else(PoisonError::into_inner);
        for shard in state.shards {
            let other = shard.leader_node_id != 0 && shard.leader_node_id != victim;
            if other && shard.has_quorum && led.contains(&shard.shard) {
                elected.entry(shard.shard).or_insert(now);
            }
        }
    }
}
