//! The command line.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use service_kit::{
    loopback::loopback_address,
    net::{Incoming, SharedNetwork, tcp_network},
    resolve::routed,
    rng::Randomness,
    settings::Given,
    shutdown::signal,
    telemetry,
};

use crate::{
    demls::Times,
    dev,
    mesh::{self, DimlsParts},
    secured::Secured,
    server::{DemlsParts, Gateway, Parts},
    settings::Settings,
};

/// What is logged unless CONCORDAT_LOG says otherwise.
pub(crate) const LOG_FILTER: &str = "info,openraft=error";

/// The public side of Concordat, a delivery service for MLS groups.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve clients, in front of a cluster of ordering nodes.
    Serve(Box<Given<Settings>>),
    /// Run a whole cluster of three nodes and a gateway in this process, on loopback.
    Dev(Dev),
    /// Serve DiMLS groups alone, without any ordering node, together with other gateways that are reached now and then.
    Mesh(Box<mesh::cli::Mesh>),
}

/// How to run a cluster of one's own.
#[derive(Debug, Args)]
pub struct Dev {
    /// host:port where clients connect; loopback only.
    #[arg(long, env = "CONCORDAT_LISTEN", default_value = "127.0.0.1:7400")]
    pub listen: String,
    /// Where the cluster keeps its data. Without it, a folder that is deleted in the end.
    #[arg(long, env = "CONCORDAT_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Log JSON instead of text. CONCORDAT_LOG sets the filter.
    #[arg(long, env = "CONCORDAT_LOG_JSON")]
    pub log_json: bool,
}

impl Cli {
    /// Runs until the process is told to stop.
    pub async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Serve(serve) => run_gateway(*serve).await,
            Command::Mesh(mesh) => mesh.run().await,
            Command::Dev(dev) => {
                telemetry::init(dev.log_json, LOG_FILTER)?;
                dev::run(dev).await
            }
        }
    }
}

async fn run_gateway(given: Given<Settings>) -> anyhow::Result<()> {
    let Some(settings) = given.in_force(&Settings::defaults(), Settings::config)? else { return Ok(()) };
    telemetry::init(settings.log_json.unwrap_or_default(), LOG_FILTER)?;
    let config = settings.config()?;
    // Before the certificates are read: what is told before the recorder is there is lost.
    service_kit::metrics::recorder()?;
    let network = routed(tcp_network(), config.routes);
    let secured = Secured::new(network.clone(), &config.tls, &config.clients)?;
    let incoming = listen(&secured.clients, "API", &config.listen, secured.is_insecure()).await?;
    let admin = listen(&network, "admin", &config.admin_listen, secured.is_insecure()).await?;
    let relay = match &config.relay_listen {
        Some(address) => Some(listen(&secured.gateways, "relay", address, secured.is_insecure()).await?),
        None => None,
    };
    let mut parts = Parts::new(config.ordering, incoming, secured.nodes, Randomness::from_os());
    parts.site = config.site;
    parts.admin = Some(admin);
    parts.members_only = !secured.gatekeeper.is_open();
    parts.quotas = config.quotas;
    parts.authenticator = secured.authenticator;
    parts.dimls = config.data_dir.as_ref().map(|data_dir| DimlsParts {
        bounds: config.mesh_bounds,
        // What serves as a relay also has the streams of DiMLS groups.
        peers: config.relay.iter().chain(&config.mesh_peers).cloned().collect(),
        ..DimlsParts::new(data_dir.join("dimls"))
    });
    parts.demls = config.data_dir.map(|data_dir| DemlsParts {
        times: Times::of(config.profile),
        relay,
        peers: config.relay,
        network: Some(secured.gateways),
        gatekeeper: secured.gatekeeper,
        ..DemlsParts::new(data_dir)
    });
    let gateway = Gateway::start(parts)?;
    tracing::info!(address = %gateway.address(), "serving clients");
    until_told_to_stop(&gateway).await?;
    gateway.stop().await;
    Ok(())
}

pub(crate) async fn listen(
    network: &SharedNetwork,
    what: &'static str,
    address: &str,
    loopback_only: bool,
) -> anyhow::Result<Incoming> {
    if loopback_only {
        loopback_address(what, address).await?;
    }
    network
        .listen(address.to_owned())
        .await
        .with_context(|| format!("cannot serve the {what}; choose another address"))
}

pub(crate) async fn until_told_to_stop(gateway: &Gateway) -> anyhow::Result<()> {
    tokio::select! {
        name = signal() => tracing::info!(signal = name?, "stopping"),
        () = gateway.stopping() => anyhow::bail!("the gateway cannot serve any more; its log says why"),
    }
    Ok(())
}
