//! What a client counts.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::{event::EventKind, limits::LATENCY_SAMPLES};

/// Counters of one client since it was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Commits and creates of this client that are in the log.
    pub commits_accepted: u64,
    /// Commits of this client that lost their epoch.
    pub commits_superseded: u64,
    /// Commits that were built again on a winner.
    pub commits_rebased: u64,
    /// Commits that were refused for good.
    pub commits_refused: u64,
    /// Calls that were made again because the gateway could not answer.
    pub calls_retried: u64,
    /// Messages of this client that are in the log.
    pub messages_sent: u64,
    /// Messages that were encrypted again because their epoch was too old.
    pub messages_renewed: u64,
    /// Messages of others that were decrypted.
    pub messages_received: u64,
    /// Messages that could not be decrypted.
    pub messages_unreadable: u64,
    /// Streams that were opened again.
    pub reconnects: u64,
    /// From sending a commit to its answer, retries included; the latest [`LATENCY_SAMPLES`] of them.
    pub ordering_latency: Vec<Duration>,
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) accepted: AtomicU64,
    pub(super) superseded: AtomicU64,
    pub(super) rebased: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) retried: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) renewed: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) unreadable: AtomicU64,
    pub(super) reconnects: AtomicU64,
    latency: Mutex<VecDeque<Duration>>,
}

impl Tally {
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    pub(super) fn latency(&self, sample: Duration) {
        let mut samples = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() == LATENCY_SAMPLES {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// Counts what an event tells.
    pub(super) fn event(&self, event: &EventKind) {
        match event {
            EventKind::MessageReceived { .. } => Self::count(&self.received),
            EventKind::MessageSent { .. } => Self::count(&self.sent),
            EventKind::MessageUnreadable { .. } => Self::count(&self.unreadable),
            EventKind::Superseded { .. } => Self::count(&self.superseded),
            _ => {}
        }
    }

    pub(super) fn read(&self) -> Counters {
        let latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        Counters {
            commits_accepted: self.accepted.load(Relaxed),
            commits_superseded: self.superseded.load(Relaxed),
            commits_rebased: self.rebased.load(Relaxed),
            commits_refused: self.refused.load(Relaxed),
            calls_retried: self.retried.load(Relaxed),
            messages_sent: self.sent.load(Relaxed),
            messages_renewed: self.renewed.load(Relaxed),
            messages_received: self.received.load(Relaxed),
            messages_unreadable: self.unreadable.load(Relaxed),
            reconnects: self.reconnects.load(Relaxed),
            ordering_latency: latency.iter().copied().collect(),
        }
    }
}
