//! A running node: assembled from its parts, served, and stopped in order.

use std::{io, net::SocketAddr, sync::Arc};

use concordat_proto::{
    FILE_DESCRIPTOR_SET,
    ordering::v1::{admin_server::AdminServer, ordering_server::OrderingServer},
    raft::v1::peers_server::PeersServer,
};
use service_kit::{
    admin::{Readiness, ReadinessPart, serve as serve_admin},
    net::{Incoming, SharedNetwork},
    tls::RoleKind,
};
use tokio::{
    task::JoinSet,
    time::{Instant, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, service::interceptor::InterceptedService, transport::Server as Grpc};
use tonic_health::server::HealthReporter;

use crate::{
    api::{admin::AdminApi, ordering::OrderingApi, peers::PeersApi, submit::Desk},
    branches::keeper,
    cluster::{admit, change, hand_over},
    config::Config,
    hub::Hub,
    limits,
    metrics::{self, APPLY_LAG, LAST_LOG_INDEX, PEERS_REACHABLE, PURGED_INDEX},
    node::Node,
    placement,
    raft::{shards::StartError, types::NodeId},
    retention,
    storage::{Storage, StorageOptions, stored_node_id},
};

pub use crate::node::Seams;

/// Why a node could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The storage or a shard could not be opened.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A listener could not be opened.
    #[error("cannot listen for {what}: {source}; choose another address")]
    Listen {
        /// What for.
        what: &'static str,
        /// The system's words.
        source: io::Error,
    },
    /// A listener's settings were refused.
    #[error("cannot serve: {0}")]
    Serve(String),
}

/// A node that is to be started.
pub struct Server;

/// A node that runs.
pub struct Running {
    node: Arc<Node>,
    readiness: Readiness,
    addresses: Addresses,
    /// Ends the node's own tasks and its listeners, after everything that needs them.
    end: CancellationToken,
    tasks: JoinSet<()>,
}

/// Where a running node listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// For gateways and operators.
    pub api: SocketAddr,
    /// For other nodes.
    pub peers: SocketAddr,
    /// For probes and metrics.
    pub admin: Option<SocketAddr>,
}

impl Server {
    /// Opens the storage and serves.
    ///
    /// # Errors
    /// Storage that can not be used, or addresses that can not be listened on.
    pub async fn start(config: Config, seams: Seams) -> Result<Running, ServeError> {
        // The recorder comes first: what is described or counted before it is installed is lost.
        let recorder = service_kit::metrics::recorder().map_err(|e| ServeError::Serve(e.to_string()))?;
        metrics::describe();
        service_kit::tls::describe();
        let readiness = Readiness::new();
        let mut tasks = JoinSet::new();
        let end = CancellationToken::new();
        // Probes are answered while the storage is opened, which can take a while.
        let probes = match &config.admin_listen {
            Some(address) => Some(listen(&seams.network, "probes and metrics", address).await?),
            None => None,
        };
        let admin = probes.as_ref().map(Incoming::local_addr);
        if let Some(incoming) = probes {
            let (readiness, end) = (readiness.clone(), end.clone());
            tasks.spawn(async move {
                if let Err(error) = serve_admin(incoming, readiness, recorder, end.cancelled_owned()).await {
                    tracing::error!("the admin listener ended: {error}");
                }
            });
        }
        let hub = Arc::new(Hub::default());
        let storage = open_storage(&config, &seams, hub.clone()).await?;
        let node = Node::new(config.clone(), storage, hub, seams.clone()).await?;
        // Peers and gateways are let in when they can be answered: until then they are better refused than kept waiting.
        let secured = seams.secured();
        let listeners = Listeners {
            api: listen(&secured, "gateways", &config.listen).await?,
            peers: listen(&secured, "peers", &config.peer_listen).await?,
        };
        let (api, peers) = (listeners.api.local_addr(), listeners.peers.local_addr());
        let addresses = Addresses { api, peers, admin };
        let mut running = Running { node, readiness, addresses, end, tasks };
        running.run(listeners).await;
        tracing::info!(
            node = running.node.identity.node_id,
            api = %running.addresses.api,
            peers = %running.addresses.peers,
            cluster = running.node.identity.cluster().map_or_else(|| "none yet".into(), |c| c.id),
            "serving"
        );
        Ok(running)
    }
}

async fn open_storage(config: &Config, seams: &Seams, hub: Arc<Hub>) -> Result<Storage, ServeError> {
    let dir = config.data_dir.clone();
    let node_id = match config.node_id {
        Some(node_id) => node_id,
        None => stored_node_id(&dir).map_err(StartError::from)?.unwrap_or_else(|| drawn_node_id(seams)),
    };
    let options = StorageOptions {
        observer: hub,
        block_cache_bytes: config.block_cache_bytes,
        ..StorageOptions::new(node_id, seams.randomness.bytes())
    };
    let opened = tokio::task::spawn_blocking(move || Storage::open(&dir, options)).await;
    let opened = opened.map_err(|panic| ServeError::Serve(panic.to_string()))?;
    Ok(opened.map_err(StartError::from)?)
}

