//! The command line.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use service_kit::{
    loopback::plaintext_listen_address,
    net::{Incoming, SharedNetwork, tcp_network},
    resolve::{Route, routed},
    rng::Randomness,
    shutdown::signal,
};

use crate::{
    dev,
    server::{Gateway, Parts},
};

const REMEDY: &str = "--insecure-plaintext";

/// The public side of Concordat, a delivery service for MLS groups.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// Log JSON instead of text. CONCORDAT_LOG sets the filter.
    #[arg(long, global = true, env = "CONCORDAT_LOG_JSON")]
    pub log_json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve clients, in front of a cluster of ordering nodes.
    Serve(Serve),
    /// Run a whole cluster of three nodes and a gateway in this process, on loopback.
    Dev(Dev),
}

/// How to serve.
#[derive(Debug, Args)]
pub struct Serve {
    /// host:port where clients connect.
    #[arg(long, env = "CONCORDAT_LISTEN", default_value = "127.0.0.1:7400")]
    pub listen: String,
    /// host:port of /livez, /readyz and /metrics.
    #[arg(long, env = "CONCORDAT_ADMIN_LISTEN", default_value = "127.0.0.1:7401")]
    pub admin_listen: String,
    /// host:port of the ordering API of a node; several are better. Separate them by commas in the environment.
    #[arg(long, env = "CONCORDAT_ORDERING", value_delimiter = ',', num_args = 1.., required = true)]
    pub ordering: Vec<String>,
    /// Where the gateway may keep data. It keeps none as long as it has a quorum.
    #[arg(long, env = "CONCORDAT_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Reach an ordering node's or gateway's address in another way than it is known by, such as through a forwarded port. Repeat for
    /// each; separate them by commas in the environment.
    #[arg(
        long = "resolve",
        env = "CONCORDAT_RESOLVE",
        value_delimiter = ',',
        value_name = "ADDRESS=INSTEAD"
    )]
    pub routes: Vec<Route>,
    /// Accept connections without TLS from other machines, too.
    #[arg(long, env = "CONCORDAT_INSECURE_PLAINTEXT")]
    pub insecure_plaintext: bool,
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
}

impl Cli {
    /// Runs until the process is told to stop.
    pub async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Serve(serve) => serve.run().await,
            Command::Dev(dev) => dev::run(dev).await,
        }
    }
}

impl Serve {
    async fn run(self) -> anyhow::Result<()> {
        let network = routed(tcp_network(), self.routes);
        let incoming = listen(&network, "API", &self.listen, self.insecure_plaintext).await?;
        let admin = listen(&network, "admin", &self.admin_listen, self.insecure_plaintext).await?;
        let mut parts = Parts::new(self.ordering, incoming, network, Randomness::from_os());
        parts.admin = Some(admin);
        let gateway = Gateway::start(parts)?;
        tracing::info!(address = %gateway.address(), "serving clients");
        until_told_to_stop(&gateway).await?;
        gateway.stop().await;
        Ok(())
    }
}

pub(crate) async fn listen(
    network: &SharedNetwork,
    what: &'static str,
    address: &str,
    insecure_plaintext: bool,
) -> anyhow::Result<Incoming> {
    let address = plaintext_listen_address(what, address, insecure_plaintext, REMEDY).await?;
    network
        .listen(address.to_string())
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
