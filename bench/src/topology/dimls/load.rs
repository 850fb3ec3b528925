//! The open loop over a DGroup: items are due at a stated rate, whatever becomes of those before.

use std::time::{Duration, Instant};

use links::Cut;
use tokio::time::{sleep, sleep_until};

use super::{
    gateways::Gateways,
    journal::{Trace, What},
    members::Members,
};
use crate::{
    limits::POLL_INTERVAL,
    process::cpu_time,
    topology::{
        limits::{DELIVERY_DEADLINE, RECOVERY_DEADLINE, TIMER_RESOLUTION},
        spec::Topology,
    },
};

/// What to load with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) what: What,
    /// Items a second, of all senders together.
    pub(super) rate: f64,
    pub(super) time: Duration,
}

/// What came out.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) traces: Vec<Trace>,
    pub(super) elapsed: Duration,
    pub(super) site_bytes: u64,
    pub(super) server_cpu: Duration,
}

/// Loads a DGroup, and waits until everything is everywhere, or for as long as deliveries may take.
pub(super) async fn run(members: &mut Members, gateways: &Gateways, load: Load) -> anyhow::Result<Sent> {
    let (bytes, cpu) = (gateways.links.all_bytes(), cpu_time(&gateways.processes()));
    let begun = Instant::now();
    send(members, load).await?;
    let elapsed = begun.elapsed();
    // What is missing is counted by whoever reads the result.
    let _ = settle(members, DELIVERY_DEADLINE).await?;
    Ok(Sent {
        traces: members.journal.take(),
        elapsed,
        site_bytes: gateways.links.all_bytes() - bytes,
        server_cpu: cpu_time(&gateways.processes()).saturating_sub(cpu),
    })
}

async fn send(members: &mut Members, load: Load) -> anyhow::Result<()> {
    let begun = Instant::now();
    for number in 0.. {
        let scheduled = begun + Duration::from_secs_f64(number as f64 / load.rate);
        if scheduled >= begun + load.time {
            break;
        }
        sleep_until(scheduled.into()).await;
        members.check()?;
        let now = Instant::now();
        members.send(number, load.what, if now - scheduled <= TIMER_RESOLUTION { now } else { scheduled })?;
    }
    Ok(())
}

/// Waits until nothing is open any more. Returns whether that came in time.
async fn settle(members: &mut Members, deadline: Duration) -> anyhow::Result<bool> {
    let begun = Instant::now();
    while members.journal.open(members.count - 1) > 0 {
        members.check()?;
        if begun.elapsed() >= deadline {
            return Ok(false);
        }
        sleep(POLL_INTERVAL).await;
    }
    Ok(true)
}

/// What the home site being cut off does to a DGroup.
#[derive(Debug, Clone, Copy)]
pub(super) struct Isolated {
    pub(super) lasted: Duration,
    /// Items accepted meanwhile at the home site ...
    pub(super) home: u64,
    /// ... and at all others.
    pub(super) others: u64,
    /// The longest that a sender at another site waited for its gateway.
    pub(super) longest: Duration,
    /// From the heal until everything was everywhere; nothing if that took too long.
    pub(super) healed: Option<Duration>,
}

/// Loads a DGroup while the home site is cut off from all others.
pub(super) async fn isolate(
    members: &mut Members,
    gateways: &Gateways,
    topology: &Topology,
    load: Load,
) -> anyhow::Result<Isolated> {
    let home = topology.sites.iter().position(|site| site.name == topology.home);
    gateways.links.isolate(&topology.home, Cut::Stall)?;
    send(members, load).await?;
    let healed = Instant::now();
    gateways.links.heal_all();
    let is_whole = settle(members, RECOVERY_DEADLINE).await?;
    let traces = members.journal.take();
    let accepted = |trace: &&Trace| trace.accepted.is_some_and(|at| at <= healed);
    let (at_home, elsewhere): (Vec<&Trace>, Vec<&Trace>) =
        traces.iter().filter(accepted).partition(|trace| Some(trace.site) == home);
    let waited = |trace: &&Trace| trace.accepted.map(|at| at - trace.due);
    Ok(Isolated {
        lasted: load.time,
        home: at_home.len() as u64,
        others: elsewhere.len() as u64,
        longest: elsewhere.iter().filter_map(waited).max().unwrap_or_default(),
        healed: traces.iter().map(|t| t.taken.1.saturating_duration_since(healed)).max().filter(|_| is_whole),
    })
}
