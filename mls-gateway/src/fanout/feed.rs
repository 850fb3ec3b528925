//! One followed group: its recent entries, verified once for everybody.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak, atomic::AtomicUsize},
};

use concordat_proto::log::v1::{self as pb, Reason};
use group_log::{ChainHash, ChainVerifier, CursorError, Entry, GroupId, StateId};
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

use super::budget::Budget;
use crate::{
    cluster::{GroupSink, Verdict},
    error::GatewayError,
    limits::{
        FOLLOW_LAG_MAX, MISMATCHES_MAX, PULL_ENTRIES_MAX, RING_BYTES_PER_GROUP_MAX, RING_ENTRY_OVERHEAD,
    },
    metrics,
    wire::{advance_head, payload_bytes},
};

/// What a subscriber finds at its cursor.
#[derive(Debug)]
pub enum Pull {
    /// The next entries.
    Entries(Vec<Arc<pb::Entry>>),
    /// The next entry has left the ring: read it from the cluster.
    Behind,
    /// Nothing newer is known; the head there, once everything up to it is known to be here.
    AtTip(Option<pb::Head>),
    /// The cursor is beyond what is known here.
    Ahead,
    /// The subscriber has seen another log.
    Mismatch(CursorError),
    /// The group cannot be followed.
    Failed(GatewayError),
}

/// A followed group.
pub struct Feed {
    group_id: GroupId,
    budget: Arc<Budget>,
    this: Weak<Feed>,
    pub(super) subscribers: AtomicUsize,
    inner: Mutex<Inner>,
    /// Changes whenever a pull can find something else.
    changed: watch::Sender<()>,
}

struct Inner {
    ring: VecDeque<Kept>,
    ring_bytes: usize,
    /// Chain hash of the entry before the ring's first.
    before_ring: ChainHash,
    head: pb::Head,
    verifier: ChainVerifier,
    /// The upstream has said that everything up to some head was delivered.
    live: bool,
    /// The newest entry that the cluster is known to have accepted, and since when it is missing here.
    expected: Option<(u64, Instant)>,
    /// Since when the node followed does not know what it should.
    refused_since: Option<Instant>,
    mismatches: u32,
    failed: Option<GatewayError>,
}

struct Kept {
    entry: Arc<pb::Entry>,
    bytes: usize,
    stamp: u64,
}

impl Feed {
    /// A feed that goes on from `head`.
    pub(super) fn new(
        group_id: GroupId,
        head: pb::Head,
        budget: Arc<Budget>,
    ) -> Result<Arc<Self>, GatewayError> {
        // Its marks can only be followed by the rules, which need a copy of the log.
        if head.kind() == pb::GroupKind::Demls {
            return Err(GatewayError::NoStorage);
        }
        let chain =
            ChainHash::from_slice(&head.chain_hash).map_err(|_| GatewayError::Protocol("a chain hash"))?;
        let state = StateId::from_slice(&head.state_id).map_err(|_| GatewayError::Protocol("a state id"))?;
        let verifier = ChainVerifier::after(head.seq, chain, Some((head.epoch, state)));
        let inner = Inner {
            ring: VecDeque::new(),
            ring_bytes: 0,
            before_ring: chain,
            head,
            verifier,
            live: false,
            expected: None,
            refused_since: None,
            mismatches: 0,
            failed: None,
        };
        Ok(Arc::new_cyclic(|this| Self {
            group_id,
            budget,
            this: this.clone(),
            subscribers: AtomicUsize::new(0),
            inner: Mutex::new(inner),
            changed: watch::Sender::new(()),
        }))
    }

    /// What comes after the entry `seq` with this chain hash (if the subscriber knows it).
    pub fn pull(&self, seq: u64, chain: Option<ChainHash>) -> Pull {
        let inner = self.inner.lock();
        if let Some(error) = &inner.failed {
            return Pull::Failed(error.clone());
        }
        if seq > inner.tip() {
            return Pull::Ahead;
        }
        if let (Some(got), Some(expected)) = (chain, inner.chain_at(seq))
            && got != expected
        {
            return Pull::Mismatch(CursorError::Mismatch { seq, expected, got });
        }
        if seq == inner.tip() {
            return Pull::AtTip(inner.live.then(|| inner.head.clone()));
        }
        let first = inner.first_in_ring();
        let Some(skip) = (seq + 1).checked_sub(first) else { return Pull::Behind };
        let next = inner.ring.iter().skip(skip as usize).take(PULL_ENTRIES_MAX);
        Pull::Entries(next.map(|kept| Arc::clone(&kept.entry)).collect())
    }

    /// Completes when a pull may find something else than before.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The cluster has accepted this entry.
    pub(super) fn expect(&self, seq: u64, now: Instant) {
        let mut inner = self.inner.lock();
        let missing = seq > inner.tip();
        if missing && inner.expected.is_none_or(|(expected, _)| seq > expected) {
            let since = inner.expected.map_or(now, |(_, since)| since);
            inner.expected = Some((seq, since));
        }
    }

    /// The epoch after the newest entry here.
    pub(super) fn epoch(&self) -> u64 {
        self.inner.lock().head.epoch
    }

    /// The same, while the group is followed and everything up to some head was delivered.
    pub(super) fn live_epoch(&self) -> Option<u64> {
        let inner = self.inner.lock();
        (inner.live && inner.failed.is_none()).then_some(inner.head.epoch)
    }

    /// Why the group cannot be followed, if it cannot.
    pub(super) fn failed(&self) -> Option<GatewayError> {
        self.inner.lock().failed.clone()
    }