/// Out of 2^32 numbers above those that people give.
fn drawn_node_id(seams: &Seams) -> NodeId {
    (1 << 32) + u64::from(u32::from_be_bytes(seams.randomness.bytes()))
}

struct Listeners {
    api: Incoming,
    peers: Incoming,
}

async fn listen(network: &SharedNetwork, what: &'static str, address: &str) -> Result<Incoming, ServeError> {
    network.listen(address.to_owned()).await.map_err(|source| ServeError::Listen { what, source })
}

impl Running {
    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Its parts, for processes that embed a node.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Whether it can serve.
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    async fn run(&mut self, listeners: Listeners) {
        let (node, end) = (self.node.clone(), self.end.clone());
        let nodes = node.clone();
        let reach = node.reach.clone().run(
            node.peers.clone(),
            node.timing.clone(),
            move || nodes.nodes(),
            end.clone(),
        );
        self.tasks.spawn(reach);
        let (quorum, shards) = (node.quorum.clone(), node.shards.clone());
        self.tasks.spawn(quorum.run(shards, node.reach.clone(), node.metrics.clone(), end.clone()));
        let desk = Desk::open(node.clone());
        let (health_reporter, health) = tonic_health::server::health_reporter();
        health_reporter.set_not_serving::<OrderingServer<OrderingApi>>().await;
        let observed =
            Observed { node: node.clone(), desk: desk.clone(), health: health_reporter, was_ready: None };
        self.tasks.spawn(observed.run(self.readiness.part("raft"), end.clone()));

        self.tasks.spawn(keeper::run(node.clone(), end.clone()));
        self.tasks.spawn(retention::run(node.clone(), end.clone()));
        self.tasks.spawn(placement::task::run(node.clone(), end.clone()));
        if let Some(join) = node.config.join.clone() {
            self.tasks.spawn(admit::ask(node.clone(), join, end.clone()));
        }
        let peers = PeersServer::new(PeersApi::new(node.clone()))
            .max_decoding_message_size(limits::PEER_MESSAGE_BYTES)
            .max_encoding_message_size(limits::PEER_MESSAGE_BYTES);
        let serving = grpc(&listeners.peers)
            .add_service(InterceptedService::new(peers, only(&node, &[RoleKind::Node])))
            .serve_with_incoming_shutdown(listeners.peers, end.clone().cancelled_owned());
        self.tasks.spawn(async move { log_end("peers", serving.await) });

        let ordering = OrderingServer::new(OrderingApi::new(desk))
            .max_decoding_message_size(limits::API_REQUEST_BYTES)
            .max_encoding_message_size(limits::API_REQUEST_BYTES);
        let (gateways, operators) = (only(&node, &[RoleKind::Gateway]), only(&node, &[RoleKind::Operator]));
        let admin =
            AdminServer::new(AdminApi::new(node)).max_decoding_message_size(limits::API_REQUEST_BYTES);
        let router = grpc(&listeners.api)
            .add_service(health)
            .add_service(InterceptedService::new(ordering, gateways))
            .add_service(InterceptedService::new(admin, operators));
        let router = match reflection() {
            Ok(reflection) => router.add_service(reflection),
            Err(error) => {
                tracing::warn!("no gRPC reflection: {error}");
                router
            }
        };
        let serving = router.serve_with_incoming_shutdown(listeners.api, end.cancelled_owned());
        self.tasks.spawn(async move { log_end("gateways", serving.await) });
    }

    /// Stops in order: not ready, leadership handed over, streams ended, storage flushed and closed. Takes at most
    /// [`limits::SHUTDOWN_TIMEOUT`] three times. When it returns the data directory can be opened again, unless somebody keeps a part
    /// of the node.
    pub async fn stop(mut self) {
        self.node.drain.cancel();
        self.readiness.part("raft").set_not_ready("stopping");
        if timeout(limits::SHUTDOWN_TIMEOUT, hand_over_all(&self.node)).await.is_err() {
            tracing::warn!("stopping without having handed over every leadership");
        }
        self.node.stop.cancel();
        self.end.cancel();
        let tasks = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(limits::SHUTDOWN_TIMEOUT, tasks).await.is_err() {
            tracing::warn!("stopping although some connections are still open");
        }
        self.tasks.shutdown().await;
        if let Some(shards) = self.node.shards.get() {
            shards.stop().await;
        }
        let (node_id, closed) = (self.node.identity.node_id, self.node.storage.closed());
        drop(self);
        // What served a connection or read for one ends by itself, in tasks and threads of its own.
        match timeout(limits::SHUTDOWN_TIMEOUT, closed).await {
            Ok(()) => tracing::info!(node = node_id, "stopped"),
            Err(_) => tracing::warn!(node = node_id, "stopped, but something still uses the data"),
        }
    }

