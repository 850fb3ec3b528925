//! The open loop: commits come at a stated rate, whatever becomes of those before.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt};
use hdrhistogram::Histogram;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use testbed::wait::until;
use tokio::{task::JoinSet, time::sleep_until};

use super::{
    chain::Chain,
    chains::Chains,
    client::{Answer, Arrivals},
    limits::{
        ATTEMPT_DEADLINE, DELIVERY_DEADLINE, GROUPS_MAX, LATENCY_MAX, SET_UP_AT_ONCE, TIMER_RESOLUTION,
    },
    world::World,
};
use crate::process::cpu_time;

/// What to load with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Commits a second, of all groups and sites together.
    pub(crate) rate: f64,
    pub(crate) time: Duration,
    pub(crate) members: usize,
    /// The longest that a commit takes where nothing but the network does. So many groups are loaded that each has long been answered when its
    /// next commit is due.
    pub(crate) slowest: Duration,
    /// Median of a sync on the disk.
    pub(crate) sync: Duration,
    /// Members take turns of this length.
    pub(crate) turn: Option<Duration>,
    /// Draws who wants to commit, where members take turns.
    pub(crate) seed: u64,
}

/// What came out. Latencies in microseconds.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) commits: u64,
    pub(crate) elapsed: Duration,
    /// From the moment that a commit was due until its sender knew it was accepted.
    pub(crate) ordering: Histogram<u64>,
    /// From the same moment until the last site had it.
    pub(crate) delivery: Histogram<u64>,
    /// Each ordering latency by the floor of its site, in thousandths.
    pub(crate) to_floor: Histogram<u64>,
    /// Mean floor of the commits, in milliseconds.
    pub(crate) floor_ms: f64,
    /// Commits that some site did not have in time.
    pub(crate) undelivered: u64,
    pub(crate) site_bytes: u64,
    pub(crate) server_cpu: Duration,
    pub(crate) commit_bytes: usize,
}

struct Done {
    group: usize,
    epoch: u64,
    due: Instant,
    answered: Instant,
    site: usize,
}

fn groups(load: &Load) -> usize {
    let round = load.turn.unwrap_or_default() * load.members as u32;
    let wanted = load.rate * (load.slowest.as_secs_f64() * 4.0 + round.as_secs_f64() + 0.1);
    (wanted.ceil() as usize).clamp(1, GROUPS_MAX)
}

/// Loads the world.
pub(crate) async fn run(world: &World, chains: &Chains, load: Load, name: &str) -> anyhow::Result<Loaded> {
    let count = groups(&load);
    let total = (load.rate * load.time.as_secs_f64()).ceil() as usize;
    let each = total.div_ceil(count) + 1;
    let chains = chains.get(name, load.members, count, each).await?;
    let commit_bytes = chains.first().map_or(0, |chain| chain.commit_bytes());
    let turns = world.turns();
    let arrivals = Arc::new(Arrivals::default());
    let set_up = |(i, chain): (usize, Arc<Chain>)| {
        let client = world.clients[turns[i % turns.len()]].clone();
        async move {
            client.create(&chain).await?;
            // The first commit adds everybody else, and is not of the kind that is measured.
            client.commit(&chain.commits[0], ATTEMPT_DEADLINE, ATTEMPT_DEADLINE).await?;
            if let Some(turn) = load.turn {
                let order = (0..load.members).map(member).collect();
                client.take_turns(&chain, 1, order, turn).await?;
            }
            anyhow::Ok(())
        }
    };
    let all = futures::stream::iter(chains.iter().cloned().enumerate()).map(set_up);
    all.buffer_unordered(SET_UP_AT_ONCE).try_collect::<()>().await?;
    let follow_everywhere =
        |chain: &Arc<Chain>| world.clients.iter().map(|c| c.follow(&chain.id, &arrivals)).collect::<Vec<_>>();
    let _followers: Vec<_> = chains.iter().flat_map(follow_everywhere).collect();
    let sites = world.clients.len();
    let ready = || chains.iter().all(|chain| arrivals.last(&chain.id, 0, sites).is_some()).then_some(());
    until("every site to follow every group", DELIVERY_DEADLINE, ready).await?;

    let (bytes, cpu) = (world.links.all_bytes(), cpu_time(&world.processes()));
    let begun = Instant::now();
    let mut senders = JoinSet::new();
    for (i, chain) in chains.iter().enumerate() {
        let (chain, clients, turns) = (Arc::clone(chain), world.clients.clone(), turns.clone());
        let mut rng = ChaCha8Rng::seed_from_u64(load.seed ^ i as u64);
        senders.spawn(async move {
            let mut done = Vec::new();
            for epoch in 1..each {
                let number = (epoch - 1) * count + i;
                let scheduled = begun + Duration::from_secs_f64(number as f64 / load.rate);
                if scheduled >= begun + load.time {
                    break;
                }
                sleep_until(scheduled.into()).await;
                let now = Instant::now();
                let due = if now - scheduled <= TIMER_RESOLUTION { now } else { scheduled };
                let message = &chain.commits[epoch];
                let (site, answer) = if load.turn.is_some() {
                    // Anybody may want to, whosever turn it is.
                    let who = rng.random_range(0..load.members);
                    let site = turns[who % turns.len()];
                    let client = &clients[site];
                    let answer =
                        client.commit_as(&member(who), message, ATTEMPT_DEADLINE, LATENCY_MAX).await?;
                    (site, answer)
                } else {
                    let site = turns[number % turns.len()];
                    (site, clients[site].commit(message, ATTEMPT_DEADLINE, LATENCY_MAX).await?)
                };
                anyhow::ensure!(answer == Some(Answer::Accepted), "a commit without a rival got {answer:?}");
                done.push(Done { group: i, epoch: epoch as u64, due, answered: Instant::now(), site });
            }
            Ok(done)
        });
    }
    let mut done = Vec::new();
    while let Some(sent) = senders.join_next().await {
        done.extend(sent??);
    }
    let elapsed = begun.elapsed();
    let arrived = || {
        let all = done.iter().all(|d| arrivals.last(&chains[d.group].id, d.epoch, sites).is_some());
        all.then_some(())
    };
    // What is missing is counted below.
    let _ = until("every site to have everything", DELIVERY_DEADLINE, arrived).await;
    let site_bytes = world.links.all_bytes() - bytes;
    let server_cpu = cpu_time(&world.processes()).saturating_sub(cpu);
    let mut loaded = Loaded {
        commits: done.len() as u64,
        elapsed,
        ordering: histogram()?,
        delivery: histogram()?,
        to_floor: histogram()?,
        floor_ms: 0.0,
        undelivered: 0,
        site_bytes,
        server_cpu,
        commit_bytes,
    };
    for d in &done {
        let latency = d.answered - d.due;
        let floor = world.floor_for(&world.clients[d.site].site, load.sync, commit_bytes);
        loaded.ordering.saturating_record(micros(latency));
        loaded.to_floor.saturating_record((latency.as_secs_f64() / floor.as_secs_f64() * 1e3) as u64);
        loaded.floor_ms += floor.as_secs_f64() * 1e3 / done.len() as f64;
        match arrivals.last(&chains[d.group].id, d.epoch, sites) {
            Some(last) => loaded.delivery.saturating_record(micros(last.saturating_duration_since(d.due))),
            None => loaded.undelivered += 1,
        }
    }
    Ok(loaded)
}

/// The client id of a member, where members take turns.
pub(crate) fn member(number: usize) -> String {
    format!("member-{number}")
}

fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, micros(LATENCY_MAX), 3)?)
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros().try_into().unwrap_or(u64::MAX)
}
