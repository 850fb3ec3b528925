//! The end of one shard's log in memory: what is not yet on the disk, and as much of the rest as fits.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    LogEntry, LogId, Vote,
    codec::entry_bytes,
    medium::{LogHead, Medium, Pin},
};
use crate::{raft::types::ShardId, storage::error::StorageError};

/// Reads are repeated this often when a purge or a truncation gets in between.
const READ_ATTEMPTS: usize = 8;

/// One shard's log as everybody in the process sees it.
pub(crate) struct ShardLog {
    pub(crate) shard: ShardId,
    medium: Arc<dyn Medium>,
    state: Mutex<State>,
    progress: Notify,
    /// Bytes cached by all shards.
    cached: Arc<AtomicUsize>,
}

struct State {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    /// Index of the first entry. Meaningful while there is a `last`.
    first: u64,
    last: Option<LogId>,
    /// The newest entries, contiguous, up to `last`. All that are not stored yet are among them.
    entries: VecDeque<LogEntry>,
    bytes: usize,
    /// Entries below this index are stored.
    stored_before: u64,
    /// Counts truncations, so that a late report about truncated entries is not believed of their successors.
    truncations: u64,
    failed: Option<StorageError>,
}

/// What an append must report when its entries are stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    truncations: u64,
    end: u64,
}

impl ShardLog {
    pub(crate) fn open(
        shard: ShardId,
        medium: Arc<dyn Medium>,
        cached: Arc<AtomicUsize>,
    ) -> Result<Self, StorageError> {
        let LogHead { vote, committed, purged, generation: _, first, last } = medium.open_log(shard)?;
        let state = State {
            vote,
            committed,
            purged,
            first,
            last,
            entries: VecDeque::new(),
            bytes: 0,
            stored_before: last.or(purged).map_or(0, |last| last.index + 1),
            truncations: 0,
            failed: None,
        };
        Ok(ShardLog { shard, medium, state: Mutex::new(state), progress: Notify::new(), cached })
    }

    pub(crate) fn vote(&self) -> Option<Vote> {
        self.state.lock().vote
    }

    pub(crate) fn set_vote(&self, vote: Vote) {
        self.state.lock().vote = Some(vote);
    }

    pub(crate) fn committed(&self) -> Option<LogId> {
        self.state.lock().committed
    }

    pub(crate) fn set_committed(&self, committed: LogId) {
        self.state.lock().committed = Some(committed);
    }

    /// The last purged entry, and the last entry.
    pub(crate) fn bounds(&self) -> (Option<LogId>, Option<LogId>) {
        let state = self.state.lock();
        (state.purged, state.last.or(state.purged))
    }

    /// The log does not begin where purging ended, and `covered` closes the gap.
    pub(crate) fn begins_behind_a_gap(&self, covered: LogId) -> bool {
        let state = self.state.lock();
        let begin = state.purged.map_or(0, |purged| purged.index + 1);
        state.last.is_some() && begin < state.first && state.first <= covered.index + 1
    }

    /// Takes in entries, which are readable from now on. Returns what to report when they are stored.
    pub(crate) fn append(&self, entries: &[LogEntry]) -> Result<Pending, StorageError> {
        let mut state = self.state.lock();
        if let Some(error) = &state.failed {
            return Err(StorageError::Stopped(Box::new(error.clone())));
        }
        let mut added = 0;
        if let (None, Some(first)) = (state.last, entries.first()) {
            state.first = first.log_id.index;
        }
        for entry in entries {
            if let Some(last) = state.last.filter(|last| last.index + 1 != entry.log_id.index) {
                return Err(StorageError::Invalid(format!(
                    "entry {} can not follow entry {} of the log of shard {}",
                    entry.log_id.index, last.index, self.shard
                )));
            }
            added += entry_bytes(entry);
            state.last = Some(entry.log_id);
            state.entries.push_back(entry.clone());
        }
        state.bytes += added;
        self.cached.fetch_add(added, Ordering::Relaxed);
        Ok(Pending { truncations: state.truncations, end: state.last.map_or(0, |last| last.index + 1) })
    }

    /// Entries of an append are stored.
    pub(crate) fn stored(&self, pending: Pending) {
        let mut state = self.state.lock();
        if state.truncations == pending.truncations {
            state.stored_before = state.stored_before.max(pending.end);
            drop(state);
            self.progress.notify_waiters();
        }
    }

    /// Nothing more will be stored.
    pub(crate) fn fail(&self, error: &StorageError) {
        self.state.lock().failed.get_or_insert_with(|| error.clone());
        self.progress.notify_waiters();
    }

    /// Waits until the entry at `index` is stored. Returns at once for an index that the log does not hold.
    pub(crate) async fn wait_stored(&self, index: u64) -> Result<(), StorageError> {
        loop {
            let progress = self.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            {
                let state = self.state.lock();
                if index < state.stored_before || state.last.is_none_or(|last| last.index < index) {
                    return Ok(());
                }
                if let Some(error) = &state.failed {
                    return Err(StorageError::Stopped(Box::new(error.clone())));
                }
            }
            progress.await;
        }
    }

