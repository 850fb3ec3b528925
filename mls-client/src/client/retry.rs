//! Trying again: longer and longer pauses, each drawn at random, so that clients that failed together do not come back together.

use std::time::Duration;

use service_kit::rng::Randomness;
use tokio::time::{Instant, sleep};

use super::{Client, counters::Tally};
use crate::{
    limits::{BACKOFF_MAX, BACKOFF_MIN},
    transport::{Call, CallError},
};

/// Pauses that grow.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Backoff { next: BACKOFF_MIN }
    }

    pub(super) fn reset(&mut self) {
        self.next = BACKOFF_MIN;
    }

    /// The next pause: at least what the gateway hints at, at most that and [`BACKOFF_MAX`].
    pub(super) fn draw(&mut self, hint: Option<Duration>, rng: &Randomness) -> Duration {
        let span = self.next;
        self.next = (self.next * 2).min(BACKOFF_MAX);
        let drawn = span / 2 + Duration::from_micros(rng.below(span.as_micros() as u64 + 1));
        hint.map_or(drawn, |hint| hint.min(BACKOFF_MAX) + drawn / 2)
    }
}

impl Client {
    /// Makes a call that may be made again until it has an answer, for as long as the client's patience lasts.
    pub(super) async fn persist<'a, T>(&'a self, call: impl Fn() -> Call<'a, T>) -> Result<T, CallError> {
        let (mut backoff, deadline) = (Backoff::new(), Instant::now() + self.options().patience);
        loop {
            let error = match call().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let pause = backoff.draw(error.retry_after, self.rng());
            if !error.is_temporary() || Instant::now() + pause > deadline {
                return Err(error);
            }
            Tally::count(&self.tally().retried);
            sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_respect_the_hint() {
        let rng = Randomness::from_seed(7);
        let mut backoff = Backoff::new();
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            last = backoff.draw(None, &rng);
            assert!(last >= BACKOFF_MIN / 2 && last <= BACKOFF_MAX * 3 / 2);
        }
        assert!(last >= BACKOFF_MAX / 2);
        backoff.reset();
        assert!(backoff.draw(None, &rng) <= BACKOFF_MIN * 3 / 2);
        let hint = Duration::from_millis(700);
        assert!(backoff.draw(Some(hint), &rng) >= hint);
    }
}
