//! How a node is configured.

use std::path::PathBuf;

use crate::raft::{
    timing::{Compaction, Profile},
    types::NodeId,
};

/// The configuration of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The node's number: at least 1, and never used twice in a cluster.
    pub node_id: NodeId,
    /// Where its data lives. Created if it does not exist.
    pub data_dir: PathBuf,
    /// host:port that gateways and operators connect to. Port 0 takes a free one.
    pub listen: String,
    /// host:port that other nodes connect to. Port 0 takes a free one.
    pub peer_listen: String,
    /// host:port of /livez, /readyz and /metrics; None for no such listener.
    pub admin_listen: Option<String>,
    /// How far apart the nodes are.
    pub timing: Profile,
    /// When logs are compacted.
    pub compaction: Compaction,
}

impl Config {
    /// A node on loopback with free ports, for one process and for tests.
    pub fn local(node_id: NodeId, data_dir: PathBuf) -> Self {
        Self {
            node_id,
            data_dir,
            listen: "127.0.0.1:0".into(),
            peer_listen: "127.0.0.1:0".into(),
            admin_listen: None,
            timing: Profile::Lan,
            compaction: Compaction::default(),
        }
    }
}
