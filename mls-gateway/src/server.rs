//! Puts the parts of a gateway together, serves them, and takes them down again.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use concordat_proto::{FILE_DESCRIPTOR_SET, gateway::v1::gateway_server::GatewayServer};
use service_kit::{
    admin::{self, Readiness, ReadinessPart},
    clock::{SharedClock, SystemClock},
    metrics::{RecorderError, recorder},
    net::{Incoming, SharedNetwork},
    rng::Randomness,
    shutdown::Drain,
    tls::Gatekeeper,
};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Server;

use crate::{
    access::Access,
    api::Api,
    cluster::Cluster,
    demls::{
        Keeping, Registry, Times,
        path::Paths,
        store::{Store, StoreError},
    },
    fanout::Fanout,
    identity::{Authenticator, TrustMetadata},
    limits::{
        CLIENT_MESSAGE_BYTES_MAX, CLUSTER_MESSAGE_BYTES_MAX, DIRECTORY_SHARD, KEEP_ALIVE_INTERVAL,
        KEEP_ALIVE_TIMEOUT, SHUTDOWN_DEADLINE, STREAMS_PER_CONNECTION_MAX,
    },
    mesh::{DimlsParts, KeepError, api::DimlsApi, exchange::Exchange},
    metrics,
    mls::Validator,
    modes::Mode,
    quota::{Meter, Quotas},
    relay::{self, Relay, RelayApi, listen_to_peers},
};

