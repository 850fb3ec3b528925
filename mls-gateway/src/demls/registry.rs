//! All DeMLS groups that this gateway serves.

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroUsize,
    sync::Arc,
    time::Duration,
};

use concordat_proto::log::v1 as pb;
use group_log::GroupId;
use lru::LruCache;
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};
use tokio_util::task::AbortOnDropHandle;

use super::{
    duties,
    group::{Group, Keeping},
    keeper, leaving,
    log::{self, Sink},
    path::Paths,
    store::{GroupRows, Promise, Seat, Store, StoreError},
    times::Times,
};
use crate::{
    cluster::LogReader,
    error::GatewayError,
    limits::{DEMLS_GROUPS_CROWDED, DEMLS_GROUPS_MAX, KINDS_MAX},
    metrics,
};

/// The groups, and what is needed to take up another.
pub struct Registry {
    store: Arc<Store>,
    paths: Arc<Paths>,
    times: Times,
    keeping: Keeping,
    groups: Mutex<HashMap<GroupId, Served>>,
    kinds: Mutex<LruCache<GroupId, pb::GroupKind>>,
    /// Groups that are not simply ordered, or have something that the log lacks.
    unsettled: Mutex<BTreeMap<GroupId, Arc<Group>>>,
    digests: watch::Sender<()>,
    sweeping: Mutex<Option<AbortOnDropHandle<()>>>,
    this: std::sync::Weak<Registry>,
}

struct Served {
    group: Arc<Group>,
    sink: Arc<Sink>,
    _tasks: [AbortOnDropHandle<()>; 3],
}

impl Registry {
    /// Takes up every group of the storage: whoever was promised something is still served. Blocks while it reads.
    pub fn start(
        store: Arc<Store>,
        paths: Arc<Paths>,
        times: Times,
        keeping: Keeping,
    ) -> Result<Arc<Self>, StoreError> {
        let most = const { NonZeroUsize::new(KINDS_MAX).expect("the bound is not zero") };
        let registry = Arc::new_cyclic(|this| Self {
            store,
            paths,
            times,
            keeping,
            groups: Mutex::default(),
            kinds: Mutex::new(LruCache::new(most)),
            unsettled: Mutex::default(),
            digests: watch::Sender::new(()),
            sweeping: Mutex::default(),
            this: this.clone(),
        });
        for id in registry.store.groups()? {
            let rows = GroupRows::new(Arc::clone(&registry.store), id.clone());
            if let Some(promise) = rows.promise()? {
                registry.serve(id, rows, promise)?;
            }
        }
        let sweep = leaving::sweep(registry.this.clone(), registry.times.clone());
        *registry.sweeping.lock() = Some(AbortOnDropHandle::new(tokio::spawn(sweep)));
        Ok(registry)
    }

    /// The ways to a quorum.
    pub fn paths(&self) -> &Arc<Paths> {
        &self.paths
    }

    /// The storage.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// A group that is served here.
    pub fn get(&self, id: &GroupId) -> Option<Arc<Group>> {
        self.groups.lock().get(id).map(|served| Arc::clone(&served.group))
    }

    /// A DeMLS group, for a client: the cluster will be asked to count on this gateway for it.
    pub async fn used(&self, id: &GroupId) -> Result<Arc<Group>, GatewayError> {
        let group = self.open(id).await?;
        if let Some(failure) = group.failure() {
            return Err(failure);
        }
        if group.usage.want() {
            group.wake.notify_waiters();
        }
        Ok(group)
    }

    /// A client of this gateway is being invited to a DeMLS group: the group is taken up in the background, so that the cluster counts on
    /// this gateway for it by the time the client joins. Not if the gateway is crowded: invitations come unasked for.
    pub fn invited(&self, id: &GroupId) {
        if self.groups.lock().len() >= DEMLS_GROUPS_CROWDED {
            return;
        }
        let (this, id) = (self.this.clone(), id.clone());
        tokio::spawn(async move {
            let Some(registry) = this.upgrade() else { return };
            if let Err(error) = registry.used(&id).await {
                tracing::debug!(%error, "a group that a client is invited to is not taken up yet");
            }
        });
    }

