//! What the state machine, its readers and its snapshots share: the generation in force, the position, the newest heads.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use group_log::Head;
use lru::LruCache;
use parking_lot::{Mutex, RwLock};
use rocksdb::{ReadOptions, WriteBatch};

use super::{
    keys::{RowKey, trailing_number},
    observer::ApplyObserver,
    rows::decode_number,
};
use crate::{
    raft::types::{Proposed, ShardId},
    storage::{
        database::{Database, Family, Generation, payload_key},
        error::StorageError,
        log::{
            LogEntry, LogId, StoredMembership,
            cache::ShardLog,
            codec::{decode_entry, decode_position},
            sweeper::Referrer,
            writer::Queue,
        },
        metrics::ApplyMetrics,
    },
};

/// One shard's state.
pub(crate) struct ShardState {
    pub(crate) shard: ShardId,
    pub(crate) database: Arc<Database>,
    pub(crate) log: Arc<ShardLog>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) observer: Arc<dyn ApplyObserver>,
    pub(crate) metrics: ApplyMetrics,
    current: RwLock<Arc<Current>>,
    position: Mutex<Position>,
    /// Heads of groups that changed lately. Written by whoever applies, after the rows.
    heads: Mutex<LruCache<Bytes, Head>>,
    /// The state up to before this log index is flushed.
    durable_before: AtomicU64,
    flushing: Mutex<()>,
    /// Numbers the generations that snapshots begin.
    next_generation: AtomicU64,
}

/// The generation in force.
pub(crate) struct Current {
    pub(crate) state_family: String,
    pub(crate) base_family: String,
    /// Payloads up to and with this log index came with a snapshot.
    pub(crate) base: Option<u64>,
}

/// Up to where the state is applied.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Position {
    pub(crate) last_applied: Option<LogId>,
    /// Shared, because every batch copies the position and hardly any changes this.
    pub(crate) membership: Arc<StoredMembership>,
}

impl Position {
    pub(crate) fn next_index(&self) -> u64 {
        self.last_applied.map_or(0, |last| last.index + 1)
    }
}

impl ShardState {
    pub(crate) fn open(
        database: Arc<Database>,
        log: Arc<ShardLog>,
        queue: Arc<Queue>,
        observer: Arc<dyn ApplyObserver>,
        generation: Generation,
        head_cache: usize,
    ) -> Result<Self, StorageError> {
        let shard = log.shard;
        let (current, position) = load(&database, shard, generation)?;
        let durable_before = AtomicU64::new(position.next_index());
        Ok(ShardState {
            shard,
            database,
            log,
            queue,
            observer,
            metrics: ApplyMetrics::of(shard),
            current: RwLock::new(Arc::new(current)),
            position: Mutex::new(position),
            heads: Mutex::new(LruCache::new(NonZeroUsize::new(head_cache).unwrap_or(NonZeroUsize::MIN))),
            durable_before,
            flushing: Mutex::new(()),
            next_generation: AtomicU64::new(generation.0 + 1),
        })
    }

    pub(crate) fn current(&self) -> Arc<Current> {
        self.current.read().clone()
    }

