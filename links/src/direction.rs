//! One direction between two sites: when what is sent arrives, and whether it does.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::sync::watch;

use crate::{quality::Quality, timer::Timer};

/// What a cut does to connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Nothing arrives any more, and nobody is told: what a broken network does. New connections are silent as well.
    Stall,
    /// Connections are reset, new ones as well: what a firewall or a dying machine does.
    Reset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open { since: Instant },
    Closed(Cut),
}

/// One direction between two sites.
#[derive(Debug)]
pub(crate) struct Direction {
    line: Mutex<Line>,
    gate: watch::Sender<Gate>,
    arrived: AtomicU64,
}

#[derive(Debug)]
struct Line {
    quality: Quality,
    /// Everything sent so far has left by then.
    free_at: Instant,
    rng: ChaCha8Rng,
}

impl Direction {
    pub(crate) fn new(seed: u64, number: u64) -> Self {
        let now = Instant::now();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(number);
        Self {
            line: Mutex::new(Line { quality: Quality::default(), free_at: now, rng }),
            gate: watch::Sender::new(Gate::Open { since: now }),
            arrived: AtomicU64::new(0),
        }
    }

    pub(crate) fn quality(&self) -> Quality {
        self.line.lock().quality
    }

    pub(crate) fn set_quality(&self, quality: Quality) {
        self.line.lock().quality = quality;
    }

    pub(crate) fn cut(&self, cut: Cut) {
        self.gate.send_replace(Gate::Closed(cut));
    }

    /// Opens the gate, if it is closed.
    pub(crate) fn heal(&self) {
        self.gate.send_if_modified(|gate| match gate {
            Gate::Open { .. } => false,
            Gate::Closed(_) => {
                *gate = Gate::Open { since: Instant::now() };
                true
            }
        });
    }

    pub(crate) fn is_cut(&self) -> bool {
        matches!(*self.gate.borrow(), Gate::Closed(_))
    }

    pub(crate) fn resets(&self) -> bool {
        *self.gate.borrow() == Gate::Closed(Cut::Reset)
    }

    /// Bytes that have arrived so far.
    pub(crate) fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    pub(crate) fn count(&self, bytes: usize) {
        self.arrived.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Puts `bytes` on the line at `ready`, or as soon as it is free. Returns when they arrive.
    pub(crate) fn send(&self, bytes: usize, ready: Instant) -> Instant {
        let line = &mut *self.line.lock();
        line.free_at = line.free_at.max(ready) + line.quality.sending(bytes);
        let jitter = line.quality.jitter.as_nanos() as u64;
        let late = if jitter == 0 { 0 } else { line.rng.random_range(0..=jitter) };
        line.free_at + line.quality.delay + Duration::from_nanos(late)
    }

    /// Waits until what was sent to arrive at `due` does so. What a cut loses is sent again when the link has healed.
    pub(crate) async fn arrive(&self, due: Instant, timer: &mut Timer) -> io::Result<()> {
        let mut gate = self.gate.subscribe();
        loop {
            // The sender of the gate is `self`, and so cannot be gone.
            let since = match gate.wait_for(|gate| matches!(gate, Gate::Open { .. })).await.map(|g| *g) {
                Ok(Gate::Open { since }) => since,
                _ => return Err(io::ErrorKind::BrokenPipe.into()),
            };
            let due = if due < since { since + self.quality().delay } else { due };
            tokio::select! {
                biased;
                _ = gate.changed() => {}
                reached = timer.until(due) => return reached,
            }
        }
    }

    /// Completes when this direction resets its connections.
    pub(crate) async fn reset(&self) {
        let closed = self.gate.subscribe().wait_for(|gate| *gate == Gate::Closed(Cut::Reset)).await.is_ok();
        if !closed {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_jitter() {
        let draw = |seed| {
            let direction = Direction::new(seed, 3);
            let jitter = Duration::from_millis(5);
            direction.set_quality(Quality { jitter, ..Quality::default() });
            let at = Instant::now() + Duration::from_secs(1);
            (0..20).map(|_| direction.send(1, at).duration_since(at)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert!(draw(1).iter().all(|late| *late <= Duration::from_millis(5)));
    }

    #[test]
    fn what_is_sent_waits_until_the_line_is_free() {
        let direction = Direction::new(1, 0);
        let (delay, bandwidth) = (Duration::from_millis(10), std::num::NonZeroU64::new(1000));
        direction.set_quality(Quality { delay, bandwidth, ..Quality::default() });
        let at = Instant::now() + Duration::from_secs(1);
        assert_eq!(direction.send(100, at) - at, Duration::from_millis(110));
        assert_eq!(direction.send(100, at) - at, Duration::from_millis(210));
    }
}
