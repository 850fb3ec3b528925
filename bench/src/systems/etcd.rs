//! etcd: a transaction that puts a key if its modification revision is the one that the client saw last.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, bail};
use bytes::Bytes;
use testbed::Ports;
use tokio::time::{Instant, sleep};
use tonic::transport::{Channel, Endpoint};

use super::{Append, Setup, Slot};
use crate::{
    limits::{CONNECTIONS, POLL_INTERVAL, START_DEADLINE},
    process::Process,
};

#[allow(missing_docs, unreachable_pub, clippy::all)]
mod pb {
    tonic::include_proto!("etcdserverpb");
}

use pb::{
    Compare, PutRequest, RangeRequest, RequestOp, StatusRequest, TxnRequest, compare, kv_client::KvClient,
    maintenance_client::MaintenanceClient, request_op::Request, response_op::Response,
};

/// A running cluster of three.
pub(crate) struct Etcd {
    nodes: Vec<Process>,
    /// Connections to the leader, so that no follower has to forward.
    leader: Vec<Channel>,
    next_key: AtomicU64,
}

impl Etcd {
    pub(super) async fn start(setup: &Setup) -> anyhow::Result<Self> {
        let binary = setup.etcd.as_deref().context("no etcd binary is set up")?;
        let mut ports = Ports::new();
        let mut urls = Vec::new();
        for _ in 0..3 {
            urls.push((format!("http://{}", ports.take()?), format!("http://{}", ports.take()?)));
        }
        let members: Vec<_> = urls.iter().enumerate().map(|(n, (_, peer))| format!("n{n}={peer}")).collect();
        let members = members.join(",");
        std::fs::create_dir_all(&setup.data)?;
        let mut nodes = Vec::new();
        for (n, (client, peer)) in urls.iter().enumerate() {
            nodes.push(start_node(binary, &setup.data, n, client, peer, &members)?);
        }
        let leader = find_leader(&urls, &nodes).await?;
        let channels =
            (0..CONNECTIONS).map(|_| Endpoint::from_shared(leader.clone()).map(|e| e.connect_lazy()));
        let leader = channels.collect::<Result<_, _>>()?;
        Ok(Self { nodes, leader, next_key: AtomicU64::new(0) })
    }

    pub(super) fn processes(&self) -> Vec<u32> {
        self.nodes.iter().map(Process::id).collect()
    }

    pub(super) fn slots(&self, count: usize) -> Vec<Slot> {
        let slot = |n: usize| {
            let number = self.next_key.fetch_add(1, Ordering::Relaxed);
            let client = KvClient::new(self.leader[n % self.leader.len()].clone());
            Slot::Etcd(EtcdSlot { client, key: format!("bench/{number:012}").into(), revision: 0 })
        };
        (0..count).map(slot).collect()
    }
}

fn start_node(
    binary: &Path,
    data: &Path,
    n: usize,
    client: &str,
    peer: &str,
    members: &str,
) -> anyhow::Result<Process> {
    let dir = data.join(format!("etcd-{n}"));
    let args = [
        ("--name", format!("n{n}")),
        ("--data-dir", dir.to_string_lossy().into_owned()),
        ("--listen-client-urls", client.to_owned()),
        ("--advertise-client-urls", client.to_owned()),
        ("--listen-peer-urls", peer.to_owned()),
        ("--initial-advertise-peer-urls", peer.to_owned()),
        ("--initial-cluster", members.to_owned()),
        ("--initial-cluster-state", "new".to_owned()),
        // The default of 2 GiB would stop a long run.
        ("--quota-backend-bytes", (8_u64 << 30).to_string()),
        ("--logger", "zap".to_owned()),
        ("--log-level", "error".to_owned()),
    ];
    let args: Vec<String> = args.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
    Process::start(binary, &args, data.join(format!("etcd-{n}.log")))
}

async fn find_leader(urls: &[(String, String)], nodes: &[Process]) -> anyhow::Result<String> {
    let deadline = Instant::now() + START_DEADLINE;
    let mut ids = std::collections::HashMap::new();
    while Instant::now() < deadline {
        for (url, _) in urls {
            let Ok(mut client) = MaintenanceClient::connect(url.clone()).await else { continue };
            let Ok(status) = client.status(StatusRequest {}).await else { continue };
            let status = status.into_inner();
            ids.insert(status.header.map_or(0, |header| header.member_id), url.clone());
            if ids.len() == urls.len()
                && let Some(leader) = ids.get(&status.leader)
            {
                return Ok(leader.clone());
            }
        }
        sleep(POLL_INTERVAL).await;
    }
    let log = nodes.first().map(Process::log_tail).unwrap_or_default();
    bail!("etcd has no leader after {START_DEADLINE:?}; the end of a node's log:\n{log}")
}

/// A client of one key.
pub(crate) struct EtcdSlot {
    client: KvClient<Channel>,
    key: Bytes,
    /// 0 while the key does not exist.
    revision: i64,
}

impl EtcdSlot {
    /// One attempt to put the key over the revision that this client saw last.
    pub(super) async fn append(&mut self, payload: &Bytes) -> anyhow::Result<Append> {
        let put = PutRequest { key: self.key.clone(), value: payload.clone() };
        let get = RangeRequest { key: self.key.clone() };
        let transaction = TxnRequest {
            compare: vec![Compare {
                result: compare::CompareResult::Equal.into(),
                target: compare::CompareTarget::Mod.into(),
                key: self.key.clone(),
                target_union: Some(compare::TargetUnion::ModRevision(self.revision)),
            }],
            success: vec![RequestOp { request: Some(Request::RequestPut(put)) }],
            failure: vec![RequestOp { request: Some(Request::RequestRange(get)) }],
        };
        let answer = match self.client.txn(transaction).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if status.code() == tonic::Code::ResourceExhausted => return Ok(Append::Refused),
            Err(status) => return Err(status.into()),
        };
        if answer.succeeded {
            self.revision = answer.header.context("an answer of etcd without a header")?.revision;
            return Ok(Append::Done);
        }
        if let Some(Response::ResponseRange(found)) = answer.responses.into_iter().find_map(|r| r.response) {
            self.revision = found.kvs.first().map_or(0, |kv| kv.mod_revision);
        }
        Ok(Append::Refused)
    }
}
