//! Removes what a purge leaves behind, in the background.
//!
//! Purging must never outrun what is durable: first the state that covers the purged entries is flushed, then the mark is
//! written and synced, and only then are rows forgotten that nothing refers to, and their room reclaimed. A crash in between leaves
//! rows, never a hole.

use std::{
    collections::BTreeMap,
    sync::Arc,
    thread::{self, JoinHandle},
};

use parking_lot::{Condvar, Mutex};

use super::{
    LogId,
    medium::{Change, Medium, Reclaim},
    writer::Queue,
};
use crate::{
    raft::types::ShardId,
    storage::{error::StorageError, limits::SWEEP_ROWS},
};

/// Told about every purge.
pub(crate) trait Sweep: Send + Sync + 'static {
    /// Entries up to `upto` are no longer part of the shard's log.
    fn purged(&self, shard: ShardId, upto: LogId);
}

/// What the state machine of a shard knows about log rows.
pub(crate) trait Referrer: Send + Sync + 'static {
    /// Makes the state durable up to and with this index, if it is not.
    fn make_durable(&self, index: u64) -> Result<(), StorageError>;

    /// All rows up to and with this index are kept elsewhere, because a snapshot brought them.
    fn kept_elsewhere(&self) -> Option<u64>;

    /// Rows up to and with `upto` that nothing refers to: the first of them, at most `max`.
    fn unreferenced(&self, upto: u64, max: usize) -> Result<Vec<u64>, StorageError>;

    /// These rows are gone.
    fn forgotten(&self, indexes: &[u64]) -> Result<(), StorageError>;
}

/// Only moves the mark.
pub(crate) struct MarkOnly {
    pub(crate) queue: Arc<Queue>,
}

impl Sweep for MarkOnly {
    fn purged(&self, shard: ShardId, upto: LogId) {
        self.queue.enqueue(shard, Change::Purged(upto));
    }
}

/// The thread that sweeps. Dropping it ends the thread after the step it is in.
pub(crate) struct Sweeper {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    queue: Arc<Queue>,
    medium: Arc<dyn Medium>,
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    /// The newest purge of each shard.
    purged: BTreeMap<ShardId, LogId>,
    referrers: BTreeMap<ShardId, Arc<dyn Referrer>>,
    /// Up to where all rows of a shard were removed, because they are kept elsewhere.
    removed: BTreeMap<ShardId, u64>,
    busy: bool,
    closing: bool,
}

impl Sweeper {
    pub(crate) fn start(queue: Arc<Queue>, medium: Arc<dyn Medium>) -> Result<Self, StorageError> {
        let shared = Arc::new(Shared { queue, medium, state: Mutex::default(), work: Condvar::new() });
        let of_thread = shared.clone();
        let thread =
            thread::Builder::new().name("log-sweeper".into()).spawn(move || of_thread.run()).map_err(
                |error| StorageError::Io { what: "starting the sweeper".into(), detail: error.to_string() },
            )?;
        Ok(Sweeper { shared, thread: Mutex::new(Some(thread)) })
    }

    /// From now on the shard's rows are swept as its state machine says.
    pub(crate) fn register(&self, shard: ShardId, referrer: Arc<dyn Referrer>) {
        self.shared.state.lock().referrers.insert(shard, referrer);
    }

    /// Waits until nothing is left to sweep.
    pub(crate) fn wait_idle(&self) {
        let mut state = self.shared.state.lock();
        while !state.closing && (state.busy || !state.purged.is_empty()) {
            self.shared.work.wait(&mut state);
        }
    }
}

impl Sweep for Sweeper {
    fn purged(&self, shard: ShardId, upto: LogId) {
        let mut state = self.shared.state.lock();
        let newest = state.purged.entry(shard).or_insert(upto);
        if newest.index < upto.index {
            *newest = upto;
        }
        drop(state);
        self.shared.work.notify_all();
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.shared.state.lock().closing = true;
        self.shared.work.notify_all();
        if let Some(thread) = self.thread.lock().take()
            && thread.thread().id() != thread::current().id()
        {
            // A panic has been reported by its own hook already.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self) {
        while let Some((shard, upto, referrer)) = self.next() {
            match self.sweep(shard, upto, &*referrer) {
                Ok(()) | Err(StorageError::Stopped(_) | StorageError::Closed) => {}
                Err(error) => self.queue.fail(&error),
            }
            self.state.lock().busy = false;
            self.work.notify_all();
        }
    }

    fn next(&self) -> Option<(ShardId, LogId, Arc<dyn Referrer>)> {
        let mut state = self.state.lock();
        loop {
            if state.closing {
                return None;
            }
            if let Some((shard, upto)) = state.purged.pop_first()
                && let Some(referrer) = state.referrers.get(&shard).cloned()
            {
                state.busy = true;
                return Some((shard, upto, referrer));
            }
            self.work.wait(&mut state);
        }
    }

    fn sweep(&self, shard: ShardId, upto: LogId, referrer: &dyn Referrer) -> Result<(), StorageError> {
        referrer.make_durable(upto.index)?;
        self.queue.durable_blocking(shard, Change::Purged(upto))?;
        if let Some(kept) = referrer.kept_elsewhere().map(|kept| kept.min(upto.index))
            && self.state.lock().removed.get(&shard).is_none_or(|removed| *removed < kept)
        {
            self.queue.durable_blocking(shard, Change::ForgetAll(kept))?;
            self.state.lock().removed.insert(shard, kept);
        }
        loop {
            let rows = referrer.unreferenced(upto.index, SWEEP_ROWS)?;
            if self.state.lock().closing {
                return Ok(());
            }
            if rows.is_empty() {
                return self.reclaim(shard, upto);
            }
            self.medium.forget(shard, &rows)?;
            referrer.forgotten(&rows)?;
        }
    }

    fn reclaim(&self, shard: ShardId, upto: LogId) -> Result<(), StorageError> {
        while !self.state.lock().closing {
            match self.medium.reclaim()? {
                Reclaim::Done => break,
                Reclaim::More => {}
                // Any write will do, also one that says nothing new.
                Reclaim::AfterWrite => self.queue.durable_blocking(shard, Change::Purged(upto))?,
            }
        }
        Ok(())
    }
}
