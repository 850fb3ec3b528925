//! A whole cluster: ordering nodes, gateways, their data and logs in one scratch folder.

mod admin;
mod certificates;
mod dialer;
mod node;
mod options;
mod placement;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use service_kit::tls::Role;

pub use admin::{AdminClient, AdminError};
pub use certificates::{Certificates, CertificatesError};
pub use dialer::Dialer;
use node::Ground;
pub use node::{Gateway, Node};
pub use options::{ClusterOptions, Placement};

use crate::{
    binaries::BinaryError, find_binary, limits::READY_DEADLINE, ordering::OrderingClient, ports::Ports,
    process::ServiceError, scratch::Scratch, wait::eventually,
};

/// The cluster could not be brought into the state that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A binary is missing.
    #[error(transparent)]
    Binary(#[from] BinaryError),
    /// A process did not do what it should.
    #[error(transparent)]
    Service(#[from] Box<ServiceError>),
    /// An administrative call failed.
    #[error(transparent)]
    Admin(#[from] Box<AdminError>),
    /// The machine does not play along.
    #[error("cannot prepare the cluster's scratch folder or ports: {0}")]
    Io(#[from] std::io::Error),
    /// There are no certificates.
    #[error(transparent)]
    Certificates(#[from] CertificatesError),
    /// A link could not be opened.
    #[error(transparent)]
    Link(#[from] links::LinkError),
    /// A process has no site.
    #[error("the cluster's placement names no site for {0}; add one to `Placement`")]
    NoSite(String),
    /// A condition did not come true.
    #[error(transparent)]
    Timeout(#[from] crate::wait::Timeout),
    /// No node answered.
    #[error("no node of the cluster answers")]
    NobodyAnswers,
}

impl From<ServiceError> for ClusterError {
    fn from(error: ServiceError) -> Self {
        Self::Service(Box::new(error))
    }
}

impl From<AdminError> for ClusterError {
    fn from(error: AdminError) -> Self {
        Self::Admin(Box::new(error))
    }
}

/// A running cluster. Its processes are killed and its folder removed when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    // Declared before the folder: the processes end first.
    nodes: Mutex<Vec<Arc<Node>>>,
    gateways: Mutex<Vec<Arc<Gateway>>>,
    ports: Mutex<Ports>,
    options: ClusterOptions,
    certificates: Option<Arc<Certificates>>,
    ordering_binary: PathBuf,
    gateway_binary: Option<PathBuf>,
    scratch: Mutex<Scratch>,
}

impl Cluster {
    /// Starts nodes and gateways, forms the cluster, and returns when everything is ready.
    pub async fn start(options: ClusterOptions) -> Result<Self, ClusterError> {
        let cluster = Self::prepare(options)?;
        cluster.launch().await?;
        Ok(cluster)
    }

    /// Starts what was laid out, forms the cluster, and returns when everything is ready.
    pub async fn launch(&self) -> Result<(), ClusterError> {
        for node in self.nodes() {
            node.service().start()?;
        }
        for node in self.nodes() {
            node.service().wait_live().await?;
        }
        self.bootstrap().await?;
        for node in self.nodes() {
            node.service().wait_ready().await?;
        }
        for gateway in self.gateways() {
            gateway.service().start()?;
        }
        for gateway in self.gateways() {
            gateway.service().wait_ready().await?;
        }
        Ok(())
    }

    /// Lays everything out without starting a process.
    pub fn prepare(options: ClusterOptions) -> Result<Self, ClusterError> {
        let scratch = match &options.dir {
            Some(dir) => Scratch::kept(dir.clone())?,
            None => Scratch::temporary()?,
        };
        let (nodes, gateways) = (options.nodes, options.gateways);
        let certificates =
            options.secured.then(|| Certificates::create(scratch.path().join("certificates"))).transpose()?;
        let cluster = Self {
            nodes: Mutex::default(),
            gateways: Mutex::default(),
            ports: Mutex::new(Ports::new()),
            ordering_binary: find_binary("ordering-service")?,
            gateway_binary: if gateways > 0 { Some(find_binary("mls-gateway")?) } else { None },
            options,
            certificates,
            scratch: Mutex::new(scratch),
        };
        for id in 1..=nodes {
            cluster.lay_out_node(id)?;
        }
        for number in 1..=gateways {
            cluster.lay_out_gateway(number)?;
        }
        cluster.lay_out_relays();
        cluster.lay_out_routes()?;
        Ok(cluster)
    }

    /// Forms the cluster out of all nodes.
    pub async fn bootstrap(&self) -> Result<String, ClusterError> {
        let nodes = self.nodes();
        let first = nodes.first().ok_or(ClusterError::NobodyAnswers)?;
        for node in &nodes {
            self.wait_answering(node).await?;
        }
        Ok(first
            .admin()
            .bootstrap(nodes.iter().map(|n| n.wire_address()).collect(), self.options.data_shards)
            .await?)
    }

    /// Waits until a node's ordering API answers: it lives before that, while it opens its storage.
    async fn wait_answering(&self, node: &Node) -> Result<(), ClusterError> {
        node.service().wait_live().await?;
        let what = format!("{} to answer", node.service().name());
        Ok(eventually(what, READY_DEADLINE, async || node.admin().status().await.ok().map(drop)).await?)
    }

    /// All nodes, in the order of their ids.
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.nodes.lock().clone()
    }

    /// The node with this id. Panics if there is none.
    pub fn node(&self, id: u64) -> Arc<Node> {
        let found = self.nodes.lock().iter().find(|node| node.id() == id).cloned();
        found.unwrap_or_else(|| panic!("the cluster has no node {id}"))
    }

    /// All gateways.
    pub fn gateways(&self) -> Vec<Arc<Gateway>> {
        self.gateways.lock().clone()
    }

    /// host:port of every node's ordering API.
    pub fn ordering_addresses(&self) -> Vec<String> {
        self.nodes().iter().map(|node| node.address().to_owned()).collect()
    }

    /// host:port of every gateway's API.
    pub fn gateway_addresses(&self) -> Vec<String> {
        self.gateways().iter().map(|gateway| gateway.address().to_owned()).collect()
    }

    /// The certificates of a secured cluster.
    pub fn certificates(&self) -> Option<&Arc<Certificates>> {
        self.certificates.as_ref()
    }

    /// Whoever has this role, calling: with a certificate if the cluster is secured, else in plaintext.
    pub fn dialer(&self, role: &Role) -> Result<Dialer, ClusterError> {
        match &self.certificates {
            Some(certificates) => Ok(certificates.dialer(role)?),
            None => Ok(Dialer::plaintext()),
        }
    }

    /// A client of the ordering API, as a gateway is one.
    pub fn ordering_client(&self) -> Result<OrderingClient, ClusterError> {
        let dialer = self.dialer(&Role::Gateway("testbed".into()))?;
        Ok(OrderingClient::through(dialer, self.ordering_addresses()))
    }

    /// The folder with all data and logs.
    pub fn dir(&self) -> PathBuf {
        self.scratch.lock().path().to_owned()
    }

    /// Leaves the folder where it is when the cluster ends.
    pub fn keep_dir(&self) {
        self.scratch.lock().keep();
    }

    /// Starts one more node with an empty disk, and makes it a voter once it has caught up.
    pub async fn add_node(&self) -> Result<Arc<Node>, ClusterError> {
        let id = self.nodes().iter().map(|node| node.id()).max().unwrap_or(0) + 1;
        let node = self.lay_out_node(id)?;
        node.service().start()?;
        self.wait_answering(&node).await?;
        let admin = self.leader(0).await?.admin();
        admin.add_learner(node.wire_address()).await?;
        admin.promote(id).await?;
        node.service().wait_ready().await?;
        Ok(node)
    }

    /// Takes a node out of the cluster. Its process goes on until it is stopped.
    pub async fn remove_node(&self, id: u64) -> Result<(), ClusterError> {
        let other = self.nodes().into_iter().find(|node| node.id() != id && node.service().is_running());
        Ok(other.ok_or(ClusterError::NobodyAnswers)?.admin().remove(id).await?)
    }

    /// The node that leads `shard`, as soon as one does.
    pub async fn leader(&self, shard: u32) -> Result<Arc<Node>, ClusterError> {
        Ok(eventually(format!("a leader of shard {shard}"), READY_DEADLINE, async || {
            let id = self.current_leader(shard).await?;
            self.nodes.lock().iter().find(|node| node.id() == id && node.service().is_running()).cloned()
        })
        .await?)
    }

    /// The id of the node that leads `shard` now, by the newest term that a running node knows of.
    pub async fn current_leader(&self, shard: u32) -> Option<u64> {
        let mut newest = None;
        for node in self.nodes().iter().filter(|node| node.service().is_running()) {
            let Ok(status) = node.admin().status().await else { continue };
            for found in status.shards.iter().filter(|s| s.shard == shard && s.leader_node_id != 0) {
                newest = newest.max(Some((found.term, found.leader_node_id)));
            }
        }
        newest.map(|(_, leader)| leader)
    }

    /// Waits until every running node has applied what the furthest one has committed, in every shard.
    pub async fn wait_caught_up(&self) -> Result<(), ClusterError> {
        Ok(eventually("all nodes to apply everything", READY_DEADLINE, async || {
            let mut wanted = std::collections::BTreeMap::<u32, u64>::new();
            let mut applied = Vec::new();
            for node in self.nodes().iter().filter(|node| node.service().is_running()) {
                let status = node.admin().status().await.ok()?;
                for shard in &status.shards {
                    let most = wanted.entry(shard.shard).or_default();
                    *most = (*most).max(shard.committed_index).max(shard.applied_index);
                    applied.push((shard.shard, shard.applied_index));
                }
            }
            applied.iter().all(|(shard, index)| *index >= wanted[shard]).then_some(())
        })
        .await?)
    }

    fn lay_out_node(&self, id: u64) -> Result<Arc<Node>, ClusterError> {
        let site = self.options.site_of_node(id)?;
        let dir = self.dir();
        let ground = self.ground(&self.ordering_binary, &dir);
        let node = Arc::new(Node::lay_out(id, site, &ground, &mut self.ports.lock())?);
        self.nodes.lock().push(Arc::clone(&node));
        Ok(node)
    }

    fn lay_out_gateway(&self, number: u64) -> Result<Arc<Gateway>, ClusterError> {
        let binary = self.gateway_binary.as_deref().unwrap_or(Path::new("mls-gateway"));
        let ordering = self.ordering_addresses();
        let site = self.options.site_of_gateway(number)?;
        let dir = self.dir();
        let ground = self.ground(binary, &dir);
        let gateway = Arc::new(Gateway::lay_out(number, site, &ordering, &ground, &mut self.ports.lock())?);
        self.gateways.lock().push(Arc::clone(&gateway));
        Ok(gateway)
    }

    fn ground<'a>(&'a self, binary: &'a Path, dir: &'a Path) -> Ground<'a> {
        Ground { binary, dir, options: &self.options, certificates: self.certificates.as_deref() }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A failed test leaves its data and logs behind for whoever looks into it.
        if std::thread::panicking() {
            let scratch = self.scratch.get_mut();
            scratch.keep();
            eprintln!("the cluster's data and logs are kept in {}", scratch.path().display());
        }
    }
}
