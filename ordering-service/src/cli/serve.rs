//! `ordering-service serve`.

use std::path::PathBuf;

use anyhow::bail;
use clap::{ArgAction, Args};
use service_kit::{
    loopback::plaintext_listen_address,
    resolve::{Route, routed},
    shutdown::signal,
    telemetry,
};

use crate::{
    config::Config,
    limits,
    raft::timing::{Compaction, Profile, SNAPSHOT_EVERY},
    server::{Seams, Server},
};

/// A node's command line. Every flag can be given as the environment variable that its help names.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// This node's number: at least 1, and never used twice in a cluster.
    #[arg(long, env = "CONCORDAT_NODE_ID", value_parser = clap::value_parser!(u64).range(1..))]
    node_id: u64,
    /// Where the data lives; created if it does not exist.
    #[arg(long, env = "CONCORDAT_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,
    /// Where gateways and operators connect.
    #[arg(long, env = "CONCORDAT_LISTEN", value_name = "HOST:PORT", default_value = "127.0.0.1:7100")]
    listen: String,
    /// Where the other nodes connect.
    #[arg(long, env = "CONCORDAT_PEER_LISTEN", value_name = "HOST:PORT", default_value = "127.0.0.1:7200")]
    peer_listen: String,
    /// Where /livez, /readyz and /metrics are served (HTTP).
    #[arg(long, env = "CONCORDAT_ADMIN_LISTEN", value_name = "HOST:PORT", default_value = "127.0.0.1:7300")]
    admin_listen: String,
    /// How far apart the nodes are: lan (round trips of at most 2 ms), region (30 ms) or wan (200 ms). The same at every node.
    #[arg(long, env = "CONCORDAT_TIMING", default_value_t = Profile::Lan)]
    timing: Profile,
    /// Take a snapshot when a shard's log has grown by so many entries.
    #[arg(long, env = "CONCORDAT_SNAPSHOT_EVERY", value_name = "ENTRIES", default_value_t = SNAPSHOT_EVERY)]
    snapshot_every: u64,
    /// Keep so many entries that a snapshot covers, so that a node that was away briefly catches up without one.
    #[arg(long, env = "CONCORDAT_KEEP_ENTRIES", value_name = "ENTRIES", default_value_t = limits::LOG_ENTRIES_KEPT)]
    keep_entries: u64,
    /// Reach a peer's address in another way than it is known by, such as through a forwarded port. Repeat for each; separate them by
    /// commas in the environment.
    #[arg(
        long = "resolve",
        env = "CONCORDAT_RESOLVE",
        value_delimiter = ',',
        value_name = "ADDRESS=INSTEAD"
    )]
    routes: Vec<Route>,
    /// Listen in plaintext on addresses that other machines can reach. Only behind a network that you trust.
    #[arg(long, env = "CONCORDAT_INSECURE_PLAINTEXT", action = ArgAction::SetTrue)]
    insecure_plaintext: bool,
    /// One JSON object per log line.
    #[arg(long, env = "CONCORDAT_LOG_JSON", action = ArgAction::SetTrue)]
    log_json: bool,
}

pub(super) async fn run(serve: Serve) -> anyhow::Result<()> {
    telemetry::init(serve.log_json, "info,openraft=error")?;
    let plaintext = [("API", &serve.listen), ("peer", &serve.peer_listen), ("admin", &serve.admin_listen)];
    for (what, address) in plaintext {
        plaintext_listen_address(what, address, serve.insecure_plaintext, "--insecure-plaintext").await?;
    }
    let config = Config {
        node_id: serve.node_id,
        data_dir: serve.data_dir,
        listen: serve.listen,
        peer_listen: serve.peer_listen,
        admin_listen: Some(serve.admin_listen),
        timing: serve.timing,
        compaction: Compaction { snapshot_every: serve.snapshot_every, keep_entries: serve.keep_entries },
    };
    let mut seams = Seams::system();
    seams.network = routed(seams.network, serve.routes);
    let running = Server::start(config, seams).await?;
    let failure = tokio::select! {
        signal = signal() => {
            tracing::info!("{} received, stopping", signal?);
            None
        }
        failure = running.failed() => Some(failure),
    };
    running.stop().await;
    if let Some(failure) = failure {
        bail!("{failure}");
    }
    Ok(())
}
