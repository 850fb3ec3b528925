//! `mls-gateway mesh`.

use std::path::PathBuf;

use clap::Args;
use service_kit::{
    net::tcp_network,
    resolve::{Route, routed},
    rng::Randomness,
    shutdown::signal,
    telemetry,
    tls::TlsArgs,
};

use super::{
    Bounds, DimlsParts, MeshGateway, MeshParts,
    limits::{STREAM_BYTES_MAX, TOTAL_BYTES_MAX},
};
use crate::{
    cli::{LOG_FILTER, listen},
    secured::{ClientArgs, Secured, TOKEN_AUDIENCE},
};

/// How to run a gateway without a cluster.
#[derive(Debug, Args)]
pub struct Mesh {
    /// host:port where clients connect.
    #[arg(long, env = "CONCORDAT_LISTEN", default_value = "127.0.0.1:7400")]
    pub listen: String,
    /// host:port of /livez, /readyz and /metrics.
    #[arg(long, env = "CONCORDAT_ADMIN_LISTEN", default_value = "127.0.0.1:7401")]
    pub admin_listen: String,
    /// host:port where other gateways connect.
    #[arg(long, env = "CONCORDAT_MESH_LISTEN", default_value = "127.0.0.1:7403")]
    pub mesh_listen: String,
    /// host:port where another gateway listens for gateways. Repeat for each. They need not all know one another.
    #[arg(long = "peer", env = "CONCORDAT_MESH_PEERS", value_delimiter = ',', value_name = "HOST:PORT")]
    pub peers: Vec<String>,
    /// Where streams are kept.
    #[arg(long, env = "CONCORDAT_DATA_DIR")]
    pub data_dir: PathBuf,
    /// Bytes kept of one member's stream. Beyond that its oldest items are dropped.
    #[arg(long, env = "CONCORDAT_MESH_STREAM_BYTES", default_value_t = STREAM_BYTES_MAX)]
    pub stream_bytes: u64,
    /// Bytes kept of all streams. Beyond that the largest stream loses its oldest items.
    #[arg(long, env = "CONCORDAT_MESH_TOTAL_BYTES", default_value_t = TOTAL_BYTES_MAX)]
    pub total_bytes: u64,
    /// Reach another gateway's address in another way than it is known by. Repeat for each.
    #[arg(long, env = "CONCORDAT_RESOLVE", value_delimiter = ',', value_name = "ADDRESS=INSTEAD")]
    pub resolve: Vec<Route>,
    /// How this gateway proves who it is, and whom it believes.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Public keys that sign clients' tokens: a JWKS, or PEM. Without it clients need certificates.
    #[arg(long, env = "CONCORDAT_TOKEN_KEYS", value_name = "FILE")]
    pub token_keys: Option<PathBuf>,
    /// Log JSON instead of text. CONCORDAT_LOG sets the filter.
    #[arg(long, env = "CONCORDAT_LOG_JSON")]
    pub log_json: bool,
}

impl Mesh {
    /// Runs until the process is told to stop.
    pub async fn run(self) -> anyhow::Result<()> {
        telemetry::init(self.log_json, LOG_FILTER)?;
        // Before the certificates are read: what is told before the recorder is there is lost.
        service_kit::metrics::recorder()?;
        let network = routed(tcp_network(), self.resolve);
        let clients = ClientArgs {
            client_tls_cert: None,
            client_tls_key: None,
            token_keys: self.token_keys,
            token_audience: TOKEN_AUDIENCE.to_owned(),
        };
        let secured = Secured::new(network.clone(), &self.tls, &clients)?;
        let insecure = secured.is_insecure();
        let incoming = listen(&secured.clients, "API", &self.listen, insecure).await?;
        let mesh_incoming = listen(&secured.gateways, "mesh", &self.mesh_listen, insecure).await?;
        let admin = Some(listen(&network, "admin", &self.admin_listen, insecure).await?);
        let parts = MeshParts {
            dimls: DimlsParts {
                bounds: Bounds { stream_bytes: self.stream_bytes, total_bytes: self.total_bytes },
                peers: self.peers,
                ..DimlsParts::new(self.data_dir)
            },
            incoming,
            mesh_incoming,
            admin,
            network: secured.gateways,
            rng: Randomness::from_os(),
            authenticator: secured.authenticator,
            gatekeeper: secured.gatekeeper,
        };
        let gateway = MeshGateway::start(parts)?;
        tracing::info!(address = %gateway.address(), mesh = %gateway.mesh_address(), "serving DiMLS groups");
        tokio::select! {
            name = signal() => tracing::info!(signal = name?, "stopping"),
            () = gateway.stopping() => anyhow::bail!("the gateway cannot serve any more; its log says why"),
        }
        gateway.stop().await;
        Ok(())
    }
}
