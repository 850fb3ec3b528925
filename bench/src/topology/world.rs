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
    limits::{DATA_SHARDS, RECOVERY_DEADLINE, TURN_SLACK},
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

/// The node of the home site, which forms the cluster.
pub(crate) const HOME_NODE: u64 = 1;

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
        // The first node forms the cluster.
        let mut voters = vec![topology.home.clone()];
        if design == Design::Consensus {
            let others = topology.sites.iter().filter(|site| site.nodes > 0 && site.name != topology.home);
            voters.extend(others.map(|site| site.name.clone()));
        }
        let gateways: Vec<String> = topology.sites.iter().map(|site| site.name.clone()).collect();
        // Whatever happens to a leader, its shard belongs to the home site again afterwards.
        let home = (0..=DATA_SHARDS)
            .flat_map(|shard| ["--prefer-leader".into(), format!("{shard}={}", topology.home)]);
        let node_args = ["--timing".into(), topology.timing.name().into()].into_iter().chain(home).collect();
        let options = ClusterOptions {
            nodes: voters.len() as u64,
            gateways: gateways.len() as u64,
            data_shards: DATA_SHARDS,
            node_args,
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
            let (mut last_leader, mut refusal) = (None, None);
            let what = format!("the home site to lead shard {shard}");
            let led = eventually(what, RECOVERY_DEADLINE, async || {
                last_leader = self.cluster.current_leader(shard).await;
                let leader = last_leader.filter(|leader| *leader != HOME_NODE);
                if let Some(leader) = leader {
                    // Refused while the home site's node is still behind.
                    refusal = self.cluster.node(leader).admin().transfer_leader(shard, HOME_NODE).await.err();
                }
                (last_leader == Some(HOME_NODE)).then_some(())
            });
            led.await.with_context(|| {
                let leader = last_leader.map_or("nobody".into(), |leader| format!("node {leader}"));
                let refusal = refusal.map_or("nothing".into(), |error| error.to_string());
                format!("{leader} leads shard {shard}; the last transfer to node {HOME_NODE} was answered with: {refusal}")
            })?;
        }
        Ok(())
    }

    /// Lets links come and go as the topology says, until the answer is dropped.
    pub(crate) fn keep_changing(&self) -> Option<AbortOnDropHandle<()>> {
        keep_changing(&self.links, &self.topology)
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
        self.topology.round_trip(site, &self.topology.home) + quorum(&self.topology, &self.voters) + sync
    }

    /// The same for a commit of this size: where bandwidth is limited, it takes its time on the way to the leader and to the voter.
    pub(crate) fn floor_for(&self, site: &str, sync: Duration, bytes: usize) -> Duration {
        let home = &self.topology.home;
        let to_voter = self.voters.iter().filter(|voter| *voter != home);
        let on_to = to_voter.map(|voter| self.topology.sending(home, voter, bytes)).min().unwrap_or_default();
        self.floor(site, sync) + self.topology.sending(site, home, bytes) + on_to
    }

    /// So long that whoever's turn it is can learn of it, ask, and be answered.
    pub(crate) fn turn(&self, sync: Duration) -> Duration {
        let slowest = self.clients.iter().map(|client| self.floor(&client.site, sync)).max();
        slowest.unwrap_or_default() * 2 + TURN_SLACK
    }

    /// The ids of all processes that run.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let nodes = self.cluster.nodes().into_iter().filter_map(|node| node.service().id());
        nodes.chain(self.cluster.gateways().into_iter().filter_map(|g| g.service().id())).collect()
    }
}

/// Lets links come and go as the topology says, until the answer is dropped.
pub(crate) fn keep_changing(links: &Arc<Links>, topology: &Topology) -> Option<AbortOnDropHandle<()>> {
    if topology.changes.is_empty() {
        return None;
    }
    let (links, changes) = (Arc::clone(links), topology.changes.clone());
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

/// From the home site to the quorum-th fastest voter and back; the leader is one of the quorum itself.
fn quorum(topology: &Topology, voters: &[String]) -> Duration {
    let others = voters.iter().filter(|voter| **voter != topology.home);
    let mut round_trips: Vec<Duration> =
        others.map(|voter| topology.round_trip(&topology.home, voter)).collect();
    round_trips.sort_unstable();
    let needed = voters.len() / 2;
    needed.checked_sub(1).and_then(|at| round_trips.get(at)).copied().unwrap_or_default()
}

/// The network's part of the floor for the site that is farthest from home, with the sites' nodes as voters.
pub(crate) fn slowest_of(topology: &Topology) -> Duration {
    let voters: Vec<String> =
        topology.sites.iter().filter(|site| site.nodes > 0).map(|site| site.name.clone()).collect();
    let with_members = topology.sites.iter().filter(|site| site.members > 0);
    let ways = with_members.map(|site| topology.round_trip(&site.name, &topology.home));
    ways.max().unwrap_or_default() + quorum(topology, &voters)
}

/// The network's part of the floor, as the mean over all members: with the sites' nodes as voters, or with one server at home.
pub(crate) fn floor_of(topology: &Topology, voters: bool) -> Duration {
    let nodes = topology.sites.iter().filter(|site| site.nodes > 0 && (voters || site.name == topology.home));
    let voters: Vec<String> = nodes.map(|site| site.name.clone()).collect();
    let members: u32 = topology.sites.iter().map(|site| site.members).sum();
    let ways: Duration = topology
        .sites
        .iter()
        .map(|site| topology.round_trip(&site.name, &topology.home) * site.members)
        .sum();
    ways / members.max(1) + quorum(topology, &voters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_the_way_to_the_leader_and_to_the_nearest_majority() {
        let topology = Topology::find("continent").unwrap();
        // Virginia to itself, California and Oregon; the nearest follower is California. A round trip takes half of 0.5 ms of jitter
        // each way on top.
        let (california, oregon) = (72.74 + 0.5, 86.98 + 0.5);
        let ways = (0.0 + california + oregon) / 3.0;
        let millis = |voters| floor_of(&topology, voters).as_secs_f64() * 1e3;
        assert!((millis(false) - ways).abs() < 0.01, "{}", millis(false));
        assert!((millis(true) - ways - california).abs() < 0.01, "{}", millis(true));
        let slowest = slowest_of(&topology).as_secs_f64() * 1e3;
        assert!((slowest - oregon - california).abs() < 0.01, "{slowest}");
    }
}
