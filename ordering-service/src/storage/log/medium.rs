//! What a log lies on.

use std::{ops::Range, sync::Arc};

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
    /// The generation of the shard's state that is in force. 0 until a snapshot begins another.
    pub generation: u64,
    /// Index of the first entry after `purged` from which on none is missing. Meaningful if there is a `last`.
    pub first: u64,
    /// The last entry. Absent if there is none after `purged`.
    pub last: Option<LogId>,
}

/// One change of one shard's log. Changes take effect in the order in which they are written.
#[derive(Clone, Debug)]
pub enum Change {
    /// Store entries. Their indexes are contiguous, and follow the last one stored (or what was purged).
    Append(Vec<LogEntry>),
    /// Remove the entries in this range of indexes: all from the first on.
    Truncate(Range<u64>),
    /// Store the vote.
    Vote(Vote),
    /// Remember what was committed.
    Committed(LogId),
    /// Entries up to here are no longer part of the log. Their rows stay, because the state machine refers to them.
    Purged(LogId),
    /// Nothing refers to the rows up to and with this index, which are purged.
    ForgetAll(u64),
    /// Another generation of the shard's state is in force.
    Generation(u64),
}

/// A log's medium. All shards share one, so that one [`Medium::sync`] makes the changes of all of them durable.
///
/// Only one thread writes. A failed write or sync leaves it open what was stored: the caller never writes again.
pub trait Medium: Send + Sync + 'static {
    /// What is stored of a shard's log.
    fn open_log(&self, shard: ShardId) -> Result<LogHead, StorageError>;

    /// Applies changes, in order: all of them or, after a crash before the next [`Medium::sync`], perhaps only the first few. They
    /// are readable when this returns, and not yet durable.
    fn write(&self, changes: &[(ShardId, Change)]) -> Result<(), StorageError>;

    /// Makes durable everything written so far.
    fn sync(&self) -> Result<(), StorageError>;

    /// There is no work for the moment: a time for what need not be done after each sync.
    fn settle(&self) -> Result<(), StorageError>;

    /// The rows in a range of indexes, in order. Stops early after `max_bytes` (but gives at least one), or where a row is
    /// missing. Rows that were forgotten are missing, or still there.
    fn read(
        &self,
        shard: ShardId,
        range: Range<u64>,
        max_bytes: usize,
    ) -> Result<Vec<LogEntry>, StorageError>;

    /// Indexes of all rows that are kept, in order. Reads as much as there are rows: for tests and diagnosis.
    fn kept(&self, shard: ShardId) -> Result<Vec<u64>, StorageError>;

    /// Nothing refers to these rows, which are purged. Durable when it returns. Not for the thread that writes: it may take long.
    fn forget(&self, shard: ShardId, indexes: &[u64]) -> Result<(), StorageError>;

    /// One step of giving back to the disk what forgotten rows took. Called by whoever calls [`Medium::forget`], never by two at once.
    fn reclaim(&self) -> Result<Reclaim, StorageError>;

    /// What is forgotten from now on stays readable until the pin is dropped.
    fn pin(&self) -> Pin;
}

/// What a step of [`Medium::reclaim`] has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reclaim {
    /// Nothing is left to do.
    Done,
    /// There may be more to do.
    More,
    /// There is more to do after the next write.
    AfterWrite,
}

/// Keeps what is forgotten readable.
#[derive(Clone, Debug)]
#[must_use]
pub struct Pin {
    _held: Arc<()>,
}

/// Gives out [`Pin`]s.
#[derive(Debug, Default)]
pub(crate) struct Pins(Arc<()>);

impl Pins {
    pub(crate) fn pin(&self) -> Pin {
        Pin { _held: self.0.clone() }
    }

    pub(crate) fn any(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}
