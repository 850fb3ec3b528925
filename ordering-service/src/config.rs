//! How a node is configured.

use std::path::PathBuf;

use crate::{
    branches::Waits,
    placement::Placing,
    raft::{
        timing::{Compaction, Profile},
        types::NodeId,
    },
    retention::Keeping,
    storage::limits::BLOCK_CACHE_BYTES,
};

/// The configuration of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The node's number: at least 1, and never used twice in a cluster. Without one, the number that the data directory was begun
    /// with; a number is drawn at random for an empty one.
    pub node_id: Option<NodeId>,
    /// Where its data lives. Created if it does not exist.
    pub data_dir: PathBuf,
    /// host:port that gateways and operators connect to. Port 0 takes a free one.
    pub listen: String,
    /// host:port that other nodes connect to. Port 0 takes a free one.
    pub peer_listen: String,
    /// host:port of /livez, /readyz and /metrics; None for no such listener.
    pub admin_listen: Option<String>,
    /// How the node becomes a member without an operator; None if it waits for one.
    pub join: Option<Join>,
    /// How far apart the nodes are.
    pub timing: Profile,
    /// When logs are compacted.
    pub compaction: Compaction,
    /// Blocks of the database kept in memory, in bytes.
    pub block_cache_bytes: usize,
    /// How long a leader waits for gateways.
    pub waits: Waits,
    /// What is kept of groups' logs.
    pub keeping: Keeping,
    /// Where leaders belong.
    pub placing: Placing,
}

/// How a node becomes a member by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// host:port for peers of nodes that may be members already.
    pub seeds: Vec<String>,
    /// host:port where this node's peers reach it.
    pub peer_address: String,
    /// host:port where gateways and operators reach it.
    pub address: String,
    /// The place with its own network that it stands in. May be empty.
    pub site: String,
}

impl Config {
    /// A node on loopback with free ports, for one process and for tests.
    pub fn local(node_id: NodeId, data_dir: PathBuf) -> Self {
        Self {
            node_id: Some(node_id),
            data_dir,
            listen: "127.0.0.1:0".into(),
            peer_listen: "127.0.0.1:0".into(),
            admin_listen: None,
            join: None,
            timing: Profile::Lan,
            compaction: Compaction::default(),
            block_cache_bytes: BLOCK_CACHE_BYTES,
            waits: Waits::default(),
            keeping: Keeping::default(),
            placing: Placing::default(),
        }
    }
}