    /// A generation that was never in force.
    pub(crate) fn next_generation(&self) -> Generation {
        Generation(self.next_generation.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn position(&self) -> Position {
        self.position.lock().clone()
    }

    pub(crate) fn last_applied(&self) -> Option<LogId> {
        self.position.lock().last_applied
    }

    /// The rows as they are now.
    pub(crate) fn rows(&self) -> Result<Rows<'_>, StorageError> {
        loop {
            let current = self.current();
            // Between taking the name and the family, a snapshot may have begun another generation.
            let state = self.database.family(&current.state_family);
            let base = self.database.family(&current.base_family);
            if let (Some(state), Some(base)) = (state, base) {
                return Ok(Rows { shard: self, current, state, base });
            }
            if Arc::ptr_eq(&current, &self.current()) {
                self.database.need(&current.state_family)?;
                self.database.need(&current.base_family)?;
            }
        }
    }

    /// The head of a group if it changed lately.
    pub(crate) fn cached_head(&self, group: &[u8]) -> Option<Head> {
        self.heads.lock().peek(group).copied()
    }

    /// Makes a batch visible, and what it changed.
    pub(crate) fn commit(
        &self,
        batch: WriteBatch,
        position: Position,
        heads: impl IntoIterator<Item = (Bytes, Head)>,
    ) -> Result<(), StorageError> {
        self.database.write_unlogged(batch)?;
        {
            let mut cache = self.heads.lock();
            for (group, head) in heads {
                match cache.get_mut(&group) {
                    Some(cached) => *cached = head,
                    // A group id may be a slice of a large request: a copy of its own does not keep all of that alive.
                    None => drop(cache.put(Bytes::copy_from_slice(&group), head)),
                }
            }
        }
        *self.position.lock() = position;
        Ok(())
    }

    /// Makes the state durable as it is now, and says how far that is.
    pub(crate) fn flush(&self) -> Result<Position, StorageError> {
        let _one_at_a_time = self.flushing.lock();
        let current = self.current();
        let position = self.position();
        if self.durable_before.load(Ordering::Acquire) < position.next_index() {
            self.database.flush(&current.state_family)?;
            self.durable_before.fetch_max(position.next_index(), Ordering::AcqRel);
        }
        Ok(position)
    }

    /// Log entries up to `upto` that a command has let go of, at most `max`. They can be removed: no crash undoes the command.
    fn dropped(&self, rows: &Rows<'_>, upto: u64, max: usize) -> Result<Vec<u64>, StorageError> {
        let (mut indexes, mut last_command) = (Vec::new(), 0);
        let end = RowKey::Dropped { index: upto.saturating_add(1) }.encode();
        rows.scan(&RowKey::Dropped { index: 0 }.encode(), end, max, |key, value| {
            let bad = |error| rows.bad_row("a row that was let go", error);
            indexes.push(trailing_number(key).map_err(bad)?);
            last_command = decode_number(Bytes::copy_from_slice(value)).map_err(bad)?.max(last_command);
            Ok(true)
        })?;
        if !indexes.is_empty() {
            self.make_durable(last_command)?;
        }
        Ok(indexes)
    }

    /// Begins another generation, whose rows are complete and durable. The pointer to it is durable already.
    pub(crate) fn switch(&self, generation: Generation) -> Result<(), StorageError> {
        let old = {
            let _no_flush = self.flushing.lock();
            let (current, position) = load(&self.database, self.shard, generation)?;
            self.durable_before.store(position.next_index(), Ordering::Release);
            let old = std::mem::replace(&mut *self.current.write(), Arc::new(current));
            self.heads.lock().clear();
            *self.position.lock() = position;
            old
        };
        self.database.drop_family(&old.state_family)?;
        self.database.drop_family(&old.base_family)
    }
}

fn load(
    database: &Database,
    shard: ShardId,
    generation: Generation,
) -> Result<(Current, Position), StorageError> {
    let current = Current {
        state_family: generation.state_family(shard),
        base_family: generation.base_family(shard),
        base: None,
    };
    let state = database.need(&current.state_family)?;
    let get = |key: RowKey<'_>| {
        let row = database.rocks().get_cf(&state, key.encode());
        row.map_err(|error| StorageError::database(&format!("reading {}", current.state_family), error))
    };
    let bad = |error| StorageError::row(&current.state_family, error);
    let position = match get(RowKey::Position)? {
        None => Position::default(),
        Some(row) => {
            let (last_applied, membership) = decode_position(row.into()).map_err(bad)?;
            Position { last_applied, membership: Arc::new(membership) }
        }
    };
    let base = get(RowKey::Base)?.map(|row| decode_number(row.into()).map_err(bad)).transpose()?;
    Ok((Current { base, ..current }, position))
}

/// The rows of one generation.
pub(crate) struct Rows<'a> {
    shard: &'a ShardState,
    pub(crate) current: Arc<Current>,
    pub(crate) state: Family<'a>,
    pub(crate) base: Family<'a>,
}

