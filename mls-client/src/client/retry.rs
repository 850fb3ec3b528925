//! Trying again: longer and longer pauses, each drawn at random, so that clients that failed together do not come back together.

use std::time::Duration;

use service_kit::rng::Randomness;
use tokio::time::{Instant, sleep};

use super::{Client, Options, counters::Tally};
use crate::transport::{Call, CallError};

/// Pauses that grow.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    next: Duration,
    longest: Duration,
}

impl Backoff {
    pub(super) fn new(options: &Options) -> Self {
        let (first, longest) = (options.first_pause, options.longest_pause);
        Backoff { first, next: first, longest }
    }

    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }

    /// The next pause. A hint of the gateway is the least, as far as it is not beyond the longest pause.
    fn draw(&mut self, hint: Option<Duration>, rng: &Randomness) -> Duration {
        let span = self.next;
        self.next = (self.next * 2).min(self.longest);
        let drawn = span / 2 + Duration::from_micros(rng.below(span.as_micros() as u64 + 1));
        hint.map_or(drawn, |hint| hint.min(self.longest) + drawn / 2)
    }
}

impl Client {
    pub(super) fn backoff(&self) -> Backoff {
        Backoff::new(self.options())
    }

    /// Waits for the next pause of `backoff`.
    pub(super) async fn pause(&self, backoff: &mut Backoff, hint: Option<Duration>) {
        let pause = backoff.draw(hint, self.rng());
        if pause.is_zero() { tokio::task::yield_now().await } else { sleep(pause).await }
    }

    /// Makes a call that may be made again until it has an answer, for as long as the client's patience lasts.
    pub(super) async fn persist<'a, T>(&'a self, call: impl Fn() -> Call<'a, T>) -> Result<T, CallError> {
        self.persist_unless(call, |_| false).await
    }

    /// The same, but an error for which `gives_up` holds is returned at once.
    pub(super) async fn persist_unless<'a, T>(
        &'a self,
        call: impl Fn() -> Call<'a, T>,
        gives_up: impl Fn(&CallError) -> bool,
    ) -> Result<T, CallError> {
        let (mut backoff, deadline) = (self.backoff(), Instant::now() + self.options().patience);
        loop {
            match call().await {
                Err(error) if error.is_temporary() && !gives_up(&error) && Instant::now() < deadline => {
                    Tally::count(&self.tally().retried);
                    self.pause(&mut backoff, error.retry_after).await;
                }
                answer => return answer,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_respect_the_hint() {
        let (rng, options) = (Randomness::from_seed(7), Options::default());
        let mut backoff = Backoff::new(&options);
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            last = backoff.draw(None, &rng);
            assert!(last >= options.first_pause / 2 && last <= options.longest_pause * 3 / 2);
        }
        assert!(last >= options.longest_pause / 2);
        backoff.reset();
        assert!(backoff.draw(None, &rng) <= options.first_pause * 3 / 2);
        let hint = Duration::from_millis(700);
        assert!(backoff.draw(Some(hint), &rng) >= hint);
    }
}
