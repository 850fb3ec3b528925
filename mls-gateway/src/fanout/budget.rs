//! The memory that all rings share. When it is used up, the oldest entry of all groups goes first.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

use super::feed::Feed;
use crate::metrics;

/// How many bytes the rings hold together, and whose oldest entry is the oldest.
pub(super) struct Budget {
    state: Mutex<State>,
    limit: usize,
}

#[derive(Default)]
struct State {
    bytes: usize,
    next_stamp: u64,
    /// By the stamp of its oldest entry: every feed whose ring is not empty.
    oldest: BTreeMap<u64, Weak<Feed>>,
}

impl Budget {
    pub(super) fn with_limit(limit: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), limit })
    }

    /// Counts one more entry and stamps it. `first_of` is the feed, if its ring was empty.
    pub(super) fn charge(&self, bytes: usize, first_of: Option<&Weak<Feed>>) -> u64 {
        let mut state = self.state.lock();
        let stamp = state.next_stamp;
        state.next_stamp += 1;
        state.bytes += bytes;
        if let Some(feed) = first_of {
            state.oldest.insert(stamp, feed.clone());
        }
        metrics::ring_bytes(state.bytes);
        stamp
    }

    /// The entry with this stamp has left its ring; `next` is the one that is the oldest there now.
    pub(super) fn release(&self, stamp: u64, bytes: usize, next: Option<u64>) {
        let mut state = self.state.lock();
        state.bytes = state.bytes.saturating_sub(bytes);
        if let (Some(feed), Some(next)) = (state.oldest.remove(&stamp), next) {
            state.oldest.insert(next, feed);
        }
        metrics::ring_bytes(state.bytes);
    }

    /// The feed that has to give up its oldest entry, as long as there is too much.
    pub(super) fn victim(&self) -> Option<Arc<Feed>> {
        let mut state = self.state.lock();
        while state.bytes > self.limit {
            let (&stamp, feed) = state.oldest.first_key_value()?;
            match feed.upgrade() {
                Some(feed) => return Some(feed),
                // It is being dropped, and releases its bytes itself.
                None => state.oldest.remove(&stamp),
            };
        }
        None
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.state.lock().bytes
    }
}
