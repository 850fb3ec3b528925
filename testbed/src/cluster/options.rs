//! What a cluster is made of.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use links::Links;

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
    /// All processes show certificates of a CA of the cluster's own and want to see some, as in production. Without it: plaintext,
    /// and callers are believed.
    pub secured: bool,
    /// Environment of every process.
    pub env: BTreeMap<String, String>,
    /// Where data and logs go, and stay. Without it: a temporary folder.
    pub dir: Option<PathBuf>,
    /// The sites that the processes stand at. Without it: all at one.
    pub placement: Option<Placement>,
}

/// Where the processes stand. Those of different sites reach one another over the links between their sites; clients and tests connect
/// directly, unless they open a link themselves.
#[derive(Debug, Clone)]
pub struct Placement {
    /// The links between the sites.
    pub links: Arc<Links>,
    /// The site of each node, in the order of their ids.
    pub nodes: Vec<String>,
    /// The site of each gateway.
    pub gateways: Vec<String>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            nodes: 3,
            gateways: 0,
            data_shards: 2,
            node_args: Vec::new(),
            gateway_args: Vec::new(),
            secured: false,
            env: BTreeMap::new(),
            dir: None,
            placement: None,
        }
    }
}
