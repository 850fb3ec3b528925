//! The ways to a quorum: by oneself, or through another gateway.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use concordat_proto::ordering::v1::Command;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    cluster::{Cluster, Final},
    error::GatewayError,
    relay::Relay,
};

/// How often the reports of the nodes are looked at.
pub(super) const LOOK: Duration = Duration::from_millis(25);

/// Which quorums are reached, and how.
pub struct Paths {
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// Other gateways.
    pub relay: Arc<Relay>,
    direct: watch::Sender<BTreeSet<u32>>,
}

impl Paths {
    /// Looks at what the nodes report, each report for `ttl`, for as long as the returned task is held.
    pub fn start(
        cluster: Arc<Cluster>,
        relay: Arc<Relay>,
        ttl: Duration,
    ) -> (Arc<Self>, AbortOnDropHandle<()>) {
        let paths = Arc::new(Self { cluster, relay, direct: watch::Sender::new(BTreeSet::new()) });
        let task = tokio::spawn(look(Arc::clone(&paths), ttl));
        (paths, AbortOnDropHandle::new(task))
    }

    /// Completes when a quorum is reached by oneself, or not any more.
    pub fn direct_changes(&self) -> watch::Receiver<BTreeSet<u32>> {
        self.direct.subscribe()
    }

    /// The quorum of a shard is reached by oneself.
    pub fn is_direct(&self, shard: u32) -> bool {
        self.direct.borrow().contains(&shard)
    }

    /// The quorum of a shard is reached.
    pub fn reaches_quorum(&self, shard: u32) -> bool {
        self.is_direct(shard) || self.relay.reaches_quorum(shard)
    }

    /// Brings a command to a quorum that is reached, and gives its final outcome.
    pub async fn submit(&self, shard: u32, command: &Command) -> Result<Final, GatewayError> {
        if self.is_direct(shard) || !self.relay.reaches_quorum(shard) {
            self.submit_directly(shard, command).await
        } else {
            self.relay.forward(shard, command).await
        }
    }

    /// The same without other gateways.
    pub async fn submit_directly(&self, shard: u32, command: &Command) -> Result<Final, GatewayError> {
        self.cluster.router.submit(shard, command).await
    }
}

async fn look(paths: Arc<Paths>, ttl: Duration) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    loop {
        ticks.tick().await;
        let now = Instant::now();
        // Whoever is late for this is late for what the nodes say, too.
        let late = now.saturating_duration_since(last).saturating_sub(LOOK);
        last = now;
        if late > LOOK {
            paths.cluster.board.excuse(late);
        }
        let reached = paths.cluster.board.quorum_of_shards(now, ttl);
        let is_new = paths.direct.send_if_modified(|known| {
            let is_new = *known != reached;
            if is_new {
                known.clone_from(&reached);
            }
            is_new
        });
        if is_new {
            paths.relay.set_quorum(reached);
        }
    }
}
