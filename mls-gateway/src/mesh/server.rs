//! A gateway without a cluster: its streams, its API, the API for other gateways, and its links to them.

use std::{net::SocketAddr, sync::Arc};

use concordat_proto::{FILE_DESCRIPTOR_SET, gateway::v1::dimls_groups_server::DimlsGroupsServer};
use service_kit::{
    admin::{self, Readiness},
    clock::SystemClock,
    metrics::{RecorderError, recorder},
    net::{Incoming, SharedNetwork},
    rng::Randomness,
    shutdown::Drain,
    tls::{Gatekeeper, RoleKind},
};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, service::interceptor::InterceptedService, transport::Server};

use super::{
    api::DimlsApi,
    exchange::Exchange,
    keep::{DimlsParts, KeepError},
    store::MeshStore,
};
use crate::{
    identity::{Authenticator, TrustMetadata},
    limits::{KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, SHUTDOWN_DEADLINE, STREAMS_PER_CONNECTION_MAX},
    metrics,
    quota::{Meter, Quotas},
};

/// Why it could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Streams can not be kept.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// Metrics could not be set up.
    #[error(transparent)]
    Metrics(#[from] RecorderError),
    /// The reflection service could not be built.
    #[error("the reflection service could not be built: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// What it is made from.
pub struct MeshParts {
    /// What keeps streams.
    pub dimls: DimlsParts,
    /// Where clients connect.
    pub incoming: Incoming,
    /// Where other gateways connect.
    pub mesh_incoming: Incoming,
    /// Where the admin endpoints are served, if they are.
    pub admin: Option<Incoming>,
    /// How other gateways are reached.
    pub network: SharedNetwork,
    /// Where the storage's id and the jitter of retries come from.
    pub rng: Randomness,
    /// Which client calls.
    pub authenticator: Arc<dyn Authenticator>,
    /// Which gateway calls.
    pub gatekeeper: Gatekeeper,
}

impl MeshParts {
    /// A gateway that believes what its callers say about who they are.
    pub fn trusting(
        dimls: DimlsParts,
        incoming: Incoming,
        mesh_incoming: Incoming,
        network: SharedNetwork,
        rng: Randomness,
    ) -> Self {
        let authenticator = Arc::new(TrustMetadata);
        let gatekeeper = Gatekeeper::open();
        Self { dimls, incoming, mesh_incoming, admin: None, network, rng, authenticator, gatekeeper }
    }
}

/// A running gateway. Dropping it ends it at once; [`MeshGateway::stop`] ends it well.
pub struct MeshGateway {
    address: SocketAddr,
    mesh_address: SocketAddr,
    store: Arc<MeshStore>,
    drain: Drain,
    tasks: Vec<AbortOnDropHandle<()>>,
}

impl MeshGateway {
    /// Starts serving. Needs nobody else.
    pub fn start(parts: MeshParts) -> Result<Self, StartError> {
        let recorder = recorder()?;
        metrics::describe();
        service_kit::tls::describe();
        let mut tasks = Vec::new();
        let store = parts.dimls.keep(&parts.network, &parts.rng, &mut tasks)?;
        let (drain, readiness) = (Drain::new(), Readiness::new());
        let (address, mesh_address) = (parts.incoming.local_addr(), parts.mesh_incoming.local_addr());
        let api = DimlsApi {
            store: Some(Arc::clone(&store)),
            authenticator: parts.authenticator,
            meter: Arc::new(Meter::new(Quotas::default(), SystemClock::shared())),
            drain: drain.clone(),
        };
        let exchange = Exchange { store: Arc::clone(&store), drain: drain.clone() };
        tasks.push(serve_clients(parts.incoming, api, drain.clone())?);
        tasks.push(serve_gateways(parts.mesh_incoming, exchange, parts.gatekeeper, drain.clone()));
        if let Some(admin) = parts.admin {
            let part = readiness.part("storage");
            part.set_ready();
            tasks.push(spawn(async move {
                let _part = part;
                let stop = std::future::pending();
                if let Err(error) = admin::serve(admin, readiness, recorder, stop).await {
                    tracing::error!(%error, "the admin endpoints cannot be served any more");
                }
            }));
        }
        Ok(Self { address, mesh_address, store, drain, tasks })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where other gateways connect.
    pub fn mesh_address(&self) -> SocketAddr {
        self.mesh_address
    }

    /// What it keeps.
    pub fn store(&self) -> &Arc<MeshStore> {
        &self.store
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
        // What they hold of the store goes with them: the folder can be opened again when this returns.
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
    }
}

/// A server for these connections.
fn server(incoming: &Incoming) -> Server {
    Server::builder()
        .max_connection_age(incoming.connection_age())
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL * 10))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT * 5))
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
}

fn serve_clients(
    incoming: Incoming,
    api: DimlsApi,
    drain: Drain,
) -> Result<AbortOnDropHandle<()>, StartError> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .with_service_name("concordat.gateway.v1.DimlsGroups")
        .build_v1()?;
    let (health, health_service) = tonic_health::server::health_reporter();
    let service = api.into_service();
    let hold = drain.hold();
    Ok(spawn(async move {
        health.set_serving::<DimlsGroupsServer<DimlsApi>>().await;
        let begun = drain.begun();
        let served = server(&incoming)
            .add_service(service)
            .add_service(health_service)
            .add_service(reflection)
            .serve_with_incoming_shutdown(incoming, begun)
            .await;
        ended("the API", served, &drain);
        drop(hold);
    }))
}

fn serve_gateways(
    incoming: Incoming,
    exchange: Exchange,
    gatekeeper: Gatekeeper,
    drain: Drain,
) -> AbortOnDropHandle<()> {
    let service = exchange.into_service(incoming.connection_age());
    let service = InterceptedService::new(service, move |request: Request<()>| {
        gatekeeper.admit(request.extensions(), &[RoleKind::Gateway]).map(|_| request)
    });
    let hold = drain.hold();
    spawn(async move {
        let begun = drain.begun();
        let served =
            server(&incoming).add_service(service).serve_with_incoming_shutdown(incoming, begun).await;
        ended("the API for other gateways", served, &drain);
        drop(hold);
    })
}

fn ended(what: &str, result: Result<(), tonic::transport::Error>, drain: &Drain) {
    if let Err(error) = result {
        tracing::error!(%error, "{what} cannot be served any more");
    }
    drain.begin();
}

fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(task))
}
