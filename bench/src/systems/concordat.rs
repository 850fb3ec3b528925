//! Three ordering nodes on loopback, with or without a gateway.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use testbed::{Cluster, ClusterOptions};

use super::{
    Setup, Slot,
    gateway::{GatewaySlot, Submissions},
    ordering::{OrderingSlot, Stream},
};
use crate::limits::CONNECTIONS;

/// All load comes from one client, which is given more than any machine can do.
const QUOTAS: [(&str, &str); 4] = [
    ("--quota-client-entries", "1000000000"),
    ("--quota-client-bytes", "1000000000000"),
    ("--quota-client-streams", "1000000"),
    ("--quota-client-reads", "1000000000"),
];

/// A running cluster.
pub(crate) struct Concordat {
    pub(crate) cluster: Cluster,
    next_group: AtomicU64,
}

impl Concordat {
    /// Starts three nodes, and a gateway if the work goes through one.
    pub(crate) async fn start(setup: &Setup, gateway: bool) -> anyhow::Result<Self> {
        Self::start_as(ClusterOptions {
            data_shards: setup.data_shards,
            gateways: u64::from(gateway),
            dir: Some(setup.data.clone()),
            ..ClusterOptions::default()
        })
        .await
    }

    /// Starts a cluster.
    pub(crate) async fn start_as(mut options: ClusterOptions) -> anyhow::Result<Self> {
        options.gateway_args.extend(QUOTAS.into_iter().flat_map(|(flag, limit)| [flag.into(), limit.into()]));
        let cluster = Cluster::start(options).await.context("starting a cluster")?;
        Ok(Self { cluster, next_group: AtomicU64::new(0) })
    }

    /// A group id that was not given before.
    pub(crate) fn group_id(&self) -> String {
        format!("bench-group-{:012}", self.next_group.fetch_add(1, Ordering::Relaxed))
    }

    /// Processes of nodes and gateways.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let nodes = self.cluster.nodes().into_iter().filter_map(|node| node.service().id());
        let gateways = self.cluster.gateways().into_iter().filter_map(|gateway| gateway.service().id());
        nodes.chain(gateways).collect()
    }

    /// A stream to the leader of every data shard.
    pub(crate) async fn streams(&self) -> anyhow::Result<Vec<(u32, Stream)>> {
        let status = self.cluster.node(1).admin().status().await?;
        let mut streams = Vec::new();
        for shard in status.shards.iter().map(|shard| shard.shard).filter(|shard| *shard > 0) {
            let leader = self.cluster.leader(shard).await?;
            streams.push((shard, Stream::open(leader.address()).await?));
        }
        Ok(streams)
    }

    pub(super) async fn slots(&self, count: usize) -> anyhow::Result<Vec<Slot>> {
        if let Some(gateway) = self.cluster.gateways().first() {
            let mut connections = Vec::new();
            for _ in 0..CONNECTIONS.min(count) {
                connections.push(Submissions::open(gateway.address()).await?);
            }
            let of = |n: usize| connections[n % connections.len()].clone();
            let slots = (0..count).map(|n| GatewaySlot::create(of(n), self.group_id()));
            return Ok(futures::future::try_join_all(slots).await?.into_iter().map(Slot::Gateway).collect());
        }
        Ok(self.ordering_slots(count).await?.into_iter().map(Slot::Ordering).collect())
    }

    /// Clients straight to the leaders, spread over the shards.
    pub(crate) async fn ordering_slots(&self, count: usize) -> anyhow::Result<Vec<OrderingSlot>> {
        let streams = self.streams().await?;
        let slots = (0..count).map(|n| {
            let (shard, stream) = streams[n % streams.len()].clone();
            OrderingSlot::create(stream, shard, self.group_id())
        });
        futures::future::try_join_all(slots).await
    }
}
