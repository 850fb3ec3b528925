//! A log in memory, for simulations: it loses its unsynced tail in a crash, as a disk does.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    ops::Range,
};

use parking_lot::Mutex;

use super::{
    LogEntry, LogId, Vote,
    codec::entry_bytes,
    medium::{Change, LogHead, Medium, Pin, Pins, Reclaim},
};
use crate::{raft::types::ShardId, storage::error::StorageError};

/// A log's medium in memory.
#[derive(Default)]
pub struct MemoryMedium {
    content: Mutex<Content>,
    pins: Pins,
}

#[derive(Default)]
struct Content {
    visible: BTreeMap<ShardId, Log>,
    durable: BTreeMap<ShardId, Log>,
    unsynced: Vec<(ShardId, Change)>,
}

#[derive(Clone, Default)]
struct Log {
    rows: BTreeMap<u64, LogEntry>,
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    generation: u64,
    /// Rows that can go as soon as nothing pins them.
    forgotten: BTreeSet<u64>,
}

impl MemoryMedium {
    /// An empty medium.
    pub fn new() -> Self {
        MemoryMedium::default()
    }

    /// What a power failure does: of the changes since the last sync, only the first `kept` survive.
    pub fn crash(&self, kept: usize) {
        let content = &mut *self.content.lock();
        for (shard, change) in mem::take(&mut content.unsynced).iter().take(kept) {
            content.durable.entry(*shard).or_default().change(change);
        }
        content.visible = content.durable.clone();
    }

    /// Changes that a crash could lose now.
    pub fn unsynced(&self) -> usize {
        self.content.lock().unsynced.len()
    }
}

impl Log {
    fn change(&mut self, change: &Change) {
        match change {
            Change::Append(entries) => {
                self.rows.extend(entries.iter().map(|entry| (entry.log_id.index, entry.clone())));
            }
            Change::Truncate(range) => self.rows.retain(|index, _| !range.contains(index)),
            Change::Vote(vote) => self.vote = Some(*vote),
            Change::Committed(log_id) => self.committed = Some(*log_id),
            Change::Purged(log_id) => self.purged = Some(*log_id),
            Change::ForgetAll(upto) => {
                self.forgotten.extend(self.rows.range(..=upto).map(|(index, _)| index))
            }
            Change::Generation(generation) => self.generation = *generation,
        }
    }

    /// The first of the last rows behind what is purged among which none is missing.
    fn first(&self) -> u64 {
        let begin = self.purged.map_or(0, |purged| purged.index + 1);
        let mut first = self.rows.last_key_value().map_or(begin, |(last, _)| last + 1);
        for (index, _) in self.rows.range(begin..).rev() {
            if index + 1 != first {
                break;
            }
            first = *index;
        }
        first.max(begin)
    }
}

impl Medium for MemoryMedium {
    fn open_log(&self, shard: ShardId) -> Result<LogHead, StorageError> {
        let mut content = self.content.lock();
        let log = content.visible.entry(shard).or_default();
        let last = log.rows.last_key_value().map(|(_, entry)| entry.log_id);
        let first = log.first();
        Ok(LogHead {
            vote: log.vote,
            committed: log.committed,
            purged: log.purged,
            generation: log.generation,
            first,
            last: last.filter(|last| last.index >= first),
        })
    }

    fn write(&self, changes: &[(ShardId, Change)]) -> Result<(), StorageError> {
        let content = &mut *self.content.lock();
        for (shard, change) in changes {
            content.visible.entry(*shard).or_default().change(change);
        }
        content.unsynced.extend_from_slice(changes);
        Ok(())
    }

    fn sync(&self) -> Result<(), StorageError> {
        let content = &mut *self.content.lock();
        for (shard, change) in mem::take(&mut content.unsynced) {
            content.durable.entry(shard).or_default().change(&change);
        }
        Ok(())
    }

    fn settle(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn read(
        &self,
        shard: ShardId,
        range: Range<u64>,
        max_bytes: usize,
    ) -> Result<Vec<LogEntry>, StorageError> {
        let content = self.content.lock();
        let Some(log) = content.visible.get(&shard) else { return Ok(Vec::new()) };
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for (expected, (index, entry)) in (range.start..).zip(log.rows.range(range)) {
            bytes += entry_bytes(entry);
            if *index != expected || (bytes > max_bytes && !entries.is_empty()) {
                break;
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }

    fn kept(&self, shard: ShardId) -> Result<Vec<u64>, StorageError> {
        let content = self.content.lock();
        let Some(log) = content.visible.get(&shard) else { return Ok(Vec::new()) };
        Ok(log.rows.keys().filter(|index| !log.forgotten.contains(index)).copied().collect())
    }

    fn forget(&self, shard: ShardId, indexes: &[u64]) -> Result<(), StorageError> {
        let content = &mut *self.content.lock();
        for logs in [&mut content.visible, &mut content.durable] {
            logs.entry(shard).or_default().forgotten.extend(indexes);
        }
        Ok(())
    }

    fn reclaim(&self) -> Result<Reclaim, StorageError> {
        let content = &mut *self.content.lock();
        if !self.pins.any() {
            for log in content.visible.values_mut().chain(content.durable.values_mut()) {
                let forgotten = mem::take(&mut log.forgotten);
                log.rows.retain(|index, _| !forgotten.contains(index));
            }
        }
        Ok(Reclaim::Done)
    }

    fn pin(&self) -> Pin {
        self.pins.pin()
    }
}

#[cfg(test)]
mod tests {
    use openraft::{EntryPayload, impls::leader_id_adv::LeaderId};

    use super::*;

    fn entry(index: u64) -> LogEntry {
        LogEntry { log_id: LogId::new(LeaderId { term: 1, node_id: 1 }, index), payload: EntryPayload::Blank }
    }

    #[test]
    fn a_crash_loses_what_was_not_synced_and_nothing_else() {
        let medium = MemoryMedium::new();
        medium.write(&[(1, Change::Append(vec![entry(1), entry(2)]))]).unwrap();
        medium.sync().unwrap();
        medium.write(&[(1, Change::Append(vec![entry(3)])), (2, Change::Append(vec![entry(1)]))]).unwrap();
        assert_eq!(medium.read(1, 1..9, usize::MAX).unwrap().len(), 3);

        medium.crash(1);
        assert_eq!(medium.read(1, 1..9, usize::MAX).unwrap().len(), 3);
        assert!(medium.read(2, 1..9, usize::MAX).unwrap().is_empty());

        medium.write(&[(1, Change::Truncate(2..4))]).unwrap();
        assert_eq!(medium.open_log(1).unwrap().last.unwrap().index, 1);
        medium.crash(0);
        assert_eq!(medium.open_log(1).unwrap().last.unwrap().index, 3);
    }

    #[test]
    fn what_is_forgotten_goes_once_nothing_pins_it() {
        let medium = MemoryMedium::new();
        medium.write(&[(1, Change::Append((1..9).map(entry).collect()))]).unwrap();
        medium.sync().unwrap();
        let pin = medium.pin();
        medium.forget(1, &[3, 5]).unwrap();
        medium.reclaim().unwrap();
        assert_eq!(medium.kept(1).unwrap(), [1, 2, 4, 6, 7, 8]);
        assert_eq!(medium.read(1, 1..9, usize::MAX).unwrap().len(), 8);
        drop(pin);
        medium.reclaim().unwrap();
        assert_eq!(medium.read(1, 1..9, usize::MAX).unwrap().len(), 2);
    }
}
