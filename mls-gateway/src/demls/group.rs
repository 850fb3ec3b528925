//! One DeMLS group at this gateway: its log, its branches, its mode, and who wants to know of changes.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, atomic::AtomicUsize},
};

use group_log::{
    EntryId, GroupId, Head, StateId, View,
    fork::{BranchRefusal, BranchTree, ForkView, Item, Mark, Mode, Recorded},
};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, MutexGuard, Notify, watch};

use super::{
    states::{LookError, States},
    store::{GroupRows, Promise, Seat, StoreError, StoredEntry},
    usage::Usage,
};
use crate::{
    error::GatewayError,
    limits::{BRANCH_BYTES_PER_GROUP_MAX, LOG_ENTRIES_KEPT, LOG_ENTRIES_PRUNED_MIN},
    metrics,
};

/// Why something could not be done with a group.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GroupError {
    /// The rules of branches refuse it here and now.
    #[error(transparent)]
    Branch(#[from] BranchRefusal),
    /// It can not be processed, or is not what it says.
    #[error(transparent)]
    Look(#[from] LookError),
    /// The group does not carry on without a quorum now.
    #[error("the group is not in forked mode here")]
    NotForked,
    /// The gateway has just let go of the group.
    #[error("the gateway has let go of the group: ask again")]
    Gone,
    /// The storage failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A DeMLS group. Clones of the `Arc` share everything.
pub struct Group {
    /// Its id.
    pub id: GroupId,
    /// The shard that orders it.
    pub shard: u32,
    /// Its rows; may be read at any time.
    pub rows: GroupRows,
    /// Submissions whose outcome is not known.
    pub in_doubt: AtomicUsize,
    /// Wakes those who look after the group.
    pub wake: Notify,
    pub(super) states: Arc<Mutex<States>>,
    pub(super) core: AsyncMutex<Core>,
    /// Changes whenever the log, the branches or the promise do.
    pub(super) changed: watch::Sender<()>,
    pub(super) mode: watch::Sender<Mode>,
    /// The log was followed to its end, at least once since the start.
    pub(super) live: watch::Sender<bool>,
    /// Why the group can not be served any more, if that is so.
    pub(super) failed: Mutex<Option<GatewayError>>,
    /// Who uses it here.
    pub(super) usage: Usage,
    /// How much of it is kept.
    pub(super) keeping: Keeping,
}

/// How much a gateway keeps of each group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// Entries of the copied log that are kept below the stable one, with their payload.
    pub log_entries: u64,
    /// Branches that the log does not make superfluous yet, in bytes.
    pub branch_bytes: usize,
}

impl Default for Keeping {
    fn default() -> Self {
        Self { log_entries: LOG_ENTRIES_KEPT, branch_bytes: BRANCH_BYTES_PER_GROUP_MAX }
    }
}

/// What changes together.
pub(super) struct Core {
    pub tree: BranchTree,
    pub tree_bytes: usize,
    /// Entries of the tree that the log does not record.
    pub unrecorded: BTreeSet<EntryId>,
    pub promise: Promise,
    /// What the cluster is known to have been told since the start.
    pub acknowledged: u64,
    /// Entries of the tree in the order they came in, the first with number `first`.
    pub arrivals: VecDeque<EntryId>,
    pub first_arrival: u64,
    /// What was unrecorded has been told to the cluster since the quorum came back.
    pub reported: bool,
    /// States that are kept beside the head.
    pub retained: Retained,
    /// The oldest entry of the log that is kept with its payload.
    pub oldest: u64,
    /// The gateway has let go of the group: nothing is taken in any more.
    pub gone: bool,
}

/// States that a group keeps beside its head, as they are counted in the metrics.
#[derive(Default)]
pub(super) struct Retained(u64);

impl Retained {
    fn set(&mut self, states: u64) {
        metrics::retained_states(states as f64 - self.0 as f64);
        self.0 = states;
    }
}

impl Drop for Retained {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Core {
    /// Counts what is kept: canonical states from the stable one to the head, and those on branches that the log does not record yet.
    pub(super) fn count_retained(&mut self, rows: &GroupRows) -> Result<(), StoreError> {
        let canonical = rows.head()?.map_or(0, |head| head.epoch).saturating_sub(rows.fork()?.stable_epoch);
        let unrecorded = self.unrecorded.iter().filter_map(|id| self.tree.get(id));
        let on_branches = unrecorded.filter(|entry| entry.is_commit()).count();
        self.retained.set(canonical + on_branches as u64);
        Ok(())
    }
}

/// A digest of what a gateway has of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// The newest entry of the copied log.
    pub log_seq: u64,
    /// Entries that the log does not record.
    pub entries: u64,
    /// The XOR of their ids.
    pub xor: [u8; 32],
}

impl Group {
    /// Takes up a group that the storage knows. Blocks.
    pub(super) fn open(
        rows: GroupRows,
        id: GroupId,
        promise: Promise,
        keeping: Keeping,
    ) -> Result<Self, StoreError> {
        let mut states = States::new(rows.clone());
        let mut core = Core {
            tree: BranchTree::new(),
            tree_bytes: 0,
            unrecorded: BTreeSet::new(),
            promise,
            acknowledged: 0,
            arrivals: VecDeque::new(),
            first_arrival: 0,
            reported: false,
            retained: Retained::default(),
            oldest: rows.oldest()?.unwrap_or(1),
            gone: false,
        };
        // Parents first. Each round takes in at least one entry, or what is left hangs from nothing.
        let mut waiting = rows.branch()?;
        loop {
            let before = waiting.len();
            let mut later = Vec::new();
            for entry in waiting {
                let (id, size) = (entry.id(), entry.size());
                match core.tree.insert(&rows, entry.clone())? {
                    Err(BranchRefusal::UnknownParent { .. }) => later.push(entry),
                    // Recorded meanwhile: it is told by the log.
                    Err(_) | Ok(false) => {}
                    Ok(true) => {
                        core.tree_bytes += size;
                        core.unrecorded.insert(id);
                        core.arrivals.push_back(id);
                        states.took_branch(&entry);
                    }
                }
            }
            waiting = later;
            if waiting.is_empty() || waiting.len() == before {
                break;
            }
        }
        if !waiting.is_empty() {
            return Err(StoreError::damaged(
                "the branches",
                format_args!("{} hang from nothing", waiting.len()),
            ));
        }
        core.count_retained(&rows)?;
        Ok(Self {
            id,
            shard: promise.shard,
            rows,
            in_doubt: AtomicUsize::new(0),
            wake: Notify::new(),
            states: Arc::new(Mutex::new(states)),
            core: AsyncMutex::new(core),
            changed: watch::Sender::new(()),
            mode: watch::Sender::new(Mode::Suspect),
            live: watch::Sender::new(false),
            failed: Mutex::new(None),
            usage: Usage::new(),
            keeping,
        })
    }

    /// The mode, now and whenever it changes.
    pub fn modes(&self) -> watch::Receiver<Mode> {
        self.mode.subscribe()
    }

    /// The mode now.
    pub fn mode(&self) -> Mode {
        *self.mode.borrow()
    }

    /// Whether the log was followed to its end, at least once since the start.
    pub fn live(&self) -> watch::Receiver<bool> {
        self.live.subscribe()
    }

    /// Completes when the log or the branches have changed.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The newest entry of the copied log.
    pub fn head(&self) -> Result<Option<Head>, StoreError> {
        self.rows.head()
    }

    /// Why the group can not be served, if so.
    pub fn failure(&self) -> Option<GatewayError> {
        self.failed.lock().clone()
    }

    /// What is here.
    pub async fn digest(&self) -> Result<Digest, StoreError> {
        let core = self.core.lock().await;
        let mut digest = Digest { log_seq: self.log_seq()?, ..Digest::default() };
        for id in &core.unrecorded {
            digest.entries += 1;
            digest.xor.iter_mut().zip(id.as_bytes()).for_each(|(xor, byte)| *xor ^= byte);
        }
        Ok(digest)
    }

    /// Number of the newest entry of the copied log.
    pub fn log_seq(&self) -> Result<u64, StoreError> {
        Ok(self.head()?.map_or(0, |head| head.seq))
    }

    /// The state is known here: in the log, or on a branch.
    pub async fn knows_state(&self, state: &StateId) -> Result<bool, StoreError> {
        let id = EntryId::from(*state);
        let recorded = match self.rows.recorded(&id)? {
            Some(Recorded::Canonical { is_state, .. }) => is_state,
            Some(Recorded::Dead(dead)) => dead.is_state,
            None => false,
        };
        Ok(recorded || self.core.lock().await.tree.get(&id).is_some_and(|entry| entry.is_commit()))
    }

    /// Takes in the next entries of the log, from whoever has them. Those that are known are passed over.
    pub async fn append(&self, entries: &[StoredEntry]) -> Result<(), StoreError> {
        let mut core = self.core.lock().await;
        if core.gone {
            return Ok(());
        }
        let mut next = self.log_seq()? + 1;
        let mut stable_moved = false;
        for stored in entries.iter().filter(|stored| stored.entry.seq > 0) {
            if stored.entry.seq < next {
                continue;
            }
            let entry = self.rows.append(stored)?;
            next += 1;
            match &entry.item {
                Item::Mark(Mark::Side { ids, .. } | Mark::Late { ids }) => {
                    ids.iter().for_each(|id| _ = core.unrecorded.remove(id));
                }
                Item::Mark(Mark::Stable { .. }) => stable_moved = true,
                Item::Content(content) => {
                    if let Some(record) = self.rows.record(entry.seq)? {
                        core.unrecorded.remove(&record.id);
                    }
                    if let group_log::Content::Proposal { message } = content {
                        self.states.lock().took_proposal(&entry.state_id, message);
                    }
                }
            }
        }
        if stable_moved {
            self.prune(&mut core)?;
        }
        core.count_retained(&self.rows)?;
        let pruned = stable_moved && self.prune_log(&mut core)?;
        drop(core);
        if pruned {
            self.sync().await?;
        }
        self.changed.send_replace(());
        self.wake.notify_waiters();
        Ok(())
    }

    /// Drops what the log records at or below its stable position.
    fn prune(&self, core: &mut MutexGuard<'_, Core>) -> Result<(), StoreError> {
        let before: Vec<(EntryId, usize)> = core.tree.iter().map(|(id, entry)| (*id, entry.size())).collect();
        let dropped: BTreeSet<EntryId> = core.tree.prune(&self.rows)?.into_iter().collect();
        let bytes: usize = before.iter().filter(|(id, _)| dropped.contains(id)).map(|(_, size)| size).sum();
        core.tree_bytes = core.tree_bytes.saturating_sub(bytes);
        let dropped: Vec<_> = dropped.into_iter().collect();
        self.rows.drop_branch(&dropped)?;
        self.states.lock().dropped(&dropped);
        while core.arrivals.front().is_some_and(|id| core.tree.get(id).is_none()) {
            core.arrivals.pop_front();
            core.first_arrival += 1;
        }
        Ok(())
    }

    /// Deletes the payload of old entries of the log: below the stable one, and not needed to see who is a member from there on. Returns
    /// whether anything was deleted.
    fn prune_log(&self, core: &mut Core) -> Result<bool, StoreError> {
        let stable = self.rows.fork()?.stable;
        let mut before = stable.saturating_sub(self.keeping.log_entries);
        if before < core.oldest.saturating_add(self.keeping.log_entries.min(LOG_ENTRIES_PRUNED_MIN)) {
            return Ok(false);
        }
        if let Some(record) = self.rows.record(stable)?
            && let Some(base) = self.states.lock().base(&record.state_after)?
        {
            before = before.min(base);
        }
        if before <= core.oldest {
            return Ok(false);
        }
        self.rows.prune_log(core.oldest, before)?;
        core.oldest = before;
        Ok(true)
    }

    /// Promises not to fork below the newest entry, durably, if nothing is unreported and the group is not forked. Gives the promise.
    pub(super) async fn promise(&self) -> Result<Option<Promise>, StoreError> {
        let mut core = self.core.lock().await;
        if self.mode() == Mode::Forked || !core.unrecorded.is_empty() || core.gone {
            return Ok(None);
        }
        let position = self.log_seq()?.max(core.promise.position);
        let promise = Promise { position, ..core.promise };
        self.rows.set_promise(&promise)?;
        // Held meanwhile: nothing is accepted below what is being promised.
        self.sync().await?;
        core.promise = promise;
        Ok(Some(promise))
    }

    /// The cluster counts on this gateway for the group, or does no longer.
    pub(super) async fn set_seat(&self, seat: Seat) -> Result<(), StoreError> {
        let mut core = self.core.lock().await;
        core.promise.seat = seat;
        // A new registration begins at the stable position, whatever was acknowledged in the one before.
        core.acknowledged = 0;
        self.rows.set_promise(&core.promise)?;
        self.sync().await?;
        drop(core);
        self.changed.send_replace(());
        self.wake.notify_waiters();
        Ok(())
    }

    /// Makes everything written so far durable.
    pub(super) async fn sync(&self) -> Result<(), StoreError> {
        let store = Arc::clone(self.rows.store());
        let synced = tokio::task::spawn_blocking(move || store.sync()).await;
        synced.unwrap_or_else(|error| Err(StoreError::Database(error.to_string())))
    }
}
