//! One design on one topology: the processes, the links between them, and a client at every site.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use links::{Cut, Links};
use serde::Serialize;
use testbed::{Cluster, ClusterOptions, Placement, wait::eventually};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::{
    client::Client,
    limits::{DATA_SHARDS, RECOVERY_DEADLINE},
    spec::{Event, Topology},
};

/// How commits are put into an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Design {
    /// Raft over the nodes of all sites.
    Consensus,
    /// One assigned server: a single voter at the home site.
    Lead,
}

impl Design {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Consensus => "consensus",
            Self::Lead => "lead",
        }
    }
}

/// Running processes.
pub(crate) struct World {
    pub(crate) topology: Topology,
    pub(crate) links: Arc<Links>,
    pub(crate) cluster: Cluster,
    /// One for each site that has members, with its share.
    pub(crate) clients: Vec<Client>,
    /// Sites of nodes.
    pub(crate) voters: Vec<String>,
}

impl World {
    pub(crate) async fn start(
        design: Design,
        topology: &Topology,
        dir: &Path,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let links = Arc::new(topology.links(seed)?);
        // Node 1 forms the cluster: the home site comes first.
        let mut voters = vec![topology.home.clone()];
        if design == Design::Consensus {
            let others = topology.sites.iter().filter(|site| site.nodes > 0 && site.name != topology.home);
            voters.extend(others.map(|site| site.name.clone()));
        }
        let gateways: Vec<String> = topology.sites.iter().map(|site| site.name.clone()).collect();
        let options = ClusterOptions {
            nodes: voters.len() as u64,
            gateways: gateways.len() as u64,
            data_shards: DATA_SHARDS,
            node_args: vec!["--timing".into(), topology.timing.name().into()],
            dir: Some(dir.to_owned()),
            placement: Some(Placement { links: Arc::clone(&links), nodes: voters.clone(), gateways }),
            ..ClusterOptions::default()
        };
        let cluster = Cluster::start(options).await.context("starting the processes")?;
        let mut clients = Vec::new();
        for (site, gateway) in topology.sites.iter().zip(cluster.gateways()) {
            if site.members > 0 {
                clients.push(Client::new(&site.name, gateway.address())?);
            }
        }
        let world = Self { topology: topology.clone(), links, cluster, clients, voters };
        world.lead_from_home().await?;
        Ok(world)
    }

    /// Hands every shard to the home site's node.
    pub(crate) async fn lead_from_home(&self) -> anyhow::Result<()> {
        for shard in 0..=DATA_SHARDS {
            eventually(format!("the home site to lead shard {shard}"), RECOVERY_DEADLINE, async || {
                let leader = self.cluster.current_leader(shard).await?;
                if leader == 1 {
                    return Some(());
                }
                // Refused while the home site's node is still behind.
                let _ = self.cluster.node(leader).admin().transfer_leader(shard, 1).await;
                None
            })
            .await?;
        }
        Ok(())
    }

    /// Lets links come and go as the topology says, until the answer is dropped.
    pub(crate) fn keep_changing(&self) -> Option<AbortOnDropHandle<()>> {
        if self.topology.changes.is_empty() {
            return None;
        }
        let (links, changes) = (Arc::clone(&self.links), self.topology.changes.clone());
        Some(AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                for change in &changes {
                    sleep(Duration::from_secs_f64(change.after_s)).await;
                    let [a, b] = &change.between;
                    // Their names were checked when the topology was read.
                    let _ = match change.event {
                        Event::Cut => links.cut_both(a, b, Cut::Stall),
                        Event::Heal => links.heal_both(a, b),
                    };
                }
            }
        })))
    }

    /// Sites of the clients, as often as their weight says.
    pub(crate) fn turns(&self) -> Vec<usize> {
        let weight = |client: &Client| self.topology.site(&client.site).map_or(0, |site| site.members);
        let most = self.clients.iter().map(weight).max().unwrap_or(0);
        // Spread out, so that neighbours in time are at different sites.
        (0..most)
            .flat_map(|round| {
                self.clients.iter().enumerate().filter(move |(_, c)| weight(c) > round).map(|(i, _)| i)
            })
            .collect()
    }

    /// What no design of this kind can be faster than: to the leader and back, to the quorum-th fastest voter and back, one sync.
    pub(crate) fn floor(&self, site: &str, sync: Duration) -> Duration {
        let home = &self.topology.home;
        let mut followers: Vec<Duration> =
            self.voters.iter().filter(|v| *v != home).map(|v| self.topology.round_trip(home, v)).collect();
        followers.sort_unstable();
        // The leader is one of the quorum itself.
        let needed = self.voters.len() / 2;
        let quorum = needed.checked_sub(1).and_then(|at| followers.get(at)).copied().unwrap_or_default();
        self.topology.round_trip(site, home) + quorum + sync
    }

    /// The ids of all processes that run.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let nodes = self.cluster.nodes().into_iter().filter_map(|node| node.service().id());
        nodes.chain(self.cluster.gateways().into_iter().filter_map(|g| g.service().id())).collect()
    }
}
