//! When which item was where.

use std::{collections::BTreeMap, time::Instant};

use parking_lot::Mutex;

/// What an item carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// New keys for its sender: a commit with a path and a KeyPackage.
    Update,
    /// An application message of [`MESSAGE_BYTES`](crate::topology::limits::MESSAGE_BYTES).
    Message,
}

/// The way of one item.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trace {
    /// Number of the sender's site.
    pub(super) site: usize,
    pub(super) bytes: usize,
    /// When it was to be sent.
    pub(super) due: Instant,
    /// When its sender knew that its gateway keeps it.
    pub(super) accepted: Option<Instant>,
    /// Members that it has reached, and when it reached the last of them.
    pub(super) arrived: (usize, Instant),
    /// Members that have taken it in, and when the last of them had.
    pub(super) taken: (usize, Instant),
}

/// All items that were sent on purpose; others are not noted.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// By the number of the sender and of the item in its stream.
    traces: Mutex<BTreeMap<(usize, u64), Trace>>,
}

impl Journal {
    /// An item was made. To be called before it is handed to anybody.
    pub(super) fn sent(&self, key: (usize, u64), site: usize, bytes: usize, due: Instant) {
        let none = (0, due);
        let trace = Trace { site, bytes, due, accepted: None, arrived: none, taken: none };
        self.traces.lock().insert(key, trace);
    }

    pub(super) fn accepted(&self, key: (usize, u64)) {
        self.change(key, |trace, now| trace.accepted = Some(now));
    }

    /// It has reached another member.
    pub(super) fn arrived(&self, key: (usize, u64)) {
        self.change(key, |trace, now| trace.arrived = (trace.arrived.0 + 1, now));
    }

    /// Another member has taken it in.
    pub(super) fn taken(&self, key: (usize, u64)) {
        self.change(key, |trace, now| trace.taken = (trace.taken.0 + 1, now));
    }

    fn change(&self, key: (usize, u64), change: impl FnOnce(&mut Trace, Instant)) {
        let mut traces = self.traces.lock();
        if let Some(trace) = traces.get_mut(&key) {
            // Read under the lock, so that the last one is the latest.
            change(trace, Instant::now());
        }
    }

    /// How many items some of `others` members have not taken in, or whose sender has no answer.
    pub(super) fn open(&self, others: usize) -> usize {
        let is_open = |trace: &&Trace| trace.taken.0 < others || trace.accepted.is_none();
        self.traces.lock().values().filter(is_open).count()
    }

    /// Everything so far. What follows is noted anew.
    pub(super) fn take(&self) -> Vec<Trace> {
        std::mem::take(&mut *self.traces.lock()).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_open_until_all_others_have_taken_it_in_and_its_sender_knows() {
        let journal = Journal::default();
        journal.taken((0, 1));
        assert_eq!(journal.open(2), 0, "what was not sent on purpose is not noted");
        let due = Instant::now();
        journal.sent((0, 1), 3, 100, due);
        journal.arrived((0, 1));
        journal.taken((0, 1));
        journal.taken((0, 1));
        assert_eq!(journal.open(2), 1);
        journal.accepted((0, 1));
        assert_eq!(journal.open(2), 0);
        let traces = journal.take();
        assert_eq!((traces[0].arrived.0, traces[0].taken.0, traces[0].site), (1, 2, 3));
        assert!(traces[0].taken.1 >= traces[0].arrived.1 && traces[0].arrived.1 >= due);
        assert!(journal.take().is_empty());
    }
}
