//! The floor: three processes that do what every replicated log over gRPC has to do, and nothing else. The first passes an append on
//! to the two others, each writes and syncs it, and the client is answered when two have. No order is agreed on, nothing is checked,
//! and nothing would find the appends again.

mod node;
mod progress;
mod writer;

use std::{
    collections::VecDeque,
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use bytes::Bytes;
pub(crate) use node::{Options as NodeOptions, run as run_node};
use testbed::Ports;
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot},
    time::{Instant, sleep},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::{Append, Setup, Slot};
use crate::{
    limits::{BATCH, POLL_INTERVAL, START_DEADLINE, STREAM_QUEUE},
    process::Process,
};

#[allow(missing_docs, unreachable_pub, clippy::all)]
mod pb {
    tonic::include_proto!("concordat.bench.floor.v1");
}

/// Three running processes.
pub(crate) struct Floor {
    nodes: Vec<Process>,
    /// Of the node that passes on.
    first: SocketAddr,
    /// As many as Concordat has, which has one to each shard's leader.
    streams: u32,
}

impl Floor {
    pub(super) async fn start(setup: &Setup) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&setup.data)?;
        let mut ports = Ports::new();
        let (first, others) = (ports.take()?, [ports.take()?, ports.take()?]);
        let mut nodes = Vec::new();
        for (n, address) in others.into_iter().chain([first]).enumerate() {
            let pass_on: &[SocketAddr] = if address == first { &others } else { &[] };
            let node = start_node(&setup.data, n, address, pass_on)?;
            wait_for(address, &node).await?;
            nodes.push(node);
        }
        Ok(Self { nodes, first, streams: setup.data_shards })
    }

    pub(super) fn processes(&self) -> Vec<u32> {
        self.nodes.iter().map(Process::id).collect()
    }

    pub(super) async fn slots(&self, count: usize) -> anyhow::Result<Vec<Slot>> {
        let mut streams = Vec::new();
        for _ in 0..self.streams {
            streams.push(Stream::open(self.first).await?);
        }
        Ok((0..count).map(|n| Slot::Floor(streams[n % streams.len()].clone())).collect())
    }
}

fn start_node(data: &Path, n: usize, listen: SocketAddr, pass_on: &[SocketAddr]) -> anyhow::Result<Process> {
    let this: PathBuf = env::current_exe().context("finding this binary")?;
    let file = data.join(format!("floor-{n}"));
    let mut args =
        vec!["floor-node".to_owned(), format!("--listen={listen}"), format!("--file={}", file.display())];
    args.extend(pass_on.iter().map(|other| format!("--pass-on={other}")));
    Process::start(&this, &args, data.join(format!("floor-{n}.log")))
}

/// Until somebody listens.
async fn wait_for(address: SocketAddr, node: &Process) -> anyhow::Result<()> {
    let deadline = Instant::now() + START_DEADLINE;
    while Instant::now() < deadline {
        if TcpStream::connect(address).await.is_ok() {
            return Ok(());
        }
        sleep(POLL_INTERVAL).await;
    }
    let log = node.log_tail();
    bail!("nobody listens on {address} after {START_DEADLINE:?}; the end of the process's log:\n{log}")
}

/// A stream to the first node. Clones share it, and each is a client of its own.
#[derive(Debug, Clone)]
pub(crate) struct Stream(mpsc::Sender<Item>);

#[derive(Debug)]
struct Item {
    payload: Bytes,
    safe: oneshot::Sender<()>,
}

impl Stream {
    async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let channel = node::endpoint(address)?.connect().await;
        let channel = channel.with_context(|| format!("connecting to {address}"))?;
        let (items, queue) = mpsc::channel(STREAM_QUEUE);
        tokio::spawn(run(channel, queue));
        Ok(Self(items))
    }

    /// Appends `payload`.
    pub(super) async fn append(&self, payload: &Bytes) -> anyhow::Result<Append> {
        let (safe, answered) = oneshot::channel();
        self.0.send(Item { payload: payload.clone(), safe }).await.ok().context("the stream has ended")?;
        answered.await.context("the stream ended before the answer")?;
        Ok(Append::Done)
    }
}

/// Sends whatever is waiting as one message, and tells in order who is safe.
async fn run(channel: Channel, mut queue: mpsc::Receiver<Item>) {
    let (requests, outgoing) = mpsc::channel(STREAM_QUEUE);
    let Ok(answers) = node::client(channel).append(ReceiverStream::new(outgoing)).await else { return };
    let mut answers = answers.into_inner();
    let (mut waiting, mut told, mut batch) = (VecDeque::new(), 0, Vec::new());
    loop {
        tokio::select! {
            taken = queue.recv_many(&mut batch, BATCH) => {
                if taken == 0 {
                    return;
                }
                let appends = batch.drain(..).map(|Item { payload, safe }| {
                    waiting.push_back(safe);
                    payload
                });
                if requests.send(pb::Appends { appends: appends.collect() }).await.is_err() {
                    return;
                }
            }
            answer = answers.message() => {
                // Dropping what waits tells everybody that the stream has ended.
                let Ok(Some(pb::Safe { count })) = answer else { return };
                while told < count && let Some(safe) = waiting.pop_front() {
                    told += 1;
                    // Whoever gave up need not be told.
                    let _ = safe.send(());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_appended_through_the_first_node_is_in_the_files_of_a_majority() {
        let dir = tempfile::tempdir().unwrap();
        let mut ports = Ports::new();
        let (first, others) = (ports.take().unwrap(), [ports.take().unwrap(), ports.take().unwrap()]);
        let mut files = Vec::new();
        for listen in others.into_iter().chain([first]) {
            let file = dir.path().join(listen.port().to_string());
            files.push(file.clone());
            let pass_on = if listen == first { others.to_vec() } else { Vec::new() };
            tokio::spawn(run_node(NodeOptions { listen, file, pass_on }));
            while TcpStream::connect(listen).await.is_err() {
                tokio::task::yield_now().await;
            }
        }
        let stream = Stream::open(first).await.unwrap();
        for n in 0..10_u8 {
            stream.append(&Bytes::from(vec![b'a' + n; 100])).await.unwrap();
        }
        let expected: Vec<u8> = (0..10).flat_map(|n| [b'a' + n; 100]).collect();
        let stored = files.iter().filter(|file| std::fs::read(file).unwrap().starts_with(&expected)).count();
        assert!(stored >= 2, "{stored} of 3 have it");
    }
}
