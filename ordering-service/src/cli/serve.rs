//! `ordering-service serve`.

use anyhow::bail;
use service_kit::{
    loopback::loopback_address, resolve::routed, settings::Given, shutdown::signal, telemetry, tls::Role,
};

use crate::{
    server::{Seams, Server},
    settings::Settings,
};

/// A node's command line.
pub(super) type Serve = Given<Settings>;

pub(super) async fn run(serve: Serve) -> anyhow::Result<()> {
    let Some(settings) = serve.in_force(&Settings::defaults(), Settings::config)? else { return Ok(()) };
    telemetry::init(settings.log_json.unwrap_or_default(), "info,openraft=error")?;
    // Before the certificates are read: what is told before the recorder is there is lost.
    service_kit::metrics::recorder()?;
    let mut seams = Seams::system();
    seams.network = routed(seams.network, settings.resolve.clone().unwrap_or_default());
    let me = settings.node_id;
    let who = me.map_or_else(|| "node/any".to_owned(), |id| format!("node/{id}"));
    let tls = settings.tls()?;
    seams.security =
        tls.security(&who, |role| matches!(role, Role::Node(id) if id.is_none() || *id == me))?;
    let config = settings.config()?;
    let listeners = [("API", &config.listen), ("peer", &config.peer_listen)];
    for (what, address) in listeners.into_iter().chain(config.admin_listen.iter().map(|a| ("admin", a))) {
        if seams.security.is_insecure() {
            loopback_address(what, address).await?;
        }
    }
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
