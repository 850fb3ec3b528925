//! DiMLS: a gateway without a cluster at every site, and the sessions of one DGroup at work over the links between them.

mod gateways;
mod journal;
mod load;
mod members;
mod worker;

use std::{path::Path, time::Duration};

use anyhow::Context;
use hdrhistogram::Histogram;

use self::{
    gateways::Gateways,
    journal::{Trace, What},
    load::{Isolated, Load, Sent},
    members::Members,
};
use super::{
    limits::{ITEMS_CORE, ITEMS_RATE, LATENCY_MAX},
    options::Plan,
    row::Row,
    scratch,
    spec::Topology,
    world::keep_changing,
};
use crate::progress::Progress;

/// Design of the rows for UPDATEs.
pub(crate) const UPDATES: &str = "dimls";
/// Design of the rows for application messages.
pub(crate) const MESSAGES: &str = "dimls message";

/// Rows for a topology: UPDATEs and messages for each size of a group. `taken_in` is what taking in an UPDATE of such a group costs;
/// `sync` the median of a sync on the disk.
pub(crate) async fn run(
    plan: &Plan,
    topology: &Topology,
    taken_in: impl Fn(usize) -> Duration,
    sync: Duration,
    progress: &Progress,
) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (nth, count) in plan.sizes.iter().enumerate() {
        // It concerns the design on the topology, whatever the size of the group.
        let cut_off = nth == 0 && topology.sites.len() > 1;
        let of = Measurement { plan, topology, count: *count, taken_in: taken_in(*count), sync, cut_off };
        rows.extend(scratch::within(&plan.data, "dimls-", async |dir| of.run(dir, progress).await).await?);
    }
    Ok(rows)
}

/// What is measured of one DGroup.
struct Measurement<'a> {
    plan: &'a Plan,
    topology: &'a Topology,
    /// Members.
    count: usize,
    /// What taking in one of its UPDATEs costs.
    taken_in: Duration,
    /// Median of a sync on the disk.
    sync: Duration,
    /// Also what becomes of it while the home site is cut off.
    cut_off: bool,
}

impl Measurement<'_> {
    async fn run(&self, dir: &Path, progress: &Progress) -> anyhow::Result<Vec<Row>> {
        let Self { plan, topology, count, .. } = *self;
        let label = format!("dimls on {}, groups of {count}", topology.name);
        progress.now(format!("{label}: its members come together"));
        // A mesh of its own, so that nothing of another group is in its gateways.
        let gateways = Gateways::start(topology, dir, plan.seed).await?;
        let mut members = Members::start(topology, &gateways, count, dir, plan.seed)
            .await
            .with_context(|| format!("{label}: its members do not come together"))?;
        let changing = keep_changing(&gateways.links, topology);
        let used = self.taken_in.as_secs_f64() * members.sessions() as f64;
        let rate = (plan.rate * ITEMS_RATE).min(ITEMS_CORE / used.max(f64::EPSILON));
        let mut rows = Vec::new();
        for what in [What::Update, What::Message] {
            progress.now(format!("{label}: {rate:.1} a second of kind {what:?}"));
            let load = Load { what, rate, time: plan.time / 2 };
            let sent = load::run(&mut members, &gateways, load).await?;
            rows.push(row(topology, count, members.sessions(), load, &sent, self.sync)?);
        }
        drop(changing);
        gateways.links.heal_all();
        if self.cut_off {
            progress.now(format!("{label}: the home site is cut off"));
            let load = Load { what: What::Update, rate, time: plan.fault };
            let isolated = load::isolate(&mut members, &gateways, topology, load).await?;
            if let Some(row) = rows.iter_mut().find(|row| row.design == UPDATES) {
                row.add_isolated(&isolated);
            }
        }
        progress.done(&label);
        Ok(rows)
    }
}

fn row(
    topology: &Topology,
    count: usize,
    sessions: usize,
    load: Load,
    sent: &Sent,
    sync: Duration,
) -> anyhow::Result<Row> {
    let mut accepted = histogram()?;
    let (mut arrived, mut taken, mut to_floor) = (histogram()?, histogram()?, histogram()?);
    let (mut floor_ms, mut undelivered, mut bytes) = (0.0, 0, 0);
    for trace in &sent.traces {
        let floor = floor(topology, trace) + sync;
        floor_ms += millis(floor) / sent.traces.len() as f64;
        bytes += trace.bytes;
        if let Some(at) = trace.accepted {
            accepted.saturating_record(micros(at - trace.due));
        }
        if trace.arrived.0 + 1 == count {
            arrived.saturating_record(micros(trace.arrived.1 - trace.due));
        }
        if trace.taken.0 + 1 == count {
            let latency = trace.taken.1 - trace.due;
            taken.saturating_record(micros(latency));
            to_floor.saturating_record((latency.as_secs_f64() / floor.as_secs_f64() * 1e3) as u64);
        } else {
            undelivered += 1;
        }
    }
    let at = |histogram: &Histogram<u64>, quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    let items = sent.traces.len().max(1) as f64;
    Ok(Row {
        topology: topology.name.clone(),
        design: match load.what {
            What::Update => UPDATES.into(),
            What::Message => MESSAGES.into(),
        },
        group_size: count,
        sites: topology.sites.len(),
        rate_per_s: load.rate,
        commits: sent.traces.len() as u64,
        achieved_per_s: sent.traces.len() as f64 / sent.elapsed.as_secs_f64(),
        // Its own gateway is all that a sender waits for.
        floor_ms: millis(sync),
        ordering_p50_ms: at(&accepted, 0.5),
        ordering_p90_ms: at(&accepted, 0.9),
        ordering_p99_ms: at(&accepted, 0.99),
        ordering_p999_ms: at(&accepted, 0.999),
        ordering_p50_to_floor: at(&accepted, 0.5) / millis(sync).max(f64::EPSILON),
        delivery_p50_ms: at(&taken, 0.5),
        delivery_p90_ms: at(&taken, 0.9),
        delivery_p99_ms: at(&taken, 0.99),
        delivery_p999_ms: at(&taken, 0.999),
        delivery_floor_ms: Some(floor_ms),
        delivery_p50_to_floor: Some(at(&to_floor, 0.5)),
        arrival_p50_ms: Some(at(&arrived, 0.5)),
        undelivered,
        sessions: Some(sessions),
        commit_bytes: bytes / sent.traces.len().max(1),
        site_bytes_per_commit: sent.site_bytes as f64 / items,
        cpu_ms_per_commit: millis(sent.server_cpu) / items,
        ..Row::default()
    })
}

/// What the network takes at least: the longest of the shortest ways from the sender's site to a site with members.
fn floor(topology: &Topology, trace: &Trace) -> Duration {
    let ways = topology.shortest_ways(&topology.sites[trace.site].name, trace.bytes);
    let with_members = topology.sites.iter().zip(ways).filter(|(site, _)| site.members > 0);
    with_members.map(|(_, way)| way).max().unwrap_or_default()
}

impl Row {
    fn add_isolated(&mut self, isolated: &Isolated) {
        self.fault_lasted_s = Some(isolated.lasted.as_secs_f64());
        self.cut_others_ms = Some(millis(isolated.longest));
        self.cut_home_commits = Some(isolated.home);
        self.cut_others_commits = Some(isolated.others);
        self.healed_ms = isolated.healed.map(millis);
    }
}

fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, micros(LATENCY_MAX), 3)?)
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros().try_into().unwrap_or(u64::MAX)
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