/// Why a gateway could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No ordering node was named.
    #[error("no ordering node is named; name at least one with --ordering host:port")]
    NoOrderingNode,
    /// The storage can not be used.
    #[error(transparent)]
    Storage(#[from] StoreError),
    /// DiMLS groups can not be kept.
    #[error(transparent)]
    Dimls(#[from] KeepError),
    /// A peer's address can not be used.
    #[error("a relay address is not usable ({0}); expected host:port")]
    Peer(tonic::transport::Error),
    /// Metrics could not be set up.
    #[error(transparent)]
    Metrics(#[from] RecorderError),
    /// The reflection service could not be built.
    #[error("the reflection service could not be built: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// What a gateway is made from.
pub struct Parts {
    /// host:port of ordering nodes, at least one; those that they name as leaders are learnt.
    pub ordering: Vec<String>,
    /// The site that it stands at, as the nodes' memberships name theirs; empty if it does not say.
    pub site: String,
    /// Where clients connect.
    pub incoming: Incoming,
    /// Where the admin endpoints are served, if they are.
    pub admin: Option<Incoming>,
    /// How nodes are reached.
    pub network: SharedNetwork,
    /// Where claim ids and the jitter of retries come from.
    pub rng: Randomness,
    /// Which client calls.
    pub authenticator: Arc<dyn Authenticator>,
    /// What it serves DeMLS groups with, if it does.
    pub demls: Option<DemlsParts>,
    /// Groups are for their members only. Off in development, where clients are who they say they are.
    pub members_only: bool,
    /// What clients and groups may use.
    pub quotas: Quotas,
    /// What it serves DiMLS groups with, if it does. Other gateways reach them at the relay.
    pub dimls: Option<DimlsParts>,
    /// The time of day.
    pub clock: SharedClock,
}

/// What a gateway serves DeMLS groups with.
pub struct DemlsParts {
    /// Where it keeps what it must not forget.
    pub data_dir: PathBuf,
    /// When it believes what.
    pub times: Times,
    /// Where other gateways connect, if they do.
    pub relay: Option<Incoming>,
    /// host:port of other gateways' relays.
    pub peers: Vec<String>,
    /// How other gateways are reached, if not as nodes are.
    pub network: Option<SharedNetwork>,
    /// Which callers of the relay are gateways.
    pub gatekeeper: Gatekeeper,
    /// How much it keeps of each group.
    pub keeping: Keeping,
}

impl DemlsParts {
    /// Data in `data_dir`, the times of a local network, no other gateways, everything in plaintext.
    pub fn new(data_dir: PathBuf) -> Self {
        Self {
            data_dir,
            times: Times::default(),
            relay: None,
            peers: Vec::new(),
            network: None,
            gatekeeper: Gatekeeper::open(),
            keeping: Keeping::default(),
        }
    }
}

impl Parts {
    /// A gateway that believes what its callers say about who they are: for development on loopback.
    pub fn new(ordering: Vec<String>, incoming: Incoming, network: SharedNetwork, rng: Randomness) -> Self {
        Self {
            ordering,
            site: String::new(),
            incoming,
            admin: None,
            network,
            rng,
            authenticator: Arc::new(TrustMetadata),
            demls: None,
            members_only: false,
            quotas: Quotas::default(),
            dimls: None,
            clock: SystemClock::shared(),
        }
    }
}

/// A running gateway. Dropping it ends it at once; [`Gateway::stop`] ends it well.
pub struct Gateway {
    address: SocketAddr,
    admin_address: Option<SocketAddr>,
    drain: Drain,
    readiness: Readiness,
    api: Api,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Gateway {
    /// Starts serving. Does not wait for the cluster: until it is there, calls fail with a hint to try again.
    pub fn start(parts: Parts) -> Result<Self, StartError> {
        if parts.ordering.is_empty() {
            return Err(StartError::NoOrderingNode);
        }
        let recorder = recorder()?;
        metrics::begin();
        service_kit::tls::describe();
        let (drain, readiness) = (Drain::new(), Readiness::new());
        let store = match &parts.demls {
            Some(demls) => Some(Arc::new(Store::open(&demls.data_dir, &parts.rng)?)),
            None => None,
        };
        let gateway_id = store.as_ref().map(|store| store.gateway_id());
        let network = Arc::clone(&parts.network);
        let (rng, site) = (&parts.rng, &parts.site);
        let cluster = Arc::new(Cluster::connect(&parts.ordering, parts.network, rng, gateway_id, site));
        let (fanout, sweeper) = Fanout::start(Arc::clone(&cluster));
        let mut tasks = vec![sweeper];
        let gateways =
            parts.demls.as_ref().and_then(|demls| demls.network.clone()).unwrap_or(network.clone());
        let streams = match parts.dimls {
            Some(dimls) => Some(dimls.keep(&gateways, &parts.rng, &mut tasks)?),
            None => None,
        };
        let mesh = streams.clone().map(|store| Exchange { store, drain: drain.clone() });
        let demls = match (parts.demls, store) {
            (Some(parts), Some(store)) => {
                Some(start_demls(parts, store, mesh, &cluster, &network, &drain, &mut tasks)?)
            }
            _ => None,
        };
        let validator = Arc::new(Validator::new(Arc::clone(&cluster.reader) as _));
        let access =
            parts.members_only.then(|| Arc::new(Access::new(Arc::clone(&validator), Arc::clone(&fanout))));
        let meter = Arc::new(Meter::new(parts.quotas, Arc::clone(&parts.clock)));
        let dimls = DimlsApi {
            store: streams,
            authenticator: Arc::clone(&parts.authenticator),
            meter: Arc::clone(&meter),
            drain: drain.clone(),
        };
        let api = Api {
            validator,
            access,
            cluster,
            fanout,
            demls,
            meter,
            authenticator: parts.authenticator,
            clock: parts.clock,
            rng: parts.rng,
            drain: drain.clone(),
        };
        let (address, admin_address) =
            (parts.incoming.local_addr(), parts.admin.as_ref().map(Incoming::local_addr));
        tasks.push(serve(parts.incoming, api.clone(), dimls, drain.clone())?);
        tasks.push(spawn(watch_readiness(readiness.part("cluster"), api.clone(), drain.clone())));
        if let Some(admin) = parts.admin {
            let (readiness, drain) = (readiness.clone(), drain.clone());
            tasks.push(spawn(async move {
                // Served until the very end, so that a probe can see that the process is not ready any more.
                let stop = std::future::pending();
                log_end("the admin endpoints", admin::serve(admin, readiness, recorder, stop).await, &drain);
            }));
        }
        Ok(Self { address, admin_address, drain, readiness, api, _tasks: tasks })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the admin endpoints are.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// Completes when the gateway can serve.
    pub async fn ready(&self) {
        self.readiness.ready().await;
    }

    /// Groups that are followed upstream.
    pub fn followed_groups(&self) -> usize {
        self.api.fanout.followed_groups()
    }

    /// Its DeMLS groups, if it serves any.
    pub fn demls(&self) -> Option<&Arc<Registry>> {
        self.api.demls.as_ref()
    }

    /// Completes when the gateway has begun to stop, which it also does if it cannot serve any more.
    pub async fn stopping(&self) {
        self.drain.begun().await;
    }

    /// Takes no new calls, ends streams with a status that says to go on elsewhere, lets calls under way finish.
    pub async fn stop(self) {
        if let Err(unfinished) = self.drain.finish(SHUTDOWN_DEADLINE).await {
            tracing::warn!(%unfinished, "stopping anyway");
        }
    }
}

fn serve(
    incoming: Incoming,
    api: Api,
    dimls: DimlsApi,
    drain: Drain,
) -> Result<AbortOnDropHandle<()>, StartError> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name("concordat.gateway.v1.Gateway")
        .with_service_name("concordat.gateway.v1.DimlsGroups")
        .with_service_name("grpc.health.v1.Health")
        .build_v1()?;
    let (health, health_service) = tonic_health::server::health_reporter();
    let service = GatewayServer::new(api)
        .max_decoding_message_size(CLIENT_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(CLUSTER_MESSAGE_BYTES_MAX);
    let hold = drain.hold();
    Ok(spawn(async move {
        health.set_serving::<GatewayServer<Api>>().await;
        let begun = drain.begun();
        let stop = async move {
            begun.await;
            health.set_not_serving::<GatewayServer<Api>>().await;
        };
        let served = Server::builder()
            .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL * 10))
            .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT * 5))
            .http2_adaptive_window(Some(true))
            .max_connection_age(incoming.connection_age())
            .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
            .add_service(service)
            .add_service(dimls.into_service())
            .add_service(health_service)
            .add_service(reflection)
            .serve_with_incoming_shutdown(incoming, stop)
            .await;
        log_end("the API", served.map_err(io::Error::other), &drain);
        drop(hold);
    }))
}

/// Takes up the DeMLS groups of the storage, and the links to other gateways, which also get what they ask `mesh` for.
fn start_demls(
    parts: DemlsParts,
    store: Arc<Store>,
    mesh: Option<Exchange>,
    cluster: &Arc<Cluster>,
    network: &SharedNetwork,
    drain: &Drain,
    tasks: &mut Vec<AbortOnDropHandle<()>>,
) -> Result<Arc<Registry>, StartError> {
    let (bound, cluster_id) = watch::channel(store.cluster());
    let relay = Relay::new(store.gateway_id(), cluster_id);
    let (paths, looking) = Paths::start(Arc::clone(cluster), Arc::clone(&relay), parts.times.quorum_ttl);
    let registry = Registry::start(Arc::clone(&store), paths, parts.times, parts.keeping)?;
    tasks.push(looking);
    tasks.push(spawn(bind(store, cluster.board.cluster_id(), bound, drain.clone())));
    let address = parts.relay.as_ref().map(|relay| relay.local_addr().to_string()).unwrap_or_default();
    let network = parts.network.as_ref().unwrap_or(network);
    let peers = listen_to_peers(&relay, &registry, &parts.peers, network, &address);
    tasks.extend(peers.map_err(StartError::Peer)?);
    if let Some(incoming) = parts.relay {
        let api = RelayApi::new(relay, Arc::clone(&registry), address);
        let (served, drain) =
            (relay::serve(incoming, api, mesh, parts.gatekeeper, drain.clone()), drain.clone());
        tasks.push(spawn(async move { log_end("the relay", served.await, &drain) }));
    }
    Ok(registry)
}

/// Ties the storage to the cluster that the nodes belong to. With another one's data a gateway does not go on.
async fn bind(
    store: Arc<Store>,
    mut cluster_id: watch::Receiver<Option<String>>,
    bound: watch::Sender<Option<String>>,
    drain: Drain,
) {
    loop {
        let Ok(Some(id)) = cluster_id.wait_for(Option::is_some).await.map(|id| id.clone()) else { return };
        let (named, binding) = (id.clone(), Arc::clone(&store));
        match tokio::task::spawn_blocking(move || binding.bind(&named)).await {
            Ok(Ok(())) => _ = bound.send_replace(Some(id)),
            Ok(Err(error)) => {
                tracing::error!(%error, "this gateway can not go on");
                return drain.begin();
            }
            Err(_) => return,
        }
        if cluster_id.changed().await.is_err() {
            return;
        }
    }
}

/// Ready from the first quorum on. Losing it later does not make a gateway less ready: it still answers reads, and tells its clients
/// what is going on.
async fn watch_readiness(part: ReadinessPart, api: Api, drain: Drain) {
    part.set_not_ready("no ordering node has reported a quorum yet");
    let mut mode = api.cluster.modes.watch(DIRECTORY_SHARD);
    tokio::select! {
        _ = mode.wait_for(|mode| *mode == Mode::Ordered) => part.set_ready(),
        () = drain.begun() => {}
    }
    drain.begun().await;
    part.set_not_ready("stopping");
}

fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(task))
}

fn log_end(what: &str, result: io::Result<()>, drain: &Drain) {
    if let Err(error) = result {
        tracing::error!(%error, "{what} cannot be served any more");
    }
    // Without this part the process makes no sense.
    drain.begin();
}
