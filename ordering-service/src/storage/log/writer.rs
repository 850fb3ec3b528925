//! One thread writes the logs of all shards: whatever is waiting goes into one batch, one sync makes it durable, and then
//! everybody is told, in order. While a sync runs the next batch gathers, so batches are as large as the disk is slow.
//!
//! After a failed write or sync nothing is known about what the disk holds, and a second sync would prove nothing. So the
//! first failure is reported to everybody who waits, the pipeline stays stopped, and the process is asked to end.

use std::{
    collections::{BTreeMap, VecDeque},
    io, mem,
    sync::{Arc, atomic::AtomicUsize},
    thread::{self, JoinHandle},
};

use openraft::storage::IOFlushed;
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::{
    sync::{Notify, oneshot},
    time::{Duration, Instant},
};

use super::{
    LogEntry, LogId, Vote,
    cache::{Pending, ShardLog},
    codec::entry_bytes,
    medium::{Change, Medium},
};
use crate::{
    raft::types::{ShardId, TypeConfig},
    storage::{
        error::StorageError,
        limits::{SYNCED_MARK_INTERVAL_MS, WRITE_BATCH_BYTES, WRITE_QUEUE_BYTES},
        metrics::WriterMetrics,
    },
};

/// After so much time without work the medium settles.
const IDLE: Duration = Duration::from_millis(SYNCED_MARK_INTERVAL_MS);

/// Called once, with the first failure that must end the process.
pub type OnFatal = Arc<dyn Fn(&StorageError) + Send + Sync>;

/// The queue in front of the writer thread. Dropping the [`Pipeline`] writes what is queued, then ends the thread.
pub(crate) struct Pipeline {
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What shards hold of the pipeline.
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    work: Condvar,
    room: Notify,
    failed: Mutex<Option<StorageError>>,
    on_fatal: OnFatal,
    logs: Mutex<BTreeMap<ShardId, Arc<ShardLog>>>,
    cached: Arc<AtomicUsize>,
    cache_limit: usize,
    metrics: WriterMetrics,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    bytes: usize,
    /// What was committed, by shard. Written along with the next batch: losing it costs a replay, nothing else.
    committed: BTreeMap<ShardId, LogId>,
    closing: bool,
}

struct Job {
    shard: ShardId,
    change: Change,
    bytes: usize,
    done: Done,
}

/// Whom to tell when a change is durable.
enum Done {
    Nobody,
    Caller(oneshot::Sender<Result<(), StorageError>>),
    Append(Arc<ShardLog>, Pending, IOFlushed<TypeConfig>),
}

impl Pipeline {
    /// Starts the writer thread.
    pub(crate) fn start(
        medium: Arc<dyn Medium>,
        cache_limit: usize,
        on_fatal: OnFatal,
    ) -> Result<Self, StorageError> {
        let queue = Arc::new(Queue {
            waiting: Mutex::default(),
            work: Condvar::new(),
            room: Notify::new(),
            failed: Mutex::new(None),
            on_fatal,
            logs: Mutex::default(),
            cached: Arc::default(),
            cache_limit,
            metrics: WriterMetrics::new(),
        });
        let of_thread = queue.clone();
        let thread = thread::Builder::new()
            .name("log-writer".into())
            .spawn(move || of_thread.run(&*medium))
            .map_err(|error| StorageError::Io {
                what: "starting the log writer".into(),
                detail: error.to_string(),
            })?;
        Ok(Pipeline { queue, thread: Mutex::new(Some(thread)) })
    }

    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.queue.waiting.lock().closing = true;
        self.queue.work.notify_all();
        if let Some(thread) = self.thread.lock().take()
            && thread.thread().id() != thread::current().id()
        {
            // A panic of the writer has been reported by its own hook already.
            let _ = thread.join();
        }
    }
}

