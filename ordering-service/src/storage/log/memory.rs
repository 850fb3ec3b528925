//! A log in memory, for simulations: it loses its unsynced tail in a crash, as a disk does.

use std::{collections::BTreeMap, mem, ops::Range};

use parking_lot::Mutex;

use super::{
    LogEntry, LogId, Vote,
    codec::entry_bytes,
    medium::{Change, LogHead, Medium},
};
use crate::{raft::types::ShardId, storage::error::StorageError};

/// A log's medium in memory.
#[derive(Default)]
pub struct MemoryMedium {
    content: Mutex<Content>,
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
            Change::Forget(indexes) => {
                for index in indexes {
                    self.rows.remove(index);
                }
            }
            Change::ForgetAll(upto) => self.rows.retain(|index, _| index > upto),
        }
    }
}

impl Medium for MemoryMedium {
    fn open_log(&self, shard: ShardId) -> Result<LogHead, StorageError> {
        let mut content = self.content.lock();
        let log = content.visible.entry(shard).or_default();
        let last = log.rows.last_key_value().map(|(_, entry)| entry.log_id);
        let begin = log.purged.map_or(0, |purged| purged.index + 1);
        let first = log.rows.range(begin..).next().map_or(begin, |(first, _)| *first);
        Ok(LogHead {
            vote: log.vote,
            committed: log.committed,
            purged: log.purged,
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
}
