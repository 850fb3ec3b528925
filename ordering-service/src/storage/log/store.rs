//! The log of one shard, as openraft wants it.

use std::{
    fmt::Debug,
    io,
    ops::{Bound, Range, RangeBounds},
    sync::Arc,
};

use futures::{Stream, stream};
use openraft::{
    LogState, OptionalSend,
    storage::{IOFlushed, RaftLogReader, RaftLogStorage},
};

use super::{LogEntry, LogId, Vote, cache::ShardLog, medium::Medium, sweeper::Sweep, writer::Queue};
use crate::{
    raft::types::{ShardId, TypeConfig},
    storage::{
        error::StorageError,
        limits::{APPLY_READ_ENTRIES, REPLICATION_READ_BYTES},
    },
};

/// The log of one shard. Cheap to clone; all clones are the same log.
#[derive(Clone)]
pub struct LogStore {
    pub(crate) log: Arc<ShardLog>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) sweep: Arc<dyn Sweep>,
    /// Keeps the writer and the database open.
    pub(crate) _keep: Arc<dyn Send + Sync>,
}

impl LogStore {
    /// The shard whose log this is.
    pub fn shard(&self) -> ShardId {
        self.log.shard
    }

    /// Returns when the entry at `index` is on this node's disk, or at once if the log does not hold it.
    pub async fn wait_stored(&self, index: u64) -> Result<(), StorageError> {
        self.log.wait_stored(index).await
    }

    /// All entries in `range` that the log holds.
    fn read(&self, range: Range<u64>) -> Result<Vec<LogEntry>, StorageError> {
        let mut entries = self.sound(self.log.read(range.clone(), usize::MAX))?;
        // A read stops where entries move from the cache to the disk only if something was removed meanwhile.
        while let Some(last) = entries.last()
            && last.log_id.index + 1 < range.end
        {
            let mut more = self.sound(self.log.read(last.log_id.index + 1..range.end, usize::MAX))?;
            if more.is_empty() {
                break;
            }
            entries.append(&mut more);
        }
        Ok(entries)
    }

    /// A log that can not be read must not be voted with.
    fn sound<T>(&self, result: Result<T, StorageError>) -> Result<T, StorageError> {
        result.inspect_err(|error| self.queue.fail(error))
    }
}

/// A pipeline over any medium, for tests and simulations. A node's storage has its own.
pub struct LogPipeline {
    medium: Arc<dyn Medium>,
    pipeline: Arc<super::writer::Pipeline>,
}

impl LogPipeline {
    /// Starts a writer over `medium`.
    pub fn start(
        medium: Arc<dyn Medium>,
        cache_bytes: usize,
        on_fatal: super::writer::OnFatal,
    ) -> Result<Self, StorageError> {
        let pipeline = Arc::new(super::writer::Pipeline::start(medium.clone(), cache_bytes, on_fatal)?);
        Ok(LogPipeline { medium, pipeline })
    }

    /// A shard's log. Purging only moves a mark.
    pub fn log(&self, shard: ShardId) -> Result<LogStore, StorageError> {
        let queue = self.pipeline.queue().clone();
        let log = queue.open_log(shard, &self.medium)?;
        let sweep = Arc::new(super::sweeper::MarkOnly { queue: queue.clone() });
        Ok(LogStore { log, queue, sweep, _keep: self.pipeline.clone() })
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<LogEntry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        // Applying may ask for everything that was ever committed: read it piece by piece.
        let Range { start, end } = indexes(&range);
        let store = self.clone();
        let pieces = stream::try_unfold(start, move |start| {
            let piece = store.read(start..end.min(start.saturating_add(APPLY_READ_ENTRIES)));
            async move {
                let piece = piece?;
                let next = piece.last().map(|last| last.log_id.index + 1);
                Ok::<_, io::Error>(next.map(|next| (stream::iter(piece.into_iter().map(Ok)), next)))
            }
        });
        Box::pin(futures::TryStreamExt::try_flatten(pieces))
    }

    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<LogEntry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        Ok(self.read(indexes(&range))?)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.log.vote())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<LogEntry>, io::Error> {
        Ok(self.sound(self.log.read(start..end, REPLICATION_READ_BYTES))?)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let (last_purged_log_id, last_log_id) = self.log.bounds();
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        Ok(self.queue.vote(&self.log, *vote).await?)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        if let Some(committed) = committed {
            self.queue.committed(&self.log, committed);
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.log.committed())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        Ok(self.queue.append(&self.log, entries.into_iter().collect(), callback).await?)
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        self.queue.truncate(&self.log, last_log_id);
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        self.log.purge(log_id);
        self.sweep.purged(self.log.shard, log_id);
        Ok(())
    }
}

fn indexes(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}
