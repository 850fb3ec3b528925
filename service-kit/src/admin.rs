//! The plaintext admin HTTP server of a process: `/livez`, `/readyz` and `/metrics`.
//!
//! Liveness means that the event loop turns, nothing more: a lost quorum is never cured by a restart. Readiness means that every part
//! of the process says that it can serve.

use std::{collections::BTreeMap, fmt::Write, future::Future, io, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;

use crate::{limits::METRICS_UPKEEP_INTERVAL, net::Incoming};

type Parts = BTreeMap<&'static str, Result<(), String>>;

/// Whether the process can serve: so if each of its parts can, and there is one. Clones share the state.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<watch::Sender<Parts>>);

impl Readiness {
    /// No part is known yet: not ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a part of the process, not ready until it says so. The name is shown at `/readyz`.
    pub fn part(&self, name: &'static str) -> ReadinessPart {
        let part = ReadinessPart { name, readiness: self.clone() };
        part.set_not_ready("starting");
        part
    }

    /// Whether every part is ready.
    pub fn is_ready(&self) -> bool {
        all_ready(&self.0.borrow())
    }

    /// Returns when every part is ready.
    pub async fn ready(&self) {
        // Fails only when the sender is gone, and this handle holds it.
        let _ = self.0.subscribe().wait_for(all_ready).await;
    }

    fn report(&self) -> (bool, String) {
        let parts = self.0.borrow();
        let mut text = String::new();
        for (name, state) in parts.iter() {
            let line = state.as_ref().map_or_else(String::as_str, |()| "ready");
            let _ = writeln!(text, "{name}: {line}");
        }
        if parts.is_empty() {
            text.push_str("starting\n");
        }
        (all_ready(&parts), text)
    }
}

fn all_ready(parts: &Parts) -> bool {
    !parts.is_empty() && parts.values().all(Result::is_ok)
}

/// One part's say in the process's readiness.
#[derive(Debug, Clone)]
pub struct ReadinessPart {
    name: &'static str,
    readiness: Readiness,
}

impl ReadinessPart {
    /// This part can serve.
    pub fn set_ready(&self) {
        self.set(Ok(()));
    }

    /// This part cannot serve; `reason` is one short line for an operator.
    pub fn set_not_ready(&self, reason: impl Into<String>) {
        self.set(Err(reason.into()));
    }

    fn set(&self, state: Result<(), String>) {
        self.readiness.0.send_if_modified(|parts| {
            let changed = parts.get(self.name) != Some(&state);
            if changed {
                parts.insert(self.name, state);
            }
            changed
        });
    }
}

/// Serves the admin endpoints on `incoming` until `stop` completes.
pub async fn serve(
    incoming: Incoming,
    readiness: Readiness,
    metrics: PrometheusHandle,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let upkeep = tokio::spawn(fold_histograms(metrics.clone()));
    let app = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .with_state(readiness)
        .route("/metrics", get(render).with_state(metrics));
    // Not a graceful stop: a scraper that keeps its connection open must not hold up the end of the process.
    let served = tokio::select! {
        served = axum::serve(incoming, app) => served,
        () = stop => Ok(()),
    };
    upkeep.abort();
    served
}

async fn readyz(State(readiness): State<Readiness>) -> (StatusCode, String) {
    let (ready, report) = readiness.report();
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, report)
}

async fn render(State(metrics): State<PrometheusHandle>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render()).into_response()
}

async fn fold_histograms(metrics: PrometheusHandle) {
    let mut ticks = tokio::time::interval(METRICS_UPKEEP_INTERVAL);
    loop {
        ticks.tick().await;
        metrics.run_upkeep();
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::oneshot,
    };

    use super::*;
    use crate::{metrics::recorder, net::tcp_network};

    async fn get(address: &str, path: &str) -> String {
        let mut io = tcp_network().dial(address.to_owned()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        io.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        io.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn readiness_needs_every_part_and_liveness_none() {
        let incoming = tcp_network().listen("127.0.0.1:0".into()).await.unwrap();
        let address = incoming.local_addr().to_string();
        let readiness = Readiness::new();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(serve(incoming, readiness.clone(), recorder().unwrap(), async {
            let _ = stopped.await;
        }));
        assert!(get(&address, "/livez").await.starts_with("HTTP/1.1 200"));
        assert!(get(&address, "/readyz").await.starts_with("HTTP/1.1 503"));
        let (raft, api) = (readiness.part("raft"), readiness.part("api"));
        api.set_ready();
        raft.set_not_ready("no leader is known");
        let answer = get(&address, "/readyz").await;
        assert!(
            answer.starts_with("HTTP/1.1 503") && answer.contains("raft: no leader is known"),
            "{answer}"
        );
        raft.set_ready();
        readiness.ready().await;
        assert!(get(&address, "/readyz").await.starts_with("HTTP/1.1 200"));
        metrics::counter!("concordat_test_admin_total").increment(1);
        assert!(get(&address, "/metrics").await.contains("concordat_test_admin_total 1"));
        drop(stop);
        server.await.unwrap().unwrap();
    }
}
