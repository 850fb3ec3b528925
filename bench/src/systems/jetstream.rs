//! NATS JetStream: a stream with three replicas, a subject for each group, and publishing with the expected last sequence of the
//! subject.

use std::{
    collections::HashMap,
    error::Error,
    fs,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context as _, bail};
use async_nats::{
    HeaderMap, header,
    jetstream::{
        self, Context, ErrorCode,
        context::{PublishError, PublishErrorKind},
        stream::{Config, LastRawMessageErrorKind, StorageType},
    },
};
use bytes::Bytes;
use testbed::Ports;
use tokio::time::{Instant, sleep};

use super::{Append, Setup, Slot};
use crate::{
    limits::{ATTEMPTS_BEFORE_LOOKUP, CONNECTIONS, POLL_INTERVAL, START_DEADLINE},
    process::Process,
};

const STREAM: &str = "commits";

/// A running cluster of three.
pub(crate) struct JetStream {
    nodes: Vec<Process>,
    /// host:port of the stream's leader, so that no other server has to forward.
    leader: String,
    next_subject: AtomicU64,
}

impl JetStream {
    /// `synced`: with `sync_interval: always`. Otherwise as it comes, which syncs every two minutes.
    pub(super) async fn start(setup: &Setup, synced: bool) -> anyhow::Result<Self> {
        let binary = setup.nats_server.as_deref().context("no nats-server binary is set up")?;
        let mut ports = Ports::new();
        let mut addresses = Vec::new();
        for _ in 0..3 {
            addresses.push((ports.take()?.to_string(), ports.take()?.to_string()));
        }
        fs::create_dir_all(&setup.data)?;
        let mut nodes = Vec::new();
        for n in 0..addresses.len() {
            nodes.push(start_node(binary, &setup.data, n, &addresses, synced)?);
        }
        let clients: HashMap<_, _> =
            addresses.into_iter().enumerate().map(|(n, (client, _))| (format!("n{n}"), client)).collect();
        let leader = create_stream(&clients, &nodes).await?;
        Ok(Self { nodes, leader, next_subject: AtomicU64::new(0) })
    }

    pub(super) fn processes(&self) -> Vec<u32> {
        self.nodes.iter().map(Process::id).collect()
    }

    pub(super) async fn slots(&self, count: usize) -> anyhow::Result<Vec<Slot>> {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS.min(count) {
            connections.push(jetstream::new(async_nats::connect(&self.leader).await?));
        }
        let slot = |n: usize| {
            let number = self.next_subject.fetch_add(1, Ordering::Relaxed);
            let context = connections[n % connections.len()].clone();
            let subject = format!("{STREAM}.{number:012}");
            Slot::JetStream(JetStreamSlot { context, subject, sequence: 0, refused: 0 })
        };
        Ok((0..count).map(slot).collect())
    }
}

fn start_node(
    binary: &Path,
    data: &Path,
    n: usize,
    addresses: &[(String, String)],
    synced: bool,
) -> anyhow::Result<Process> {
    let (client, cluster) = &addresses[n];
    let routes: Vec<_> = addresses.iter().map(|(_, address)| format!("nats://{address}")).collect();
    let sync = if synced { "sync_interval: always" } else { "" };
    let store = data.join(format!("nats-{n}"));
    let config = format!(
        "server_name: n{n}\nlisten: \"{client}\"\njetstream {{ store_dir: {:?}, max_file_store: 32GB, {sync} }}\n\
         cluster {{ name: bench, listen: \"{cluster}\", routes: [{}] }}\n",
        store.display().to_string(),
        routes.join(", ")
    );
    let path = data.join(format!("nats-{n}.conf"));
    fs::write(&path, config).with_context(|| format!("writing {}", path.display()))?;
    let args = ["-c".to_owned(), path.to_string_lossy().into_owned()];
    Process::start(binary, &args, data.join(format!("nats-{n}.log")))
}

/// Creates the stream as soon as the servers let it be created, and returns the address of the server that leads it.
async fn create_stream(clients: &HashMap<String, String>, nodes: &[Process]) -> anyhow::Result<String> {
    let deadline = Instant::now() + START_DEADLINE;
    let config = Config {
        name: STREAM.into(),
        subjects: vec![format!("{STREAM}.>")],
        num_replicas: 3,
        storage: StorageType::File,
        ..Config::default()
    };
    let mut last = "no server answers".to_owned();
    while Instant::now() < deadline {
        match leader_of(clients, &config).await {
            Ok(Some(leader)) => return Ok(leader),
            Ok(None) => "the stream has no leader".clone_into(&mut last),
            Err(error) => last = format!("{error:#}"),
        }
        sleep(POLL_INTERVAL).await;
    }
    let log = nodes.first().map(Process::log_tail).unwrap_or_default();
    bail!("JetStream has no stream after {START_DEADLINE:?}: {last}; the end of a node's log:\n{log}")
}

async fn leader_of(clients: &HashMap<String, String>, config: &Config) -> anyhow::Result<Option<String>> {
    let any = clients.values().next().context("no servers")?;
    let context = jetstream::new(async_nats::connect(any).await?);
    let mut stream = context.get_or_create_stream(config.clone()).await?;
    let leader = stream.info().await?.cluster.as_ref().and_then(|cluster| cluster.leader.clone());
    Ok(leader.and_then(|name| clients.get(&name).cloned()))
}

/// The server has two codes for it, of which the client library knows one.
fn is_wrong_last_sequence(error: &PublishError) -> bool {
    let answer = error.source().and_then(|source| source.downcast_ref::<jetstream::Error>());
    error.kind() == PublishErrorKind::WrongLastSequence
        || answer.is_some_and(|answer| answer.error_code() == ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT)
}

/// A client of one subject.
pub(crate) struct JetStreamSlot {
    context: Context,
    subject: String,
    /// Of the last message on the subject; 0 while there is none.
    sequence: u64,
    /// Refusals in a row.
    refused: u32,
}

impl JetStreamSlot {
    /// One attempt to publish after the message that this client published last.
    pub(super) async fn append(&mut self, payload: &Bytes) -> anyhow::Result<Append> {
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, self.sequence.to_string());
        let sent = self.context.publish_with_headers(self.subject.clone(), headers, payload.clone()).await?;
        match sent.await {
            Ok(ack) => {
                self.sequence = ack.sequence;
                self.refused = 0;
                Ok(Append::Done)
            }
            // Seen although nobody else publishes on the subject: the server has not yet caught up with its own answer.
            Err(error) if is_wrong_last_sequence(&error) => {
                self.refused += 1;
                if self.refused.is_multiple_of(ATTEMPTS_BEFORE_LOOKUP) {
                    self.sequence = self.look_up().await?;
                }
                Ok(Append::Refused)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn look_up(&self) -> anyhow::Result<u64> {
        let stream = self.context.get_stream(STREAM).await?;
        match stream.get_last_raw_message_by_subject(&self.subject).await {
            Ok(message) => Ok(message.sequence),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}
