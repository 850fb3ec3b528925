//! Groups of one node: what an idle group costs in memory and on disk, how long a restart takes, and whether a commit to any of them
//! gets slower.

use std::{collections::HashSet, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use concordat_proto::ordering::v1::{AssignGroup, Command, command::Command as Wrapped, outcome::Outcome};
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use testbed::{Cluster, ClusterOptions};
use tokio::time::Instant;

use super::{options::Plan, point::Point};
use crate::{
    limits::{CREATED_AT_ONCE, LEADER_DEADLINE, SETTLED_WITHIN},
    measure::{append, histogram},
    process::{Memory, disk_usage, memory},
    progress::Progress,
    systems::{Concordat, OrderingSlot, Slot, Stream},
};

const DATA_SHARDS: u32 = 2;
const PAYLOAD: &[u8] = &[7; 1024];

/// Measures the curve.
pub(super) async fn run(plan: &Plan, progress: &Progress) -> anyhow::Result<Vec<Point>> {
    let dir = plan.scratch()?;
    let options = ClusterOptions {
        nodes: 1,
        data_shards: DATA_SHARDS,
        dir: Some(dir.path().to_owned()),
        ..ClusterOptions::default()
    };
    let node = Node(Concordat::start_as(options).await?);
    let mut rng = ChaCha8Rng::seed_from_u64(plan.seed);
    let (mut points, mut created, mut committed) = (Vec::new(), 0, HashSet::new());
    node.restart().await?;
    let empty = node.memory()?;
    for size in &plan.groups {
        progress.now(format!("creating groups up to {size}"));
        let begun = Instant::now();
        node.create(created..*size).await?;
        let per_second = (*size - created) as f64 / begun.elapsed().as_secs_f64();
        created = *size;
        progress.now(format!("{size} groups: commits to any of them"));
        let any = std::iter::repeat_with(|| rng.random_range(0..created));
        let unused: Vec<u64> = any.filter(|number| committed.insert(*number)).take(SAMPLES).collect();
        let latencies = node.commit_to(&unused).await?;
        let running = node.memory()?;
        progress.now(format!("{size} groups: restarting"));
        let restart = node.restart().await?;
        let after = node.memory()?;
        let each = |now: u64, before: u64| (now as f64 - before as f64) / created as f64;
        let mut point = |measure, value, expected| {
            points.push(Point { of: "groups", size: created, measure, value, expected });
        };
        point("groups created a second", per_second, "constant");
        point("commit p50 ms, one in flight", latencies.value_at_quantile(0.5) as f64 / 1e6, "constant");
        point("commit p99 ms, one in flight", latencies.value_at_quantile(0.99) as f64 / 1e6, "constant");
        point("seconds from start to ready", restart.as_secs_f64(), "constant");
        point("memory MiB, running", running.resident as f64 / MIB, "constant (bounded caches)");
        point("memory MiB, after a restart", after.resident as f64 / MIB, "constant (bounded caches)");
        point(
            "bytes of memory a group, after a restart",
            each(after.resident, empty.resident),
            "to 0; at most 200 at a million",
        );
        point(
            "bytes of memory a group, running",
            each(running.resident, empty.resident),
            "to 0; at most 200 at a million",
        );
        point("bytes of disk a group", disk_usage(dir.path()) as f64 / created as f64, "constant");
        progress.done(&format!("{size} groups: ready {:.2} s after a restart", restart.as_secs_f64()));
    }
    Ok(points)
}

const MIB: f64 = 1024.0 * 1024.0;

/// Commits at each size.
const SAMPLES: usize = 500;

/// A cluster of one.
struct Node(Concordat);

impl Node {
    fn cluster(&self) -> &Cluster {
        &self.0.cluster
    }

    fn memory(&self) -> anyhow::Result<Memory> {
        memory(self.cluster().node(1).service().id().context("the node does not run")?)
    }

    /// Creates the groups with these numbers: a place in the directory and a log in a data shard each.
    async fn create(&self, numbers: std::ops::Range<u64>) -> anyhow::Result<()> {
        let stream = Stream::open(self.cluster().node(1).address()).await?;
        let one = |number: u64| {
            let stream = stream.clone();
            async move {
                assign(&stream, number).await?;
                OrderingSlot::create(stream, shard_of(number), name(number)).await?;
                anyhow::Ok(())
            }
        };
        stream::iter(numbers).map(one).buffer_unordered(CREATED_AT_ONCE).try_collect().await
    }

    /// One commit to each of these groups, one after the other.
    async fn commit_to(&self, numbers: &[u64]) -> anyhow::Result<hdrhistogram::Histogram<u64>> {
        let stream = Stream::open(self.cluster().node(1).address()).await?;
        let mut latencies = histogram()?;
        for number in numbers {
            let slot = OrderingSlot::existing(stream.clone(), shard_of(*number), name(*number));
            let begun = Instant::now();
            append(&mut Slot::Ordering(slot), &Bytes::from_static(PAYLOAD)).await?;
            latencies.saturating_record(u64::try_from(begun.elapsed().as_nanos())?);
        }
        Ok(latencies)
    }

    /// Ends the process with SIGKILL, and returns how long the next one took from its start until it was ready.
    async fn restart(&self) -> anyhow::Result<Duration> {
        let node = self.cluster().node(1);
        node.service().kill().await?;
        let begun = Instant::now();
        node.service().start()?;
        node.service().wait_ready().await?;
        let took = begun.elapsed();
        tokio::time::timeout(LEADER_DEADLINE, self.cluster().leader(DATA_SHARDS)).await??;
        tokio::time::sleep(SETTLED_WITHIN).await;
        Ok(took)
    }
}

fn name(number: u64) -> String {
    format!("bench-scale-{number:012}")
}

fn shard_of(number: u64) -> u32 {
    1 + (number % u64::from(DATA_SHARDS)) as u32
}

async fn assign(stream: &Stream, number: u64) -> anyhow::Result<()> {
    let command = AssignGroup { group_id: name(number).into(), shard: shard_of(number) };
    let command = Command { command: Some(Wrapped::AssignGroup(command)) }.encode_to_vec();
    match stream.submit(0, command.into()).await? {
        Outcome::GroupAssigned(_) => Ok(()),
        other => anyhow::bail!("the directory answered with {other:?}"),
    }
}
