//! How long each step takes, and what is promised about that.

use std::time::{Duration, Instant};

use super::world::{ELECTION_TIMEOUT, PROFILE};

/// From the loss of the quorum to the first commit on a branch: at most so many election timeouts.
const ELECTION_TIMEOUTS_MAX: u32 = 2;

/// How often it is seen whether the machine keeps up.
const TICK: Duration = Duration::from_millis(5);

/// The steps so far.
#[derive(Debug, Default)]
pub(super) struct Steps {
    /// What, and how long it took.
    pub(super) took: Vec<(&'static str, String)>,
    /// What took too long.
    pub(super) findings: Vec<String>,
}

impl Steps {
    /// Goes through a step.
    pub(super) async fn time<T>(&mut self, what: &'static str, step: impl Future<Output = T>) -> T {
        let begun = Instant::now();
        let result = step.await;
        self.took.push((what, format!("{} ms", begun.elapsed().as_millis())));
        result
    }

    /// Groups begin branches; `step` gives how long after the network was cut each of them did.
    pub(super) async fn fork(
        &mut self,
        what: &'static str,
        step: impl Future<Output = anyhow::Result<Vec<Duration>>>,
    ) -> anyhow::Result<()> {
        let (took, stalled) = with_stalls(step).await;
        let took = took?;
        let first = took.iter().min().copied().unwrap_or_default();
        let last = took.iter().max().copied().unwrap_or_default();
        let timeouts = first.as_secs_f64() / ELECTION_TIMEOUT.as_secs_f64();
        let bound = ELECTION_TIMEOUT * ELECTION_TIMEOUTS_MAX;
        self.took.push((
            what,
            format!(
                "{} ms: {timeouts:.2} x the election timeout of the profile {PROFILE} ({} ms); the last group {} ms; stalls of {} ms",
                first.as_millis(),
                ELECTION_TIMEOUT.as_millis(),
                last.as_millis(),
                stalled.as_millis()
            ),
        ));
        if first > bound + stalled {
            self.findings.push(format!("{what}: it took {first:?}, more than {bound:?}"));
        }
        Ok(())
    }
}

/// The longest time for which this machine was too busy to go on with what was due, while `work` was done.
async fn with_stalls<T>(work: impl Future<Output = T>) -> (T, Duration) {
    tokio::pin!(work);
    let (mut longest, mut due) = (Duration::ZERO, tokio::time::Instant::now() + TICK);
    loop {
        tokio::select! {
            result = &mut work => return (result, longest),
            () = tokio::time::sleep_until(due) => {
                let now = tokio::time::Instant::now();
                longest = longest.max(now - due);
                due = now + TICK;
            }
        }
    }
}
