//! A closed loop: so many appends are under way at any time, each by a client of its own that goes on when it has its answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    limits::{APPEND_DEADLINE, LATENCY_MAX, RETRY_PAUSE},
    process::cpu_time,
    systems::{Append, Slot},
};

/// How long to load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// Appends that begin in this time are made, but not counted.
    pub(crate) warm_up: Duration,
    /// The time that counts, after it.
    pub(crate) measured: Duration,
}

/// What was measured.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Appends that began and ended in the window.
    pub(crate) accepted: u64,
    /// Refusals of correct appends, which were tried again. Their latency counts from the first attempt.
    pub(crate) refused: u64,
    /// From the first attempt to the answer, in nanoseconds.
    pub(crate) latencies: Histogram<u64>,
    /// Length of the window.
    pub(crate) elapsed: Duration,
    /// Processor time of all servers in the window.
    pub(crate) server_cpu: Duration,
    /// Processor time of this process in the window.
    pub(crate) client_cpu: Duration,
}

impl Measured {
    /// Appends a second.
    pub(crate) fn per_second(&self) -> f64 {
        self.accepted as f64 / self.elapsed.as_secs_f64()
    }

    /// A quantile of the latency, in milliseconds.
    pub(crate) fn quantile_ms(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1e6
    }
}

/// An empty histogram of latencies in nanoseconds.
pub(crate) fn histogram() -> anyhow::Result<Histogram<u64>> {
    let highest = u64::try_from(LATENCY_MAX.as_nanos())?;
    Ok(Histogram::new_with_bounds(1_000, highest, 3)?)
}

/// Keeps every slot busy for the whole window.
pub(crate) async fn closed_loop(
    slots: Vec<Slot>,
    payload: &Bytes,
    window: Window,
    servers: &[u32],
) -> anyhow::Result<Measured> {
    let stop = Arc::new(AtomicBool::new(false));
    let begin = Instant::now() + window.warm_up;
    let end = begin + window.measured;
    let mut clients = JoinSet::new();
    for slot in slots {
        clients.spawn(client(slot, payload.clone(), begin, end, stop.clone()));
    }
    let this = [std::process::id()];
    sleep(window.warm_up).await;
    let before = (cpu_time(servers), cpu_time(&this));
    sleep(window.measured).await;
    let after = (cpu_time(servers), cpu_time(&this));
    stop.store(true, Ordering::Relaxed);
    let mut measured = Measured {
        accepted: 0,
        refused: 0,
        latencies: histogram()?,
        elapsed: window.measured,
        server_cpu: after.0.saturating_sub(before.0),
        client_cpu: after.1.saturating_sub(before.1),
    };
    while let Some(ended) = clients.join_next().await {
        let (latencies, refused) = ended??;
        measured.refused += refused;
        measured.accepted += latencies.len() as u64;
        latencies.into_iter().for_each(|nanoseconds| measured.latencies.saturating_record(nanoseconds));
    }
    anyhow::ensure!(measured.accepted > 0, "nothing was accepted in {:?}", window.measured);
    Ok(measured)
}

/// One client. Returns the latencies of its appends in the window, in nanoseconds, and how many attempts were refused.
async fn client(
    mut slot: Slot,
    payload: Bytes,
    begin: Instant,
    end: Instant,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<(Vec<u64>, u64)> {
    let (mut latencies, mut refused) = (Vec::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        let started = Instant::now();
        let appended = timeout(APPEND_DEADLINE, append(&mut slot, &payload)).await;
        let refusals = appended.with_context(|| format!("no answer within {APPEND_DEADLINE:?}"))??;
        let ended = Instant::now();
        if started >= begin && ended < end {
            refused += refusals;
            latencies.push(u64::try_from((ended - started).as_nanos())?);
        }
    }
    Ok((latencies, refused))
}

/// Appends once, however many attempts that takes. Returns how many were refused.
pub(crate) async fn append(slot: &mut Slot, payload: &Bytes) -> anyhow::Result<u64> {
    let mut refused = 0;
    while let Append::Refused = slot.append(payload).await? {
        refused += 1;
        sleep(RETRY_PAUSE).await;
    }
    Ok(refused)
}
