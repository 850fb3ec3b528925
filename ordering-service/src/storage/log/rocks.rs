//! The log of all shards in RocksDB: a column family for each, keyed by index.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use rocksdb::{IteratorMode, ReadOptions, WriteBatch};

use super::{
    LogEntry, LogId,
    codec::{
        decode_entry, decode_log_id, decode_vote, encode_entry, encode_log_id, encode_vote, entry_bytes,
    },
    medium::{Change, LogHead, Medium},
};
use crate::{
    raft::types::ShardId,
    storage::{
        database::{Database, Family, log_family},
        error::StorageError,
        wire::DecodeError,
    },
};

const VOTE: u8 = 1;
const COMMITTED: u8 = 2;
const PURGED: u8 = 3;
/// The generation of the shard's state machine that is in force.
pub(crate) const GENERATION: u8 = 4;

/// RocksDB as the medium of logs.
pub(crate) struct RocksMedium {
    database: Arc<Database>,
    scratch: Mutex<Vec<u8>>,
}

impl RocksMedium {
    pub(crate) fn new(database: Arc<Database>) -> Self {
        RocksMedium { database, scratch: Mutex::default() }
    }

    fn meta_row<T>(
        &self,
        shard: ShardId,
        kind: u8,
        decode: impl Fn(Bytes) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, StorageError> {
        let what = format!("row {kind} of shard {shard} in meta");
        let row = self.database.rocks().get_cf(&self.database.meta()?, meta_key(shard, kind));
        let row = row.map_err(|error| StorageError::database(&what, error))?;
        row.map(|row| decode(row.into()).map_err(|error| StorageError::row(&what, error))).transpose()
    }

    fn add(
        &self,
        batch: &mut WriteBatch,
        meta: &Family<'_>,
        shard: ShardId,
        change: &Change,
        scratch: &mut Vec<u8>,
    ) -> Result<(), StorageError> {
        match change {
            Change::Append(entries) => {
                let log = self.database.need(&log_family(shard))?;
                for entry in entries {
                    scratch.clear();
                    encode_entry(entry, scratch);
                    batch.put_cf(&log, key(entry.log_id.index), &scratch);
                }
            }
            Change::Truncate(range) => {
                let log = self.database.need(&log_family(shard))?;
                range.clone().for_each(|index| batch.delete_cf(&log, key(index)));
            }
            Change::Forget(indexes) => {
                let log = self.database.need(&log_family(shard))?;
                indexes.iter().for_each(|index| batch.delete_cf(&log, key(*index)));
            }
            Change::ForgetAll(upto) => {
                let log = self.database.need(&log_family(shard))?;
                batch.delete_range_cf(&log, key(0), key(upto.saturating_add(1)));
            }
            Change::Vote(vote) => batch.put_cf(meta, meta_key(shard, VOTE), encode_vote(vote)),
            Change::Committed(log_id) => {
                batch.put_cf(meta, meta_key(shard, COMMITTED), encode_log_id(log_id));
            }
            Change::Purged(log_id) => batch.put_cf(meta, meta_key(shard, PURGED), encode_log_id(log_id)),
        }
        Ok(())
    }
}

impl Medium for RocksMedium {
    fn open_log(&self, shard: ShardId) -> Result<LogHead, StorageError> {
        let name = log_family(shard);
        self.database.create(&name)?;
        let log = self.database.need(&name)?;
        let purged: Option<LogId> = self.meta_row(shard, PURGED, decode_log_id)?;
        let begin = purged.map_or(0, |purged| purged.index + 1);
        let end_of = |mode| -> Result<Option<LogEntry>, StorageError> {
            let row = self.database.rocks().iterator_cf(&log, mode).next();
            let row = row.transpose().map_err(|error| StorageError::database(&name, error))?;
            row.map(|(key, value)| decode_row(shard, &key, value.into())).transpose()
        };
        let last = end_of(IteratorMode::End)?.map(|entry| entry.log_id);
        let last = last.filter(|last| last.index >= begin);
        let first = match last {
            None => begin,
            Some(_) => end_of(IteratorMode::From(&key(begin), rocksdb::Direction::Forward))?
                .map_or(begin, |entry| entry.log_id.index),
        };
        Ok(LogHead {
            vote: self.meta_row(shard, VOTE, decode_vote)?,
            committed: self.meta_row(shard, COMMITTED, decode_log_id)?,
            purged,
            first,
            last,
        })
    }

    fn write(&self, changes: &[(ShardId, Change)]) -> Result<(), StorageError> {
        let mut batch = WriteBatch::default();
        {
            let meta = self.database.meta()?;
            let mut scratch = self.scratch.lock();
            for (shard, change) in changes {
                self.add(&mut batch, &meta, *shard, change, &mut scratch)?;
            }
        }
        self.database.write_logged(batch)
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.database.sync()
    }

    fn read(
        &self,
        shard: ShardId,
        range: Range<u64>,
        max_bytes: usize,
    ) -> Result<Vec<LogEntry>, StorageError> {
        let log = self.database.need(&log_family(shard))?;
        let (Some(count), Some(last)) = (range.end.checked_sub(range.start), range.end.checked_sub(1)) else {
            return Ok(Vec::new());
        };
        if count == 1 {
            let row = self.database.rocks().get_cf(&log, key(last));
            let row = row.map_err(|error| StorageError::database("reading the log", error))?;
            return row.map(|row| decode_row(shard, &key(last), row.into())).into_iter().collect();
        }
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(key(range.end));
        let start = key(range.start);
        let mode = IteratorMode::From(&start, rocksdb::Direction::Forward);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for (expected, row) in range.zip(self.database.rocks().iterator_cf_opt(&log, options, mode)) {
            let (row_key, value) = row.map_err(|error| StorageError::database("reading the log", error))?;
            let entry = decode_row(shard, &row_key, value.into())?;
            bytes += entry_bytes(&entry);
            if entry.log_id.index != expected || (bytes > max_bytes && !entries.is_empty()) {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }
}

/// Key of a shard's row in `meta`.
pub(crate) fn meta_key(shard: ShardId, kind: u8) -> [u8; 5] {
    let mut key = [0; 5];
    key[..4].copy_from_slice(&shard.to_be_bytes());
    key[4] = kind;
    key
}

/// Key of an entry in its shard's log.
pub(crate) fn key(index: u64) -> [u8; 8] {
    index.to_be_bytes()
}

fn decode_row(shard: ShardId, row_key: &[u8], value: Bytes) -> Result<LogEntry, StorageError> {
    let what = || format!("row {} of the log of shard {shard}", hex(row_key));
    let entry = decode_entry(value).map_err(|error| StorageError::row(what(), error))?;
    if row_key != key(entry.log_id.index) {
        let detail = format!("it holds entry {}", entry.log_id.index);
        return Err(StorageError::Corrupt { what: what(), detail });
    }
    Ok(entry)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