impl Queue {
    /// Opens a shard's log, or gives the one that is open.
    pub(crate) fn open_log(
        &self,
        shard: ShardId,
        medium: &Arc<dyn Medium>,
    ) -> Result<Arc<ShardLog>, StorageError> {
        let mut logs = self.logs.lock();
        if let Some(log) = logs.get(&shard) {
            return Ok(log.clone());
        }
        let log = Arc::new(ShardLog::open(shard, medium.clone(), self.cached.clone())?);
        logs.insert(shard, log.clone());
        Ok(log)
    }

    /// Entries are readable when this returns; `callback` fires when they are durable.
    pub(crate) async fn append(
        &self,
        log: &Arc<ShardLog>,
        entries: Vec<LogEntry>,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), StorageError> {
        self.wait_for_room().await;
        let pending = match log.append(&entries) {
            Ok(pending) => pending,
            Err(error) => {
                callback.io_completed(Err(error.clone().into()));
                return Err(error);
            }
        };
        let bytes = entries.iter().map(entry_bytes).sum();
        let done = Done::Append(log.clone(), pending, callback);
        self.push(Job { shard: log.shard, change: Change::Append(entries), bytes, done });
        Ok(())
    }

    /// Returns when the vote is durable.
    pub(crate) async fn vote(&self, log: &ShardLog, vote: Vote) -> Result<(), StorageError> {
        self.durable(log.shard, Change::Vote(vote)).await?;
        log.set_vote(vote);
        Ok(())
    }

    /// Removes entries from the end of a log. What is appended later is written later.
    pub(crate) fn truncate(&self, log: &Arc<ShardLog>, keep: Option<LogId>) {
        let (gone, pending) = log.truncate_after(keep);
        if !gone.is_empty() {
            let done = Done::Append(log.clone(), pending, IOFlushed::noop());
            self.push(Job { shard: log.shard, change: Change::Truncate(gone), bytes: 0, done });
        }
    }

    /// Remembers what was committed, some time soon.
    pub(crate) fn committed(&self, log: &ShardLog, committed: LogId) {
        log.set_committed(committed);
        self.waiting.lock().committed.insert(log.shard, committed);
    }

    /// Makes one change, some time soon.
    pub(crate) fn enqueue(&self, shard: ShardId, change: Change) {
        self.push(Job { shard, change, bytes: 0, done: Done::Nobody });
    }

    /// Makes one change and returns when it is durable.
    pub(crate) async fn durable(&self, shard: ShardId, change: Change) -> Result<(), StorageError> {
        let (sender, done) = oneshot::channel();
        self.push(Job { shard, change, bytes: 0, done: Done::Caller(sender) });
        done.await.unwrap_or(Err(StorageError::Closed))
    }

    /// [`Queue::durable`] for threads.
    pub(crate) fn durable_blocking(&self, shard: ShardId, change: Change) -> Result<(), StorageError> {
        let (sender, done) = oneshot::channel();
        self.push(Job { shard, change, bytes: 0, done: Done::Caller(sender) });
        done.blocking_recv().unwrap_or(Err(StorageError::Closed))
    }

    /// The first failure, if there was one.
    pub(crate) fn failure(&self) -> Option<StorageError> {
        self.failed.lock().clone()
    }

    /// Stops all writing for good. The first failure wins; one that is fatal asks the process to end.
    pub(crate) fn fail(&self, error: &StorageError) {
        {
            let mut failed = self.failed.lock();
            if failed.is_some() {
                return;
            }
            *failed = Some(error.clone());
        }
        tracing::error!(%error, "storage stops");
        for log in self.logs.lock().values() {
            log.fail(error);
        }
        self.work.notify_all();
        self.room.notify_waiters();
        if error.is_fatal() {
            (self.on_fatal)(error);
        }
    }