    /// A DeMLS group, taken up now if need be.
    pub async fn open(&self, id: &GroupId) -> Result<Arc<Group>, GatewayError> {
        if let Some(served) = self.groups.lock().get(id) {
            // While the map is held: from here on it is not idle.
            served.group.usage.touch();
            return Ok(Arc::clone(&served.group));
        }
        let shard = self.paths.cluster.locator.shard(id).await?;
        if self.kind(id).await? != pb::GroupKind::Demls {
            return Err(GatewayError::bad_field("group_id", "a DeMLS group", "another kind"));
        }
        if self.groups.lock().len() >= DEMLS_GROUPS_MAX {
            return Err(GatewayError::overloaded("the number of DeMLS groups", DEMLS_GROUPS_MAX));
        }
        let rows = GroupRows::new(Arc::clone(&self.store), id.clone());
        let promise = Promise { shard, ..Promise::default() };
        rows.set_promise(&promise)?;
        Ok(self.serve(id.clone(), rows, promise)?)
    }

    /// A group was created as a DeMLS group: nobody need be asked what it is.
    pub fn created(&self, id: &GroupId) {
        self.kinds.lock().put(id.clone(), pb::GroupKind::Demls);
    }

    /// What a group is. It never changes, so it is asked for once.
    pub async fn kind(&self, id: &GroupId) -> Result<pb::GroupKind, GatewayError> {
        if self.groups.lock().contains_key(id) {
            return Ok(pb::GroupKind::Demls);
        }
        if let Some(kind) = self.kinds.lock().get(id) {
            return Ok(*kind);
        }
        let reader = &self.paths.cluster.reader;
        let head = match reader.head(id, false, false).await {
            // A node that lags may not know a new group yet.
            Err(GatewayError::GroupNotFound) => reader.head(id, true, false).await?,
            other => other?,
        };
        let kind = head.head.kind();
        self.kinds.lock().put(id.clone(), kind);
        Ok(kind)
    }

    /// The cluster has accepted an entry: it must be seen here before long.
    pub fn expect(&self, id: &GroupId, seq: u64) {
        if let Some(served) = self.groups.lock().get(id) {
            served.sink.expect(seq, Instant::now());
        }
    }

    /// Every group that is served here.
    pub(super) fn all(&self) -> Vec<Arc<Group>> {
        self.groups.lock().values().map(|served| Arc::clone(&served.group)).collect()
    }

    /// Forgets a group that the cluster does not wait for here, unless something has come in, or somebody asks for it, at this moment.
    pub(super) fn forget(&self, group: &Arc<Group>, idle: Duration) -> Result<(), StoreError> {
        let mut groups = self.groups.lock();
        // Whoever holds it has something to do with the group.
        let Ok(mut core) = group.core.try_lock() else { return Ok(()) };
        let is_over = core.promise.seat == Seat::Out && group.has_nothing_left(&core)?;
        if !is_over || !group.usage.is_idle(idle) {
            return Ok(());
        }
        group.rows.delete_all()?;
        core.gone = true;
        groups.remove(&group.id);
        drop((core, groups));
        self.note(group, false);
        tracing::debug!("a group that nobody uses is forgotten");
        Ok(())
    }

    /// Groups that others are told of.
    pub fn unsettled(&self) -> BTreeMap<GroupId, Arc<Group>> {
        self.unsettled.lock().clone()
    }

    /// Completes when a digest of one of them may have changed.
    pub fn digests_changed(&self) -> watch::Receiver<()> {
        self.digests.subscribe()
    }

    /// A group is settled, or not.
    pub(super) fn note(&self, group: &Arc<Group>, unsettled: bool) {
        let mut groups = self.unsettled.lock();
        let was = if unsettled {
            groups.insert(group.id.clone(), Arc::clone(group)).is_some()
        } else {
            groups.remove(&group.id).is_some()
        };
        metrics::open_branches(groups.len());
        drop(groups);
        if was || unsettled {
            self.digests.send_replace(());
        }
    }

    fn serve(&self, id: GroupId, rows: GroupRows, promise: Promise) -> Result<Arc<Group>, StoreError> {
        let mut groups = self.groups.lock();
        if let Some(served) = groups.get(&id) {
            return Ok(Arc::clone(&served.group));
        }
        let group = Arc::new(Group::open(rows, id.clone(), promise, self.keeping)?);
        let sink = Sink::new(&group)?;
        let paths = || Arc::clone(&self.paths);
        let keeping = keeper::keep(Arc::clone(&group), paths(), self.this.clone(), self.times.clone());
        let tasks = [
            tokio::spawn(log::follow(Arc::clone(&group), Arc::clone(&sink), paths())),
            tokio::spawn(keeping),
            tokio::spawn(duties::attend(Arc::clone(&group), paths(), self.times.clone())),
        ];
        let served = Served { group: Arc::clone(&group), sink, _tasks: tasks.map(AbortOnDropHandle::new) };
        groups.insert(id, served);
        Ok(group)
    }
}
