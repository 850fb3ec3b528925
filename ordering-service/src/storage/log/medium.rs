//! What a log lies on.

use std::ops::Range;

use super::{LogEntry, LogId, Vote};
use crate::{raft::types::ShardId, storage::error::StorageError};

/// What a medium knows of one shard's log when it is opened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogHead {
    /// The vote, if one was ever saved.
    pub vote: Option<Vote>,
    /// The last entry known to be committed. May be older than what was.
    pub committed: Option<LogId>,
    /// The last entry that was purged.
    pub purged: Option<LogId>,
    /// Index of the first entry after `purged`. Meaningful if there is a `last`.
    pub first: u64,
    /// The last entry. Absent if there is none after `purged`.
    pub last: Option<LogId>,
}

/// One change of one shard's log. Changes take effect in the order in which they are written.
#[derive(Clone, Debug)]
pub enum Change {
    /// Store entries. Their indexes are contiguous, and follow the last one stored.
    Append(Vec<LogEntry>),
    /// Remove the entries in this range of indexes: all from the first on.
    Truncate(Range<u64>),
    /// Store the vote.
    Vote(Vote),
    /// Remember what was committed.
    Committed(LogId),
    /// Entries up to here are no longer part of the log. Their rows stay, because the state machine refers to them.
    Purged(LogId),
    /// Remove the rows of purged entries that nothing refers to.
    Forget(Vec<u64>),
    /// Remove the rows of all purged entries up to and with this index.
    ForgetAll(u64),
}

/// A log's medium. All shards share one, so that one [`Medium::sync`] makes the changes of all of them durable.
///
/// Only one thread writes. A failed write or sync leaves it open what was stored: the caller never writes again.
pub trait Medium: Send + Sync + 'static {
    /// What is stored of a shard's log.
    fn open_log(&self, shard: ShardId) -> Result<LogHead, StorageError>;

    /// Applies changes: all of them or, after a crash before the next [`Medium::sync`], perhaps none. They are readable when
    /// this returns, and not yet durable.
    fn write(&self, changes: &[(ShardId, Change)]) -> Result<(), StorageError>;

    /// Makes durable everything written so far.
    fn sync(&self) -> Result<(), StorageError>;

    /// There is no work for the moment: a time for what need not be done after each sync.
    fn settle(&self) -> Result<(), StorageError> {
        Ok(())
    }

    /// The rows in a range of indexes, in order. Stops early after `max_bytes` (but gives at least one), or where a row is
    /// missing.
    fn read(
        &self,
        shard: ShardId,
        range: Range<u64>,
        max_bytes: usize,
    ) -> Result<Vec<LogEntry>, StorageError>;
}

impl<M: Medium + ?Sized> Medium for std::sync::Arc<M> {
    fn open_log(&self, shard: ShardId) -> Result<LogHead, StorageError> {
        (**self).open_log(shard)
    }

    fn write(&self, changes: &[(ShardId, Change)]) -> Result<(), StorageError> {
        (**self).write(changes)
    }

    fn sync(&self) -> Result<(), StorageError> {
        (**self).sync()
    }

    fn read(
        &self,
        shard: ShardId,
        range: Range<u64>,
        max_bytes: usize,
    ) -> Result<Vec<LogEntry>, StorageError> {
        (**self).read(shard, range, max_bytes)
    }
}
