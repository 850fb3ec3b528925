//! Everything that the parts of one node share.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use group_log::fork::GatewayId;
use service_kit::{
    clock::SharedClock,
    net::SharedNetwork,
    rng::Randomness,
    tls::{ClientProof, Gatekeeper, RoleKind, Security, TlsNetwork},
};
use tokio_util::sync::CancellationToken;

use crate::{
    branches::Watchers,
    config::Config,
    error::ApiError,
    hub::Hub,
    metrics::NodeMetrics,
    placement::Placement,
    quorum::Quorum,
    raft::{
        identity::{Cluster, Identity},
        peer::Peers,
        reach::Reach,
        shard::SharedShard,
        shards::{ShardParts, Shards, SharedShards, StartError},
        timing::Timing,
        types::{NodeId, NodeInfo, ShardId},
    },
    storage::Storage,
};

/// One node of a cluster, or of none yet.
pub struct Node {
    /// How it was configured.
    pub config: Config,
    /// How long things may take.
    pub timing: Arc<Timing>,
    /// Who it is.
    pub identity: Arc<Identity>,
    /// Its data.
    pub storage: Storage,
    /// The other nodes.
    pub peers: Arc<Peers>,
    /// Its shards, once it belongs to a cluster.
    pub shards: SharedShards,
    /// Who answers pings.
    pub reach: Arc<Reach>,
    /// Whether a quorum answers.
    pub quorum: Arc<Quorum>,
    /// Gateways that watch this node.
    pub watchers: Arc<Watchers>,
    /// Where submissions come from, and where leaders belong.
    pub placement: Arc<Placement>,
    /// Who follows which group and inbox.
    pub hub: Arc<Hub>,
    /// Its metrics.
    pub metrics: Arc<NodeMetrics>,
    /// The time of day.
    pub clock: SharedClock,
    /// Random numbers.
    pub randomness: Randomness,
    /// Who is let in.
    pub gatekeeper: Gatekeeper,
    /// The node is about to stop: not ready any more, but still serving.
    pub drain: CancellationToken,
    /// Ends everything that serves.
    pub stop: CancellationToken,
    /// One change of the cluster at a time through this node. Changes through other nodes are kept apart by Raft.
    pub changing: tokio::sync::Mutex<()>,
    recovered: AtomicBool,
    joining: tokio::sync::Mutex<()>,
}

/// What a node takes from outside.
#[derive(Clone)]
pub struct Seams {
    /// The time of day.
    pub clock: SharedClock,
    /// Random numbers.
    pub randomness: Randomness,
    /// The network, as it is without TLS.
    pub network: SharedNetwork,
    /// How the node is secured.
    pub security: Security,
}

impl Seams {
    /// The operating system's.
    pub fn system() -> Self {
        Self {
            clock: service_kit::clock::SystemClock::shared(),
            randomness: Randomness::from_os(),
            network: service_kit::net::tcp_network(),
            security: Security::InsecureDev,
        }
    }

    /// The network that peers, gateways and operators are spoken to over: only those who show a certificate of the CA get through,
    /// and only nodes of the same trust domain are dialed.
    pub fn secured(&self) -> SharedNetwork {
        match &self.security {
            Security::InsecureDev => self.network.clone(),
            Security::Tls(credentials, _) => TlsNetwork::over(
                self.network.clone(),
                credentials.clone(),
                RoleKind::Node,
                ClientProof::Certificate,
            ),
        }
    }
}