    fn take_in(&self, inner: &mut Inner, entry: pb::Entry) -> Result<(), String> {
        if entry.seq <= inner.tip() {
            return Ok(());
        }
        // The bytes are shared, so this copies only what is small.
        let checked = Entry::try_from(entry.clone()).map_err(|e| e.to_string())?;
        inner.verifier.push(&checked).map_err(|e| e.to_string())?;
        advance_head(&mut inner.head, &entry);
        let bytes = payload_bytes(&entry) + RING_ENTRY_OVERHEAD;
        let stamp = self.budget.charge(bytes, inner.ring.is_empty().then_some(&self.this));
        inner.ring_bytes += bytes;
        inner.ring.push_back(Kept { entry: Arc::new(entry), bytes, stamp });
        while inner.ring_bytes > RING_BYTES_PER_GROUP_MAX && self.drop_oldest(inner) {}
        Ok(())
    }

    fn drop_oldest(&self, inner: &mut Inner) -> bool {
        let Some(oldest) = inner.ring.pop_front() else { return false };
        inner.ring_bytes -= oldest.bytes;
        inner.before_ring = chain_of(&oldest.entry).unwrap_or(inner.before_ring);
        self.budget.release(oldest.stamp, oldest.bytes, inner.ring.front().map(|kept| kept.stamp));
        true
    }

    fn mismatch(&self, inner: &mut Inner, detail: String) -> Verdict {
        metrics::log_mismatch();
        tracing::error!(detail, "a node shows a log that does not fit its hashes; it is not passed on");
        inner.mismatches += 1;
        if inner.mismatches < MISMATCHES_MAX {
            return Verdict::OtherNode;
        }
        inner.failed = Some(GatewayError::LogMismatch(detail));
        self.changed.send_replace(());
        Verdict::Stop
    }
}

impl Inner {
    fn tip(&self) -> u64 {
        self.verifier.seq()
    }

    fn first_in_ring(&self) -> u64 {
        self.tip() + 1 - self.ring.len() as u64
    }

    /// The chain hash of an entry that is known here.
    fn chain_at(&self, seq: u64) -> Option<ChainHash> {
        let first = self.first_in_ring();
        if seq == self.tip() {
            return Some(self.verifier.chain());
        }
        match seq.saturating_add(1).checked_sub(first)? {
            0 => Some(self.before_ring),
            at => self.ring.get(at as usize - 1).and_then(|kept| chain_of(&kept.entry)),
        }
    }
}

fn chain_of(entry: &pb::Entry) -> Option<ChainHash> {
    ChainHash::from_slice(&entry.chain_hash).ok()
}

impl GroupSink for Feed {
    fn group_id(&self) -> &GroupId {
        &self.group_id
    }

    fn cursor(&self) -> pb::CanonicalCursor {
        let inner = self.inner.lock();
        pb::CanonicalCursor::new(inner.tip(), Some(inner.verifier.chain()))
    }

    fn restarted(&self, now: Instant) {
        let mut inner = self.inner.lock();
        inner.refused_since = None;
        if let Some((_, since)) = &mut inner.expected {
            *since = now;
        }
    }

    fn entries(&self, entries: Vec<pb::Entry>) -> Verdict {
        let mut inner = self.inner.lock();
        inner.refused_since = None;
        for entry in entries {
            if let Err(detail) = self.take_in(&mut inner, entry) {
                return self.mismatch(&mut inner, detail);
            }
        }
        inner.mismatches = 0;
        let tip = inner.tip();
        inner.expected = inner.expected.filter(|(seq, _)| *seq > tip);
        drop(inner);
        self.changed.send_replace(());
        while let Some(victim) = self.budget.victim() {
            let mut inner = victim.inner.lock();
            victim.drop_oldest(&mut inner);
        }
        Verdict::Continue
    }

    fn caught_up(&self, head: pb::Head) -> Verdict {
        let mut inner = self.inner.lock();
        inner.refused_since = None;
        if inner.chain_at(head.seq).is_some_and(|chain| chain.as_bytes()[..] != head.chain_hash[..]) {
            return self
                .mismatch(&mut inner, format!("the head at entry {} has another chain hash", head.seq));
        }
        inner.live = true;
        drop(inner);
        self.changed.send_replace(());
        Verdict::Continue
    }

    fn refused(&self, refused: pb::Refused) -> Verdict {
        let mut inner = self.inner.lock();
        match refused.reason() {
            Reason::CursorMismatch => self.mismatch(&mut inner, refused.message),
            // This gateway was away for longer than entries are kept: whoever listened here was, too.
            Reason::Pruned => {
                inner.failed = Some(GatewayError::Refused(refused));
                drop(inner);
                self.changed.send_replace(());
                Verdict::Stop
            }
            // It does not know the group or the entry yet, or cannot serve it now. If that lasts, the node lags.
            _ => {
                inner.refused_since.get_or_insert_with(Instant::now);
                Verdict::AskAgain
            }
        }
    }

    fn is_lagging(&self, now: Instant) -> bool {
        let inner = self.inner.lock();
        let since = inner.expected.map(|(_, since)| since).into_iter().chain(inner.refused_since);
        since.min().is_some_and(|since| now.saturating_duration_since(since) > FOLLOW_LAG_MAX)
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let inner = self.inner.get_mut();
        for kept in inner.ring.drain(..) {
            self.budget.release(kept.stamp, kept.bytes, None);
        }
    }
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;