impl Rows<'_> {
    /// The value of one row.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let row = self.shard.database.rocks().get_cf(&self.state, key);
        Ok(row.map_err(|error| self.error(error))?.map(Bytes::from))
    }

    /// Rows from `start` to before `end`, in order, at most `max` of them.
    pub(crate) fn scan(
        &self,
        start: &[u8],
        end: Vec<u8>,
        max: usize,
        mut row: impl FnMut(&[u8], &[u8]) -> Result<bool, StorageError>,
    ) -> Result<(), StorageError> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(end);
        let mut rows = self.shard.database.rocks().raw_iterator_cf_opt(&self.state, options);
        rows.seek(start);
        for _ in 0..max {
            let Some((key, value)) = rows.item() else { break };
            if !row(key, value)? {
                break;
            }
            rows.next();
        }
        rows.status().map_err(|error| self.error(error))
    }

    /// The log entry that a row refers to.
    pub(crate) fn payload(&self, index: u64) -> Result<Option<LogEntry>, StorageError> {
        if self.current.base.is_none_or(|base| index > base) {
            return self.shard.log.row(index);
        }
        let row = self.shard.database.rocks().get_cf(&self.base, payload_key(index));
        let row = row.map_err(|error| StorageError::database(&self.current.base_family, error))?;
        let what = || format!("row {index} of {}", self.current.base_family);
        row.map(|row| decode_entry(row.into()).map_err(|error| StorageError::row(what(), error))).transpose()
    }

    /// The command that a row refers to. Its absence is damage.
    pub(crate) fn command(&self, index: u64) -> Result<Proposed, StorageError> {
        match self.payload(index)?.map(|entry| entry.payload) {
            Some(openraft::EntryPayload::Normal(proposed)) => Ok(proposed),
            other => Err(StorageError::Corrupt {
                what: format!("the log of shard {}", self.shard.shard),
                detail: match other {
                    None => format!("entry {index}, which the state refers to, is missing"),
                    Some(_) => format!("entry {index}, which the state refers to, holds no command"),
                },
            }),
        }
    }

    pub(crate) fn error(&self, error: rocksdb::Error) -> StorageError {
        StorageError::database(&format!("reading {}", self.current.state_family), error)
    }

    /// A row does not hold together.
    pub(crate) fn bad_row(&self, what: &str, error: impl std::fmt::Display) -> StorageError {
        StorageError::Corrupt {
            what: format!("{what} in {}", self.current.state_family),
            detail: error.to_string(),
        }
    }
}

impl Referrer for ShardState {
    fn make_durable(&self, index: u64) -> Result<(), StorageError> {
        if self.durable_before.load(Ordering::Acquire) <= index {
            self.flush()?;
        }
        Ok(())
    }

    fn kept_elsewhere(&self) -> Option<u64> {
        self.current().base
    }

    fn unreferenced(&self, upto: u64, max: usize) -> Result<Vec<u64>, StorageError> {
        let rows = self.rows()?;
        let mut indexes = Vec::new();
        let end = RowKey::Unreferenced { index: upto.saturating_add(1) }.encode();
        rows.scan(&RowKey::Unreferenced { index: 0 }.encode(), end, max, |key, _| {
            indexes
                .push(trailing_number(key).map_err(|error| rows.bad_row("a row without referrer", error))?);
            Ok(true)
        })?;
        if indexes.is_empty() { self.dropped(&rows, upto, max) } else { Ok(indexes) }
    }

    fn forgotten(&self, indexes: &[u64]) -> Result<(), StorageError> {
        let rows = self.rows()?;
        if let Some(base) = rows.current.base
            && indexes.iter().any(|index| *index <= base)
        {
            let mut batch = WriteBatch::default();
            for index in indexes.iter().filter(|index| **index <= base) {
                batch.delete_cf(&rows.base, payload_key(*index));
            }
            self.database.write_unlogged(batch)?;
            // Their removal must last before it is forgotten that they are to be removed.
            self.database.flush(&rows.current.base_family)?;
        }
        let mut batch = WriteBatch::default();
        for index in indexes {
            batch.delete_cf(&rows.state, RowKey::Unreferenced { index: *index }.encode());
            batch.delete_cf(&rows.state, RowKey::Dropped { index: *index }.encode());
        }
        self.database.write_unlogged(batch)
    }
}
