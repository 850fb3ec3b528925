//! How much of one stream each node has synced.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Appends of one stream that each node has synced, counted from the stream's beginning.
#[derive(Debug)]
pub(super) struct Progress {
    synced: Vec<AtomicU64>,
    changed: Notify,
}

impl Progress {
    /// None has synced anything.
    pub(super) fn new(nodes: usize) -> Self {
        Self { synced: (0..nodes).map(|_| AtomicU64::new(0)).collect(), changed: Notify::new() }
    }

    /// `node` has synced `count` appends.
    pub(super) fn reach(&self, node: usize, count: u64) {
        self.synced[node].store(count, Ordering::Release);
        self.changed.notify_one();
    }

    /// What a majority has synced, as soon as that is more than `told`. For one waiter; may be dropped and asked again.
    pub(super) async fn safe_beyond(&self, told: u64) -> u64 {
        loop {
            let safe = self.safe();
            if safe > told {
                return safe;
            }
            self.changed.notified().await;
        }
    }

    fn safe(&self) -> u64 {
        let mut synced: Vec<_> = self.synced.iter().map(|count| count.load(Ordering::Acquire)).collect();
        synced.sort_unstable_by(|a, b| b.cmp(a));
        synced[synced.len() / 2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_append_is_safe_when_two_of_three_have_synced_it() {
        let progress = Progress::new(3);
        progress.reach(2, 7);
        assert_eq!(progress.safe(), 0);
        progress.reach(0, 5);
        assert_eq!(progress.safe_beyond(0).await, 5);
        progress.reach(1, 9);
        assert_eq!(progress.safe_beyond(5).await, 7);
    }

    #[test]
    fn a_node_that_passes_nothing_on_answers_for_itself() {
        let progress = Progress::new(1);
        progress.reach(0, 3);
        assert_eq!(progress.safe(), 3);
    }
}