    async fn wait_for_room(&self) {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if self.waiting.lock().bytes < WRITE_QUEUE_BYTES || self.failed.lock().is_some() {
                return;
            }
            room.await;
        }
    }

    fn push(&self, job: Job) {
        let mut waiting = self.waiting.lock();
        if waiting.closing {
            drop(waiting);
            return job.done.tell(&Err(StorageError::Closed));
        }
        waiting.bytes += job.bytes;
        waiting.jobs.push_back(job);
        drop(waiting);
        self.work.notify_one();
    }

    fn run(&self, medium: &dyn Medium) {
        let mut jobs = Vec::new();
        let mut changes = Vec::new();
        while self.take(medium, &mut jobs, &mut changes) {
            let result = match self.failure() {
                Some(error) => Err(StorageError::Stopped(Box::new(error))),
                None => self.store(medium, &changes),
            };
            // A waiter may look at the failure as soon as it is told.
            if let Err(error) = &result {
                self.fail(error);
            }
            changes.clear();
            jobs.drain(..).for_each(|done: Done| done.tell(&result));
            self.evict();
        }
        if let (None, Err(error)) = (self.failure(), medium.settle()) {
            tracing::warn!(%error, "the evidence of synced writes is not synced");
        }
    }

    fn store(&self, medium: &dyn Medium, changes: &[(ShardId, Change)]) -> Result<(), StorageError> {
        medium.write(changes)?;
        let begin = Instant::now();
        medium.sync()?;
        self.metrics.fsync_seconds.record(begin.elapsed().as_secs_f64());
        self.metrics.batch_changes.record(changes.len() as f64);
        Ok(())
    }

    /// Waits for work and takes as much as one batch may hold. False when the pipeline is closed and empty.
    fn take(&self, medium: &dyn Medium, done: &mut Vec<Done>, changes: &mut Vec<(ShardId, Change)>) -> bool {
        let mut waiting = self.waiting.lock();
        let mut settled = false;
        while waiting.jobs.is_empty() {
            // What was committed is written when the pipeline closes, so that an orderly stop needs no replay.
            if waiting.closing {
                changes.extend(committed(&mut waiting));
                return !changes.is_empty();
            }
            if settled {
                self.work.wait(&mut waiting);
            } else if self.work.wait_for(&mut waiting, IDLE).timed_out() {
                settled = true;
                if let Err(error) = MutexGuard::unlocked(&mut waiting, || medium.settle()) {
                    MutexGuard::unlocked(&mut waiting, || self.fail(&error));
                }
            }
        }
        let mut bytes = 0;
        while bytes < WRITE_BATCH_BYTES
            && let Some(job) = waiting.jobs.pop_front()
        {
            bytes += job.bytes;
            changes.push((job.shard, job.change));
            done.push(job.done);
        }
        if waiting.jobs.is_empty() {
            changes.extend(committed(&mut waiting));
        }
        let full = waiting.bytes >= WRITE_QUEUE_BYTES;
        waiting.bytes -= bytes;
        self.metrics.queue_bytes.set(waiting.bytes as f64);
        drop(waiting);
        if full {
            self.room.notify_waiters();
        }
        true
    }

    /// Keeps the caches of all shards together below their limit, at the cost of the largest.
    fn evict(&self) {
        let cached = self.cached.load(std::sync::atomic::Ordering::Relaxed);
        self.metrics.cache_bytes.set(cached as f64);
        let mut excess = cached.saturating_sub(self.cache_limit);
        if excess == 0 {
            return;
        }
        let mut logs: Vec<_> =
            self.logs.lock().values().map(|log| (log.cached_bytes(), log.clone())).collect();
        logs.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        for (_, log) in logs {
            excess = excess.saturating_sub(log.evict(excess));
        }
    }
}

fn committed(waiting: &mut Waiting) -> impl Iterator<Item = (ShardId, Change)> + use<> {
    mem::take(&mut waiting.committed)
        .into_iter()
        .map(|(shard, committed)| (shard, Change::Committed(committed)))
}

impl Done {
    fn tell(self, result: &Result<(), StorageError>) {
        match self {
            Done::Nobody => {}
            // Whoever no longer listens need not be told.
            Done::Caller(sender) => drop(sender.send(result.clone())),
            Done::Append(log, pending, callback) => {
                if result.is_ok() {
                    log.stored(pending);
                }
                callback.io_completed(result.clone().map_err(io::Error::from));
            }
        }
    }
}
