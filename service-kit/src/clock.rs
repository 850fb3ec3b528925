//! The wall clock, passed in. Use `tokio::time` for everything that measures how long something takes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// Tells the time of day.
pub trait WallClock: Send + Sync + 'static {
    /// Milliseconds since 1970-01-01 00:00 UTC. May jump in either direction.
    fn now_ms(&self) -> u64;
}

/// A clock that many parts of a process hold.
pub type SharedClock = Arc<dyn WallClock>;

/// The clock of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl SystemClock {
    /// The same clock, ready to be passed around.
    pub fn shared() -> SharedClock {
        Arc::new(Self)
    }
}

impl WallClock for SystemClock {
    fn now_ms(&self) -> u64 {
        // A clock set before 1970 reads as 1970: nothing here depends on more than an approximate order.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_millis().try_into().unwrap_or(u64::MAX))
    }
}

/// A clock that stands still until it is moved, for tests and simulations. Clones share the time.
#[derive(Debug, Clone, Default)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// A clock that shows `now_ms`.
    pub fn at_ms(now_ms: u64) -> Self {
        Self(Arc::new(AtomicU64::new(now_ms)))
    }

    /// Moves the clock forward by `ms` milliseconds.
    pub fn advance_ms(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl WallClock for ManualClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_of_a_manual_clock_share_the_time() {
        let clock = ManualClock::at_ms(5);
        let other = clock.clone();
        clock.advance_ms(7);
        assert_eq!(other.now_ms(), 12);
    }
}
