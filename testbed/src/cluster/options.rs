//! What a cluster is made of.

use std::{collections::BTreeMap, path::PathBuf};

/// What to start.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// Ordering nodes, with the ids 1, 2, ...
    pub nodes: u64,
    /// Gateways.
    pub gateways: u64,
    /// Data shards.
    pub data_shards: u32,
    /// More arguments for every `ordering-service serve`.
    pub node_args: Vec<String>,
    /// More arguments for every `mls-gateway serve`.
    pub gateway_args: Vec<String>,
    /// Environment of every process.
    pub env: BTreeMap<String, String>,
    /// Where data and logs go, and stay. Without it: a temporary folder.
    pub dir: Option<PathBuf>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            nodes: 3,
            gateways: 0,
            data_shards: 2,
            node_args: Vec::new(),
            gateway_args: Vec::new(),
            env: BTreeMap::new(),
            dir: None,
        }
    }
}
