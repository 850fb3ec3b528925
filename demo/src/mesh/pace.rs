//! The members' time: it passes only as fast as this machine lets what is sent arrive, so that nobody is taken for gone because the
//! machine is busy.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use service_kit::clock::{ManualClock, WallClock};
use tokio::time::sleep;

/// Between two steps of the clock, and between two looks at what has moved.
const STEP: Duration = Duration::from_millis(50);
/// What is made is taken in by everybody before so much more time has passed, twice. Less than half of what is left between a member's signs
/// of life and being taken for gone.
const LAG_MS: u64 = 4000;
/// Nothing at all has moved for so long: it never will.
const STANDSTILL: Duration = Duration::from_secs(180);
/// So much of the members' time has brought nothing nearer: it never comes. Longer than all that their policies make them wait for.
const IN_VAIN_MS: u64 = 180_000;

/// One member's view of the common clock. Remembers up to when it was read: whoever reads it is at work.
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    clock: ManualClock,
    read: Arc<AtomicU64>,
}

impl Watch {
    pub(crate) fn of(clock: &ManualClock) -> Self {
        Self { clock: clock.clone(), read: Arc::default() }
    }

    /// The latest time that was read.
    pub(crate) fn read_ms(&self) -> u64 {
        self.read.load(Ordering::SeqCst)
    }
}

impl WallClock for Watch {
    fn now_ms(&self) -> u64 {
        let now = self.clock.now_ms();
        self.read.fetch_max(now, Ordering::SeqCst);
        now
    }
}

/// How the clock is moved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// How far at once, and how long that takes at least.
    step: Duration,
    /// What was made at one time is taken in before so much more has passed.
    lag_ms: u64,
}

impl Pace {
    pub(crate) const DEMO: Self = Self { step: STEP, lag_ms: LAG_MS };

    /// Moves the clock on for ever. `made` says what there is to be taken in, and `is_behind` whether somebody has not taken in that much,
    /// or has not read the clock since.
    pub(crate) async fn keep<T>(
        self,
        clock: ManualClock,
        made: impl Fn() -> T,
        is_behind: impl Fn(&T, u64) -> bool,
    ) {
        loop {
            let (by_then, since) = (made(), clock.now_ms());
            while clock.now_ms() < since + self.lag_ms {
                sleep(self.step).await;
                clock.advance_ms(self.step.as_millis() as u64);
            }
            while is_behind(&by_then, since) {
                sleep(self.step).await;
            }
        }
    }
}

/// Watches something come nearer. Gives up only when nothing has moved for a long time, however fast the machine is.
pub(crate) struct Patience {
    /// The least that was left, and the members' time since.
    least: (usize, u64),
    /// What had moved last, and when.
    last: (u64, u64),
    moved: Instant,
}

impl Patience {
    pub(crate) fn new() -> Self {
        Self { least: (usize::MAX, 0), last: (0, 0), moved: Instant::now() }
    }

    /// So much is `left` at the members' time `now_ms`; `progress` changes with whatever moves.
    ///
    /// # Errors
    /// What `left` counts does not get less any more.
    pub(crate) fn look(&mut self, left: usize, progress: u64, now_ms: u64) -> anyhow::Result<()> {
        if left < self.least.0 {
            self.least = (left, now_ms);
        }
        if self.last != (progress, now_ms) {
            (self.last, self.moved) = ((progress, now_ms), Instant::now());
        }
        anyhow::ensure!(self.moved.elapsed() < STANDSTILL, "nothing has moved for {STANDSTILL:?}");
        let in_vain = now_ms.saturating_sub(self.least.1);
        anyhow::ensure!(in_vain < IN_VAIN_MS, "{in_vain} ms of the members' time brought nothing nearer");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_clock_stands_still_while_somebody_is_behind() {
        let (clock, taken) = (ManualClock::at_ms(0), Arc::new(AtomicU64::new(0)));
        let seen = Arc::clone(&taken);
        let pace = Pace { step: Duration::from_millis(1), lag_ms: 20 };
        let keeper = pace.keep(clock.clone(), || 7, move |made, _| seen.load(Ordering::SeqCst) < *made);
        let keeper = tokio::spawn(keeper);
        let is_at_least = async |ms: u64| {
            while clock.now_ms() < ms {
                sleep(pace.step).await;
            }
        };
        is_at_least(20).await;
        for _ in 0..50 {
            sleep(pace.step).await;
            assert_eq!(clock.now_ms(), 20);
        }
        taken.store(7, Ordering::SeqCst);
        is_at_least(100).await;
        keeper.abort();
    }

    #[test]
    fn patience_ends_when_nothing_comes_nearer_in_the_members_time_and_not_before() {
        let mut patience = Patience::new();
        for now in 0..100 {
            patience.look(100 - now as usize, now, now * 100_000).unwrap();
        }
        patience.look(1, 1, 99 * 100_000 + IN_VAIN_MS - 1).unwrap();
        assert!(patience.look(1, 2, 99 * 100_000 + IN_VAIN_MS).is_err(), "it moves in vain");
        let watch = Watch::of(&ManualClock::at_ms(5));
        assert_eq!((watch.read_ms(), watch.now_ms(), watch.read_ms()), (0, 5, 5));
    }
}