    /// Ends when the node can not go on: its storage failed.
    pub async fn failed(&self) -> String {
        let mut ticks = interval(limits::EXPIRY_INTERVAL);
        loop {
            ticks.tick().await;
            let shards = self.node.shards.get().into_iter().flat_map(|shards| shards.iter());
            if let Some(message) = shards.filter_map(|shard| shard.metrics().running_state.err()).next() {
                return message.to_string();
            }
        }
    }
}

/// Lets in callers of these roles.
fn only(
    node: &Node,
    roles: &'static [RoleKind],
) -> impl Fn(Request<()>) -> Result<Request<()>, Status> + Clone + use<> {
    let gatekeeper = node.gatekeeper.clone();
    move |request| gatekeeper.admit(request.extensions(), roles).map(|_| request)
}

/// A server for these connections.
fn grpc(incoming: &Incoming) -> Grpc {
    Grpc::builder()
        .max_connection_age(incoming.connection_age())
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(16 << 20)
        .http2_keepalive_interval(Some(limits::KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(limits::KEEPALIVE_TIMEOUT))
        // Peers give up on requests that take long, by the dozen when this node was stalled. That is no attack.
        .http2_max_pending_accept_reset_streams(Some(limits::PENDING_RESETS))
}

fn reflection() -> Result<
    tonic_reflection::server::v1::ServerReflectionServer<impl tonic_reflection::server::v1::ServerReflection>,
    tonic_reflection::server::Error,
> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
}

fn log_end(what: &str, ended: Result<(), tonic::transport::Error>) {
    if let Err(error) = ended {
        tracing::error!("the listener for {what} ended: {error}");
    }
}

async fn hand_over_all(node: &Node) {
    let Some(shards) = node.shards.get() else { return };
    for shard in shards.iter() {
        if shard.view().leader != Some(node.identity.node_id) {
            continue;
        }
        let Some(to) = hand_over::best_successor(node, shard) else { continue };
        let deadline = Instant::now() + node.timing.election_max * 2;
        let request = concordat_proto::raft::v1::administer_request::Change::HandOver(to);
        if let Err(error) = change::carry_out(node, shard, request, deadline).await {
            tracing::info!(shard = shard.id(), "leadership was not handed over: {error}");
        }
    }
}

/// Keeps readiness and the slower metrics up to date.
struct Observed {
    node: Arc<Node>,
    desk: Arc<Desk>,
    health: HealthReporter,
    was_ready: Option<bool>,
}

impl Observed {
    async fn run(mut self, part: ReadinessPart, end: CancellationToken) {
        let mut ticks = interval(limits::OBSERVE_INTERVAL);
        let mut handed_over = None::<Instant>;
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                _ = ticks.tick() => {}
            }
            self.tell_readiness(&part).await;
            self.record();
            // Others can still write, so this node should not lead.
            let recently = handed_over.is_some_and(|at| at.elapsed() < limits::HAND_OVER_INTERVAL);
            if !recently && self.node.storage.writable().is_err() {
                handed_over = Some(Instant::now());
                let node = self.node.clone();
                tokio::spawn(async move { hand_over_all(&node).await });
            }
        }
    }

    async fn tell_readiness(&mut self, part: &ReadinessPart) {
        let reason =
            if self.node.drain.is_cancelled() { Some("stopping".into()) } else { why_not_ready(&self.node) };
        let ready = reason.is_none();
        match reason {
            None => part.set_ready(),
            Some(reason) => part.set_not_ready(reason),
        }
        if self.was_ready.replace(ready) != Some(ready) {
            match ready {
                true => self.health.set_serving::<OrderingServer<OrderingApi>>().await,
                false => self.health.set_not_serving::<OrderingServer<OrderingApi>>().await,
            }
        }
    }

    fn record(&self) {
        let node = &self.node;
        self.desk.record_load();
        node.metrics.subscriptions.set(node.hub.count() as f64);
        let reachable = node.reach.reachable(node.timing.suspect_quorum_after).len();
        node.metrics.node(PEERS_REACHABLE).set(reachable as f64);
        for shard in node.shards.get().into_iter().flat_map(|shards| shards.iter()) {
            let raft = shard.metrics();
            let applied = raft.last_applied.map_or(0, |id| id.index);
            let committed = raft.cluster_committed.map_or(0, |id| id.index);
            node.metrics.shard(APPLY_LAG, shard.id()).set(committed.saturating_sub(applied) as f64);
            node.metrics.shard(LAST_LOG_INDEX, shard.id()).set(raft.last_log_index.unwrap_or(0) as f64);
            node.metrics.shard(PURGED_INDEX, shard.id()).set(raft.purged.map_or(0, |id| id.index) as f64);
        }
    }
}

fn why_not_ready(node: &Node) -> Option<String> {
    if let Err(error) = node.storage.writable() {
        return Some(error.to_string());
    }
    let shards = match node.readable() {
        Ok(shards) => shards,
        Err(error) => return Some(error.to_string()),
    };
    let leaderless = shards.iter().find(|shard| shard.view().leader.is_none());
    leaderless.map(|shard| format!("no leader is known for shard {}", shard.id()))
}
