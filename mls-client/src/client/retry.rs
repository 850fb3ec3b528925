//! Trying again: longer and longer pauses, each drawn at random, so that clients that failed together do not come back together.

use std::time::Duration;

use service_kit::rng::Randomness;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{Client, Options, counters::Tally};
use crate::{
    limits::LOSS_PAUSE_MAX,
    transport::{Call, CallError},
};

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

    /// For who lost to somebody else's commit. That the group gets on is no reason to wait ever longer: whoever is left has fewer
    /// rivals each time.
    pub(super) fn backoff_after_loss(&self) -> Backoff {
        let options = self.options();
        Backoff { longest: options.longest_pause.min(LOSS_PAUSE_MAX), ..Backoff::new(options) }
    }

    /// To be had before a call is made, for [`Client::pause_unless_decided`] after it.
    pub(super) fn decisions(&self) -> watch::Receiver<u64> {
        self.inner.decisions.subscribe()
    }

    /// A gateway has said how a group is served from now on: whoever waits for that need wait no longer.
    pub(super) fn decided(&self) {
        self.inner.decisions.send_modify(|decisions| *decisions += 1);
    }

    /// Waits for the next pause of `backoff`, or only for a first one after a decision that has come since `decisions` was had. So what was
    /// begun without a quorum goes on when there is one, however long it had to wait before.
    pub(super) async fn pause_unless_decided(
        &self,
        backoff: &mut Backoff,
        hint: Option<Duration>,
        decisions: &mut watch::Receiver<u64>,
    ) {
        tokio::select! {
            () = self.pause(backoff, hint) => {}
            // The client itself keeps the sender.
            _ = decisions.changed() => {
                backoff.reset();
                self.pause(backoff, None).await;
            }
        }
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
        let mut decisions = self.decisions();
        loop {
            decisions.borrow_and_update();
            match call().await {
                Err(error) if error.is_temporary() && !gives_up(&error) && Instant::now() < deadline => {
                    Tally::count(&self.tally().retried);
                    self.pause_unless_decided(&mut backoff, error.retry_after, &mut decisions).await;
                }
                answer => return answer,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use group_log::ClientId;
    use tokio::time::timeout;

    use super::*;
    use crate::{
        identity::{DEFAULT_CIPHERSUITE, Identity},
        store::Store,
        transport::GrpcTransport,
    };

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

    #[tokio::test]
    async fn a_decision_of_the_gateway_ends_a_long_pause() {
        const HOUR: Duration = Duration::from_secs(3600);
        let (id, mut store) = (ClientId::new(&b"ann"[..]).unwrap(), Store::in_memory().unwrap());
        Identity::create(&mut store, id.clone(), DEFAULT_CIPHERSUITE).unwrap();
        let nobody = GrpcTransport::new("http://127.0.0.1:1", &id).unwrap();
        let options = Options { longest_pause: HOUR, ..Options::default() };
        let client = Client::new(store, Arc::new(nobody), options, Randomness::from_seed(1)).unwrap();
        let (mut backoff, mut decisions) = (client.backoff(), client.decisions());
        let soon = Duration::from_secs(30);
        {
            let pause = client.pause_unless_decided(&mut backoff, Some(HOUR), &mut decisions);
            tokio::pin!(pause);
            assert!(futures::poll!(&mut pause).is_pending());
            client.decided();
            timeout(soon, pause).await.expect("the pause has ended");
        }
        // One that comes between a call and its pause is not missed.
        client.decided();
        let pause = client.pause_unless_decided(&mut backoff, Some(HOUR), &mut decisions);
        timeout(soon, pause).await.expect("there is none");
    }
}