    /// Removes all entries after `keep`. Returns the range of indexes that is gone, and what to report when that is stored.
    pub(crate) fn truncate_after(&self, keep: Option<LogId>) -> (Range<u64>, Pending) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let start =
            keep.map_or(0, |keep| keep.index + 1).max(state.purged.map_or(0, |purged| purged.index + 1));
        let end = state.last.map_or(start, |last| last.index + 1).max(start);
        if start < end {
            let before = state.bytes;
            while let Some(entry) = state.entries.back().filter(|entry| entry.log_id.index >= start) {
                state.bytes -= entry_bytes(entry);
                state.entries.pop_back();
            }
            self.cached.fetch_sub(before - state.bytes, Ordering::Relaxed);
            state.last = keep.filter(|keep| state.purged.is_none_or(|purged| purged.index < keep.index));
            state.stored_before = state.stored_before.min(start);
            state.truncations += 1;
        }
        (start..end, Pending { truncations: state.truncations, end: start })
    }

    /// Entries up to `purged` are no longer part of the log.
    pub(crate) fn purge(&self, purged: LogId) {
        let mut state = self.state.lock();
        let state = &mut *state;
        self.cached.fetch_sub(state.drop_front(purged.index + 1, usize::MAX), Ordering::Relaxed);
        state.first = state.first.max(purged.index + 1);
        if state.purged.is_none_or(|old| old.index < purged.index) {
            state.purged = Some(purged);
        }
        if state.last.is_none_or(|last| last.index <= purged.index) {
            state.last = None;
            state.stored_before = purged.index + 1;
        }
    }

    /// Drops the oldest stored entries until `excess` bytes are free. Returns how many bytes were freed.
    pub(crate) fn evict(&self, excess: usize) -> usize {
        let mut state = self.state.lock();
        let stored_before = state.stored_before;
        let freed = state.drop_front(stored_before, excess);
        self.cached.fetch_sub(freed, Ordering::Relaxed);
        freed
    }

    /// Bytes cached for this shard.
    pub(crate) fn cached_bytes(&self) -> usize {
        self.state.lock().bytes
    }

    /// The entries in `range` that the log holds, in order, from the first on. Stops early after `max_bytes`, but gives at
    /// least one if there is one.
    pub(crate) fn read(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<LogEntry>, StorageError> {
        for _ in 0..READ_ATTEMPTS {
            let (stored, mut cached) = {
                let state = self.state.lock();
                let start = range.start.max(state.first);
                let end = range.end.min(state.last.map_or(0, |last| last.index + 1));
                if start >= end {
                    return Ok(Vec::new());
                }
                let cached_from =
                    state.entries.front().map_or(end, |entry| entry.log_id.index).clamp(start, end);
                (start..cached_from, state.cached(cached_from..end, max_bytes))
            };
            if stored.is_empty() {
                return Ok(cached);
            }
            let mut entries = self.medium.read(self.shard, stored.clone(), max_bytes)?;
            if entries.len() as u64 == stored.end - stored.start {
                let left = max_bytes.saturating_sub(entries.iter().map(entry_bytes).sum());
                cached.truncate(fitting(&cached, left));
                entries.append(&mut cached);
            }
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
        Err(StorageError::Corrupt {
            what: format!("the log of shard {}", self.shard),
            detail: format!("entry {} is missing", range.start),
        })
    }

    /// Keeps readable what is forgotten from now on.
    pub(crate) fn pin(&self) -> Pin {
        self.medium.pin()
    }

    /// The entry at `index`, be it part of the log or a row that was kept from before a purge.
    pub(crate) fn row(&self, index: u64) -> Result<Option<LogEntry>, StorageError> {
        if let Some(entry) = self.state.lock().cached_entry(index) {
            return Ok(Some(entry.clone()));
        }
        Ok(self.medium.read(self.shard, index..index + 1, usize::MAX)?.pop())
    }
}

impl State {
    /// Drops entries with smaller indexes, oldest first, until `enough` bytes are freed. Returns how many were.
    fn drop_front(&mut self, before: u64, enough: usize) -> usize {
        let mut freed = 0;
        while freed < enough {
            let Some(entry) = self.entries.front().filter(|entry| entry.log_id.index < before) else { break };
            freed += entry_bytes(entry);
            self.entries.pop_front();
        }
        self.bytes -= freed;
        freed
    }

    fn cached_entry(&self, index: u64) -> Option<&LogEntry> {
        let first = self.entries.front()?.log_id.index;
        self.entries.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }

    fn cached(&self, range: Range<u64>, max_bytes: usize) -> Vec<LogEntry> {
        let Some(first) = self.entries.front().map(|entry| entry.log_id.index) else { return Vec::new() };
        if range.is_empty() || range.start < first {
            return Vec::new();
        }
        let entries = self.entries.range((range.start - first) as usize..(range.end - first) as usize);
        let mut bytes = 0;
        let mut taken = Vec::with_capacity(entries.len().min(1024));
        for entry in entries {
            bytes += entry_bytes(entry);
            if bytes > max_bytes && !taken.is_empty() {
                break;
            }
            taken.push(entry.clone());
        }
        taken
    }
}

fn fitting(entries: &[LogEntry], max_bytes: usize) -> usize {
    let mut bytes = 0;
    entries
        .iter()
        .take_while(|entry| {
            bytes += entry_bytes(entry);
            bytes <= max_bytes
        })
        .count()
}
