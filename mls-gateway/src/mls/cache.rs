//! A bounded memory of groups: the least recently used is forgotten first.

use std::sync::Arc;

use group_log::GroupId;
use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;

use crate::metrics;

/// One `T` for each group, at most so many and so many bytes of them.
pub(super) struct Cache<T> {
    state: Mutex<State<T>>,
    max_groups: usize,
    max_bytes: usize,
}

struct State<T> {
    slots: LruCache<GroupId, Slot<T>>,
    bytes: usize,
}

struct Slot<T> {
    value: Arc<AsyncMutex<T>>,
    bytes: usize,
}

impl<T: Default> Cache<T> {
    pub(super) fn new(max_groups: usize, max_bytes: usize) -> Self {
        let state = Mutex::new(State { slots: LruCache::unbounded(), bytes: 0 });
        Self { state, max_groups, max_bytes }
    }

    /// What is remembered of a group. Whoever holds it goes on with it even if it is forgotten meanwhile.
    pub(super) fn slot(&self, group_id: &GroupId) -> Arc<AsyncMutex<T>> {
        let mut state = self.state.lock();
        let slot = state.slots.get_or_insert(group_id.clone(), || Slot { value: Arc::default(), bytes: 0 });
        Arc::clone(&slot.value)
    }

    /// A group takes so many bytes now. Forgets others if that is too much.
    pub(super) fn account(&self, group_id: &GroupId, bytes: usize) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if let Some(slot) = state.slots.peek_mut(group_id) {
            state.bytes = (state.bytes + bytes).saturating_sub(std::mem::replace(&mut slot.bytes, bytes));
        }
        while state.slots.len() > self.max_groups || state.bytes > self.max_bytes {
            let Some((_, slot)) = state.slots.pop_lru() else { break };
            state.bytes = state.bytes.saturating_sub(slot.bytes);
        }
        metrics::public_states(state.slots.len(), state.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(n: u8) -> GroupId {
        GroupId::new(vec![n]).unwrap()
    }

    #[tokio::test]
    async fn the_least_recently_used_groups_are_forgotten_beyond_either_bound() {
        let cache = Cache::<u8>::new(3, 100);
        for n in 0..4 {
            *cache.slot(&group(n)).lock().await = n + 1;
            cache.account(&group(n), 10);
        }
        assert_eq!(*cache.slot(&group(0)).lock().await, 0, "the fourth took its place");
        assert_eq!(*cache.slot(&group(3)).lock().await, 4);
        cache.account(&group(3), 95);
        assert_eq!(*cache.slot(&group(2)).lock().await, 0, "too many bytes beside it");
        assert_eq!(*cache.slot(&group(3)).lock().await, 4);
    }
}
