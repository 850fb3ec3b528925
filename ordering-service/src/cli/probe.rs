//! `ordering-service probe`.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of an answer that are read.
const ANSWER_BYTES: u64 = 64 * 1024;

/// A question to the admin port of a process on this machine.
#[derive(Debug, Args)]
pub(super) struct Probe {
    /// Its --admin-listen address. By default those of a node and of a gateway, of which one has to answer.
    #[arg(long, value_name = "HOST:PORT", default_values = ["127.0.0.1:7300", "127.0.0.1:7401"])]
    at: Vec<String>,
    /// Ask whether it is ready, not only whether it lives.
    #[arg(long)]
    ready: bool,
}

pub(super) async fn run(probe: Probe) -> anyhow::Result<()> {
    let path = if probe.ready { "/readyz" } else { "/livez" };
    let mut failures = Vec::new();
    for address in &probe.at {
        let asked = timeout(PATIENCE, ask(address, path)).await;
        match asked.context("no answer in time").and_then(|answer| answer) {
            Ok(()) => return Ok(()),
            Err(error) => failures.push(format!("{address}: {error:#}")),
        }
    }
    bail!("{}", failures.join("; "))
}

async fn ask(address: &str, path: &str) -> anyhow::Result<()> {
    let mut io = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    io.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    io.take(ANSWER_BYTES).read_to_string(&mut answer).await?;
    if answer.starts_with("HTTP/1.1 200 ") {
        return Ok(());
    }
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    bail!("{} {}", head.lines().next().unwrap_or("no answer"), body.trim())
}

#[cfg(test)]
mod tests {
    use service_kit::{
        admin::{Readiness, serve},
        metrics::recorder,
        net::tcp_network,
    };

    use super::*;

    #[tokio::test]
    async fn a_process_that_lives_need_not_be_ready() {
        let incoming = tcp_network().listen("127.0.0.1:0".into()).await.expect("a free port");
        let at = vec!["127.0.0.1:1".to_owned(), incoming.local_addr().to_string()];
        let readiness = Readiness::new();
        let part = readiness.part("raft");
        let server =
            tokio::spawn(serve(incoming, readiness, recorder().expect("metrics"), std::future::pending()));
        let probe = |ready| run(Probe { at: at.clone(), ready });
        assert!(probe(false).await.is_ok());
        part.set_not_ready("no leader is known");
        let error = probe(true).await.expect_err("not ready").to_string();
        assert!(error.contains("503") && error.contains("no leader is known"), "{error}");
        part.set_ready();
        assert!(probe(true).await.is_ok());
        server.abort();
        assert!(run(Probe { at: vec!["127.0.0.1:1".into()], ready: false }).await.is_err());
    }
}