impl Node {
    /// A node over its opened storage. Starts the shards if it belongs to a cluster.
    ///
    /// # Errors
    /// The shards can not be started from what is stored.
    pub async fn new(
        config: Config,
        storage: Storage,
        hub: Arc<Hub>,
        seams: Seams,
    ) -> Result<Arc<Self>, StartError> {
        let marker = storage.marker();
        let cluster = marker.cluster.map(|c| Cluster { id: c.cluster_id, data_shards: c.data_shards });
        let identity = Arc::new(Identity::new(marker.node_id, marker.disk_id, cluster.clone()));
        let timing = Arc::new(Timing::of(config.timing));
        let node = Arc::new(Self {
            quorum: Quorum::new(identity.clone(), timing.suspect_quorum_after),
            peers: Arc::new(Peers::new(identity.clone(), seams.secured())),
            metrics: Arc::new(NodeMetrics::new(identity.node_id)),
            reach: Arc::default(),
            watchers: Arc::default(),
            placement: Arc::default(),
            shards: SharedShards::default(),
            recovered: AtomicBool::new(false),
            changing: tokio::sync::Mutex::default(),
            joining: tokio::sync::Mutex::default(),
            drain: CancellationToken::new(),
            stop: CancellationToken::new(),
            clock: seams.clock,
            randomness: seams.randomness,
            gatekeeper: seams.security.gatekeeper(),
            identity,
            timing,
            config,
            storage,
            hub,
        });
        if let Some(cluster) = cluster {
            node.start_shards(&cluster).await?;
        }
        Ok(node)
    }

    /// Makes this node part of `cluster`; its storage is marked first. The same again changes nothing.
    ///
    /// # Errors
    /// The node belongs to another cluster, or its storage failed.
    pub async fn join(&self, cluster: Cluster) -> Result<(), StartError> {
        let _one_at_a_time = self.joining.lock().await;
        self.storage.set_cluster(&cluster.id, cluster.data_shards)?;
        self.identity.joined(cluster.clone());
        if self.shards.get().is_none() {
            self.start_shards(&cluster).await?;
            tracing::info!(cluster = %cluster.id, data_shards = cluster.data_shards, "joined a cluster");
        }
        Ok(())
    }

    async fn start_shards(&self, cluster: &Cluster) -> Result<(), StartError> {
        let parts = ShardParts {
            storage: self.storage.clone(),
            peers: self.peers.clone(),
            timing: self.timing.clone(),
            compaction: self.config.compaction.clone(),
            randomness: self.randomness.fork(),
        };
        self.shards.set(Shards::start(cluster, &parts).await?);
        Ok(())
    }

    /// The shards.
    ///
    /// # Errors
    /// The node belongs to no cluster.
    pub fn shards(&self) -> Result<&Shards, ApiError> {
        self.shards.get().ok_or(ApiError::NoCluster)
    }

    /// One shard.
    ///
    /// # Errors
    /// The node belongs to no cluster, or the cluster has no such shard.
    pub fn shard(&self, id: ShardId) -> Result<&SharedShard, ApiError> {
        let shards = self.shards()?;
        shards.get(id).ok_or_else(|| ApiError::BadField {
            field: "shard",
            expected: format!("0 to {}", shards.data_shards()),
            got: id.to_string(),
        })
    }

    /// The shards, once reading from them does not go back in time.
    ///
    /// # Errors
    /// The node belongs to no cluster, or is still catching up after its start.
    pub fn readable(&self) -> Result<&Shards, ApiError> {
        let shards = self.shards()?;
        if !self.recovered.load(Ordering::Relaxed) {
            if !shards.iter().all(|shard| shard.has_recovered()) {
                return Err(ApiError::Recovering);
            }
            self.recovered.store(true, Ordering::Relaxed);
        }
        Ok(shards)
    }

    /// This node is stopping or can not write: others should lead.
    pub fn should_not_lead(&self) -> bool {
        self.drain.is_cancelled() || self.storage.writable().is_err()
    }

    /// Gateways that are connected to this node, or to one that answers its pings.
    pub fn live_gateways(&self) -> BTreeSet<GatewayId> {
        let mut live = self.watchers.here();
        live.extend(self.reach.gateways(self.timing.alive_within()));
        live
    }

    /// Every node that a membership names.
    pub fn nodes(&self) -> BTreeMap<NodeId, NodeInfo> {
        self.shards.get().map(Shards::nodes).unwrap_or_default()
    }
}
