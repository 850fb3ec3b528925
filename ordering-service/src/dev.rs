//! A whole cluster in one process, on loopback: the embedded default, and the ground for tests.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use concordat_proto::ordering::v1::{BootstrapRequest, NodeAddress};

use crate::{
    cluster::bootstrap::{bootstrap, is_complete},
    config::Config,
    error::ApiError,
    raft::types::NodeId,
    server::{Addresses, Running, Seams, ServeError, Server},
};

/// Why the cluster could not be started.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// A node could not be started.
    #[error("node {node_id}: {source}")]
    Node {
        /// The node.
        node_id: NodeId,
        /// Why.
        source: ServeError,
    },
    /// The cluster could not be formed.
    #[error("the cluster could not be formed: {0}")]
    Bootstrap(#[from] ApiError),
    /// The file that remembers the ports can not be used.
    #[error("{path}: {source}")]
    Ports {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
}

/// The nodes of one process.
pub struct DevCluster {
    nodes: Vec<Running>,
}

impl DevCluster {
    /// Starts `nodes` nodes with their data below `dir`, and forms a cluster with `data_shards` data shards (0 for the default) out
    /// of them unless they are one already.
    ///
    /// # Errors
    /// A node that can not be started. Nodes that were started before it are dropped.
    pub async fn start(dir: &Path, nodes: u64, data_shards: u32) -> Result<Self, DevError> {
        Self::start_with(dir, nodes, data_shards, Seams::system(), |_| {}).await
    }

    /// The same with other seams, and with configurations adjusted by `adjust`.
    ///
    /// # Errors
    /// As [`DevCluster::start`].
    pub async fn start_with(
        dir: &Path,
        nodes: u64,
        data_shards: u32,
        seams: Seams,
        adjust: impl Fn(&mut Config),
    ) -> Result<Self, DevError> {
        let mut cluster = Self { nodes: Vec::new() };
        for node_id in 1..=nodes.max(1) {
            let mut config = local_config(dir, node_id)?;
            adjust(&mut config);
            cluster.nodes.push(start_node(dir, config, seams.clone()).await?);
        }
        let first = cluster.nodes[0].node();
        if !is_complete(first).await? {
            let nodes = cluster
                .nodes
                .iter()
                .map(|n| node_address(n.node().identity.node_id, n.addresses()))
                .collect();
            bootstrap(first, BootstrapRequest { nodes, data_shards }).await?;
        }
        for node in &cluster.nodes {
            node.readiness().ready().await;
        }
        Ok(cluster)
    }

    /// The nodes, by number.
    pub fn nodes(&self) -> &[Running] {
        &self.nodes
    }

    /// host:port of every node's ordering API.
    pub fn api_addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|n| n.addresses().api.to_string()).collect()
    }

    /// Stops every node in order.
    pub async fn stop(self) {
        for node in self.nodes {
            node.stop().await;
        }
    }

    /// Takes the nodes out, for whoever wants to stop and start them one by one.
    pub fn into_nodes(self) -> Vec<Running> {
        self.nodes
    }
}

/// The configuration of a node below `dir`: on the ports that it had before, or on free ones.
///
/// # Errors
/// The file that remembers the ports can not be read.
pub fn local_config(dir: &Path, node_id: NodeId) -> Result<Config, DevError> {
    let mut config = Config::local(node_id, dir.join(format!("node-{node_id}")));
    let path = ports_file(dir, node_id);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let mut ports = text.split_whitespace();
            if let (Some(api), Some(peers)) = (ports.next(), ports.next()) {
                config.listen = format!("127.0.0.1:{api}");
                config.peer_listen = format!("127.0.0.1:{peers}");
            }
            Ok(config)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(config),
        Err(source) => Err(DevError::Ports { path, source }),
    }
}

/// Starts one node, and remembers its ports: the cluster's membership names them.
///
/// # Errors
/// The node can not be started.
pub async fn start_node(dir: &Path, config: Config, seams: Seams) -> Result<Running, DevError> {
    let node_id = config.node_id.unwrap_or_default();
    let node = Server::start(config, seams).await.map_err(|source| DevError::Node { node_id, source })?;
    let path = ports_file(dir, node_id);
    let ports = format!("{} {}\n", node.addresses().api.port(), node.addresses().peers.port());
    fs::write(&path, ports).map_err(|source| DevError::Ports { path, source })?;
    Ok(node)
}

/// How a node's addresses are told to the cluster.
pub fn node_address(node_id: NodeId, addresses: Addresses) -> NodeAddress {
    NodeAddress {
        node_id,
        peer_address: addresses.peers.to_string(),
        address: addresses.api.to_string(),
        site: String::new(),
    }
}

fn ports_file(dir: &Path, node_id: NodeId) -> PathBuf {
    dir.join(format!("node-{node_id}.ports"))
}
