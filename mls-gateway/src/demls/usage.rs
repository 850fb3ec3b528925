//! Who uses a group at this gateway, and since when nobody does.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::group::Group;

/// The use of one group.
pub(super) struct Usage(Mutex<Inner>);

struct Inner {
    /// A client has asked for it since the start, or since the gateway began to let go of it: the cluster is to count on this gateway.
    wanted: bool,
    /// Subscriptions, and submissions under way.
    watchers: usize,
    last: Instant,
}

impl Inner {
    fn is_idle(&self, idle: Duration) -> bool {
        self.watchers == 0 && self.last.elapsed() >= idle
    }
}

impl Usage {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Inner { wanted: false, watchers: 0, last: Instant::now() }))
    }

    /// Somebody asks for the group.
    pub(super) fn touch(&self) {
        self.0.lock().last = Instant::now();
    }

    /// A client asks for the group. True if it was not wanted before.
    pub(super) fn want(&self) -> bool {
        let mut inner = self.0.lock();
        inner.last = Instant::now();
        !std::mem::replace(&mut inner.wanted, true)
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.0.lock().wanted
    }

    /// Nobody has asked for it for so long, and nobody is subscribed.
    pub(super) fn is_idle(&self, idle: Duration) -> bool {
        self.0.lock().is_idle(idle)
    }

    /// It is not wanted any more, if it is idle. True if so; whoever asks from here on is heard.
    pub(super) fn give_up(&self, idle: Duration) -> bool {
        let mut inner = self.0.lock();
        let is_idle = inner.is_idle(idle);
        inner.wanted &= !is_idle;
        is_idle
    }
}

/// Somebody is subscribed to the group, or waits for an answer about it, for as long as this lives.
pub struct Watching(Arc<Group>);

impl Watching {
    /// Begins now.
    pub fn begin(group: &Arc<Group>) -> Self {
        group.usage.0.lock().watchers += 1;
        Self(Arc::clone(group))
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut inner = self.0.usage.0.lock();
        inner.watchers = inner.watchers.saturating_sub(1);
        inner.last = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_nobody_asks_for_is_given_up_and_can_be_wanted_again() {
        let idle = Duration::from_secs(10);
        let usage = Usage::new();
        assert!(usage.want() && !usage.want());
        tokio::time::advance(idle / 2).await;
        usage.touch();
        tokio::time::advance(idle / 2).await;
        assert!(!usage.is_idle(idle) && !usage.give_up(idle) && usage.is_wanted());
        tokio::time::advance(idle).await;
        assert!(usage.is_idle(idle) && usage.give_up(idle) && !usage.is_wanted());
        assert!(usage.want(), "whoever asks after that is heard");
        assert!(!usage.is_idle(idle));
    }
}
