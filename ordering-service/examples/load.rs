//! Drives commits on distinct groups over submit streams, and prints throughput and latency.
//!
//!     cargo run --release -p ordering-service --example load -- 127.0.0.1:7101 127.0.0.1:7102 127.0.0.1:7103
//!
//! Each of `--in-flight` workers owns one group at a time: it creates it, commits `--commits` times, and goes on with the next. One
//! stream per data shard goes to whichever node leads it.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Parser;
use concordat_proto::{
    log::v1::{Commit, Content, Create, GroupKind, content::Content as Kind},
    ordering::v1::{
        Command, GroupSubmission, Submission, SubmitRequest, WatchQuorumRequest, command::Command as Wrapped,
        ordering_client::OrderingClient, outcome::Outcome,
    },
};
use prost::Message;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_stream::wrappers::ReceiverStream;

#[derive(Debug, Parser)]
struct Load {
    /// host:port of the nodes' ordering APIs.
    #[arg(required = true)]
    servers: Vec<String>,
    /// Submissions under way at any time, over all shards.
    #[arg(long, default_value_t = 256)]
    in_flight: usize,
    /// Bytes of each commit's message.
    #[arg(long, default_value_t = 1024)]
    bytes: usize,
    /// Commits to each group before the next is created.
    #[arg(long, default_value_t = 100)]
    commits: u64,
    /// How long to run, in seconds, after two seconds of warming up.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let load = Arc::new(Load::parse());
    let leaders = leaders(&load.servers).await?;
    println!("leaders of the data shards: {leaders:?}");
    let run_id: u64 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos() as u64;
    let end = Instant::now() + Duration::from_secs(2 + load.seconds);
    let mut shards = JoinSet::new();
    let per_shard = (load.in_flight / leaders.len()).max(1);
    let active = leaders.len().min(load.in_flight);
    for (shard, address) in leaders.into_iter().take(active) {
        shards.spawn(drive(load.clone(), shard, address, per_shard, run_id, end));
    }
    let mut latencies = Vec::new();
    let mut others = HashMap::<&'static str, u64>::new();
    while let Some(done) = shards.join_next().await {
        let (measured, odd) = done??;
        latencies.extend(measured);
        odd.into_iter().for_each(|(name, n)| *others.entry(name).or_default() += n);
    }
    latencies.sort_unstable();
    let at = |q: f64| latencies.get((latencies.len() as f64 * q) as usize).copied().unwrap_or_default();
    println!(
        "{:.0} accepted/s with {} under way: p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms; others {others:?}",
        latencies.len() as f64 / load.seconds as f64,
        load.in_flight,
        at(0.5).as_secs_f64() * 1e3,
        at(0.99).as_secs_f64() * 1e3,
        latencies.last().copied().unwrap_or_default().as_secs_f64() * 1e3,
    );
    Ok(())
}

/// The data shards, and the address of each one's leader.
async fn leaders(servers: &[String]) -> anyhow::Result<Vec<(u32, String)>> {
    for _ in 0..50 {
        for server in servers {
            let Ok(mut client) = OrderingClient::connect(format!("http://{server}")).await else { continue };
            let mut states = client.watch_quorum(WatchQuorumRequest::default()).await?.into_inner();
            let Some(state) = states.message().await? else { continue };
            let data: Vec<_> = state.shards.into_iter().filter(|s| s.shard > 0).collect();
            if !data.is_empty() && data.iter().all(|s| s.has_quorum) {
                return Ok(data.into_iter().map(|s| (s.shard, s.leader_address)).collect());
            }
        }
        sleep(Duration::from_millis(200)).await;
    }
    bail!("no node knows a leader with a quorum for every data shard")
}

/// One group of one worker.
struct Group {
    id: Bytes,
    epoch: u64,
    sent: Instant,
}

type Measured = (Vec<Duration>, HashMap<&'static str, u64>);

async fn drive(
    load: Arc<Load>,
    shard: u32,
    address: String,
    workers: usize,
    run_id: u64,
    end: Instant,
) -> anyhow::Result<Measured> {
    let mut client = OrderingClient::connect(format!("http://{address}"))
        .await
        .with_context(|| format!("connecting to {address}"))?
        .max_decoding_message_size(64 << 20);
    let (out, requests) = mpsc::channel(64);
    let mut answers = client.submit(ReceiverStream::new(requests)).await?.into_inner();
    let message = Bytes::from(vec![7u8; load.bytes]);
    let mut next_group = 0u64;
    let mut groups: HashMap<u64, Group> = HashMap::new();
    let mut ready: VecDeque<u64> = (0..workers as u64).collect();
    let measure_from = end - Duration::from_secs(load.seconds);
    let (mut latencies, mut others) = (Vec::new(), HashMap::new());
    loop {
        let now = Instant::now();
        if now < end && !ready.is_empty() {
            let submissions = ready
                .drain(..)
                .map(|worker| {
                    let group = groups.entry(worker).or_insert_with(|| {
                        next_group += 1;
                        let id = format!("load-{run_id}-{shard}-{worker}-{next_group}");
                        Group { id: id.into(), epoch: 0, sent: now }
                    });
                    group.sent = now;
                    Submission { id: worker, shard, command: command(group, &message) }
                })
                .collect();
            out.send(SubmitRequest { submissions, ..SubmitRequest::default() }).await?;
        }
        if now >= end && groups.is_empty() {
            return Ok((latencies, others));
        }
        let Some(response) = answers.message().await? else { bail!("the stream of answers ended") };
        let now = Instant::now();
        for answer in response.outcomes {
            let Some(group) = groups.get_mut(&answer.id) else { bail!("an answer that nobody asked for") };
            let name = match answer.outcome.and_then(|o| o.outcome) {
                Some(Outcome::Accepted(accepted)) => {
                    group.epoch = accepted.epoch;
                    if now >= measure_from && now < end {
                        latencies.push(now - group.sent);
                    }
                    None
                }
                Some(Outcome::Superseded(_)) => Some("superseded"),
                Some(Outcome::Refused(refused)) => bail!("refused: {}", refused.message),
                Some(Outcome::NotLeader(_)) => Some("not leader"),
                Some(Outcome::Unknown(_)) => Some("unknown"),
                Some(Outcome::Overloaded(_)) => Some("overloaded"),
                _ => Some("other"),
            };
            if let Some(name) = name {
                *others.entry(name).or_default() += 1;
                groups.remove(&answer.id);
            } else if group.epoch >= load.commits || now >= end {
                groups.remove(&answer.id);
            }
            ready.push_back(answer.id);
        }
    }
}

fn command(group: &Group, message: &Bytes) -> Bytes {
    let content = if group.epoch == 0 {
        Kind::Create(Create { kind: GroupKind::Mls.into(), policy: None, group_info: message.clone() })
    } else {
        let (message, empty) = (message.clone(), Bytes::new());
        Kind::Commit(Commit { message, welcome: empty.clone(), group_info: empty, recipients: Vec::new() })
    };
    let submission = GroupSubmission {
        group_id: group.id.clone(),
        author: Bytes::from_static(b"load"),
        // The first state is that of epoch 1, so that epoch 0 can mean "not created yet".
        epoch: group.epoch.max(1),
        parent_state_id: Bytes::new(),
        facts: None,
        content: Some(Content { content: Some(content) }),
        members_only: false,
    };
    Command { command: Some(Wrapped::Group(submission)) }.encode_to_vec().into()
}
