//! All Raft groups of a node.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use service_kit::rng::Randomness;
use tokio::time::{Instant, sleep};

use super::{
    identity::Cluster,
    network::ShardNetwork,
    peer::Peers,
    shard::{Raft, Shard, SharedShard},
    timing::{Compaction, Timing, raft_config},
    types::{NodeId, NodeInfo, ShardId},
};
use crate::{
    limits::QUORUM_SAMPLE_INTERVAL,
    storage::{Storage, StorageError},
};

/// The shards, once the node belongs to a cluster.
#[derive(Clone, Default)]
pub struct SharedShards(Arc<OnceLock<Shards>>);

/// The shards of a cluster: the directory, then the data shards.
pub struct Shards(Vec<SharedShard>);

/// Why the shards could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The timings contradict one another.
    #[error("the timing is not usable: {0}")]
    Timing(#[from] openraft::ConfigError),
    /// Raft could not start from what is stored.
    #[error("shard {shard} could not start: {message}")]
    Raft {
        /// The shard.
        shard: ShardId,
        /// openraft's words.
        message: String,
    },
}

/// What shards are made of.
pub struct ShardParts {
    /// The data.
    pub storage: Storage,
    /// The other nodes.
    pub peers: Arc<Peers>,
    /// How long things may take.
    pub timing: Arc<Timing>,
    /// When logs are compacted.
    pub compaction: Compaction,
    /// For pauses.
    pub randomness: Randomness,
}

impl Shards {
    /// Opens and starts every shard of `cluster`.
    ///
    /// # Errors
    /// Storage that can not be read, or timings that make no sense.
    pub async fn start(cluster: &Cluster, parts: &ShardParts) -> Result<Self, StartError> {
        let config = Arc::new(raft_config(&parts.timing, &parts.compaction)?);
        let mut shards = Vec::new();
        for id in 0..=cluster.data_shards {
            let opened = parts.storage.shard(id)?;
            let network = ShardNetwork {
                shard: id,
                peers: parts.peers.clone(),
                timing: parts.timing.clone(),
                randomness: parts.randomness.fork(),
            };
            let node_id = parts.peers.identity().node_id;
            let raft = Raft::new(node_id, config.clone(), network, opened.log, opened.state_machine).await;
            let raft = raft.map_err(|e| StartError::Raft { shard: id, message: e.to_string() })?;
            shards.push(Arc::new(Shard::new(id, raft, opened.reader)));
        }
        Ok(Self(shards))
    }

    /// Every shard, the directory first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &SharedShard> {
        self.0.iter()
    }

    /// One shard.
    pub fn get(&self, id: ShardId) -> Option<&SharedShard> {
        self.0.get(usize::try_from(id).ok()?)
    }

    /// The directory.
    pub fn directory(&self) -> &SharedShard {
        &self.0[0]
    }

    /// How many data shards there are.
    pub fn data_shards(&self) -> u32 {
        u32::try_from(self.0.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }

    /// What the memberships say about a node; the directory's word counts first.
    pub fn node(&self, node_id: NodeId) -> Option<NodeInfo> {
        self.iter().find_map(|shard| shard.node(node_id))
    }

    /// Every node of every shard.
    pub fn nodes(&self) -> BTreeMap<NodeId, NodeInfo> {
        let mut all = BTreeMap::new();
        for shard in self.iter() {
            shard.collect_nodes(&mut all);
        }
        all
    }

    /// At least one shard has a log.
    pub fn is_formed(&self) -> bool {
        self.iter().any(|shard| shard.metrics().last_log_index.is_some())
    }

    /// Waits until no shard would show readers less than it did before the node was restarted. False if `limit` passes first.
    pub async fn recovered(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while !self.iter().all(|shard| shard.has_recovered()) {
            if Instant::now() >= deadline {
                return false;
            }
            sleep(QUORUM_SAMPLE_INTERVAL).await;
        }
        true
    }

    /// Stops every shard. What was acknowledged is on disk already.
    pub async fn stop(&self) {
        for shard in self.iter() {
            // An error means that it has stopped already.
            let _ = shard.raft().shutdown().await;
        }
    }
}

impl SharedShards {
    /// The shards, once there are any.
    pub fn get(&self) -> Option<&Shards> {
        self.0.get()
    }

    /// The node belongs to a cluster now. False if it did already.
    pub fn set(&self, shards: Shards) -> bool {
        self.0.set(shards).is_ok()
    }
}
