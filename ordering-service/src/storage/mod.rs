//! What a node keeps on its disk: one log and one sync for all its shards, and one RocksDB for their states.
//!
//! [`Storage::open`] checks whose data it is and that nothing synced is missing; [`Storage::shard`] gives the parts of one
//! shard: its log and its state machine for Raft, and a reader for everybody else.

mod database;
pub mod error;
pub mod limits;
pub mod log;
pub mod marker;
pub mod metrics;
pub mod options;
pub mod snapshot;
pub mod space;
pub mod state;
mod synced;
pub mod wire;

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;

use self::{
    database::{Database, Generation, shards_and_generations},
    log::{
        medium::Medium,
        segments::SegmentMedium,
        sweeper::{Sweep, Sweeper},
        writer::Pipeline,
    },
    space::{FileSystem, Room},
    state::shard::ShardState,
    synced::SyncedMark,
};
pub use self::{
    error::StorageError,
    log::{LogEntry, LogId, StoredMembership, Vote, store::LogStore},
    marker::{ClusterMark, Marker},
    options::StorageOptions,
    snapshot::{Snapshot, SnapshotHandle, SnapshotMeta, SnapshotReceiver, SnapshotStream},
    state::{
        Advanced, ApplyObserver, GroupInfo, KeyPackageStatus, KnownGateway, NoObserver, OpenCollection,
        ShardReader, StateMachine,
    },
};
use crate::raft::types::{Membership, NodeId, ShardId};

/// A node's storage. Cheap to clone; the database closes when the last clone and everything that came from it is gone.
#[derive(Clone)]
pub struct Storage(Arc<Inner>);

struct Inner {
    // Fields are dropped in this order: first the threads end, then the database closes.
    sweeper: Arc<Sweeper>,
    pipeline: Pipeline,
    shards: Mutex<BTreeMap<ShardId, Arc<ShardState>>>,
    marker: Mutex<Marker>,
    room: Room,
    medium: Arc<dyn Medium>,
    database: Arc<Database>,
    directory: std::path::PathBuf,
    head_cache_groups: usize,
    observer: Arc<dyn ApplyObserver>,
}

/// One shard's storage.
pub struct Shard {
    /// The shard's log, for Raft.
    pub log: LogStore,
    /// The shard's state machine, for Raft.
    pub state_machine: StateMachine,
    /// Reads of what is applied, for everybody.
    pub reader: ShardReader,
}

impl Storage {
    /// Opens a node's data directory, or begins an empty one.
    ///
    /// Fails with [`StorageError::ForeignNode`] if it belongs to another node, and with [`StorageError::Corrupt`] if synced
    /// data is missing or damaged. Blocks for as long as the newest file of the log takes to read.
    pub fn open(path: &Path, options: StorageOptions) -> Result<Storage, StorageError> {
        fs::create_dir_all(path).map_err(|error| StorageError::file("creating", path, &error))?;
        let marker = claim(path, &options)?;
        // First the database, whose lock keeps other processes out.
        let database = Arc::new(Database::open(path, SyncedMark::exists(path), options.block_cache_bytes)?);
        let medium = SegmentMedium::open(path, marker.disk_id, options.segment_bytes)?;
        let medium = (options.wrap_medium)(Arc::new(medium));
        let pipeline = Pipeline::start(medium.clone(), options.log_cache_bytes, options.on_fatal)?;
        let sweeper = Arc::new(Sweeper::start(pipeline.queue().clone(), medium.clone())?);
        let disk = options.free_space.unwrap_or_else(|| Box::new(FileSystem(path.to_owned())));
        let storage = Storage(Arc::new(Inner {
            sweeper,
            pipeline,
            shards: Mutex::default(),
            marker: Mutex::new(marker),
            room: Room::new(disk, options.disk_reserve_bytes),
            medium,
            database,
            directory: path.to_owned(),
            head_cache_groups: options.head_cache_groups,
            observer: options.observer,
        }));
        storage.0.drop_leftovers()?;
        Ok(storage)
    }

    /// Whose data this is.
    pub fn marker(&self) -> Marker {
        self.0.marker.lock().clone()
    }

    /// Remembers, synced, which cluster the node belongs to. Once: the same again changes nothing, another cluster fails.
    pub fn set_cluster(&self, cluster_id: &str, data_shards: u32) -> Result<(), StorageError> {
        let mut marker = self.0.marker.lock();
        let asked = ClusterMark { cluster_id: cluster_id.to_owned(), data_shards };
        match &marker.cluster {
            Some(found) if *found == asked => Ok(()),
            Some(found) => Err(StorageError::ForeignCluster {
                found: found.cluster_id.clone(),
                found_shards: found.data_shards,
                asked: asked.cluster_id,
                asked_shards: data_shards,
            }),
            None => {
                let new = Marker { cluster: Some(asked), ..marker.clone() };
                new.write(&self.0.directory)?;
                *marker = new;
                Ok(())
            }
        }
    }

    /// Shards that this node holds data of.
    pub fn shards(&self) -> Vec<ShardId> {
        shards_and_generations(&self.0.database.family_names()).into_keys().collect()
    }

    /// One shard's parts. Begins an empty one if this node holds none. The log and the state machine are for one Raft at a
    /// time; readers are for everybody.
    pub fn shard(&self, shard: ShardId) -> Result<Shard, StorageError> {
        if shard >= limits::MAX_SHARDS {
            let message = format!("shard must be below {}, got {shard}", limits::MAX_SHARDS);
            return Err(StorageError::Invalid(message));
        }
        let state = self.0.state(shard)?;
        let keep: Arc<dyn Send + Sync> = self.0.clone();
        let log = LogStore {
            log: state.log.clone(),
            queue: state.queue.clone(),
            sweep: self.0.sweeper.clone(),
            _keep: keep.clone(),
        };
        let state_machine = StateMachine { state: state.clone(), keep: keep.clone() };
        Ok(Shard { log, state_machine, reader: ShardReader { state, _keep: keep } })
    }

    /// A shard as it is applied now, as the bytes of a snapshot.
    pub fn snapshot(&self, shard: ShardId) -> Result<SnapshotStream, StorageError> {
        Ok(SnapshotHandle::of_state(self.0.state(shard)?, self.0.clone()).chunks())
    }

    /// Fills a shard that nobody uses yet with a snapshot's bytes, as the state of `members`. Raft elects a leader of them in a term
    /// after those that the snapshot knows. Durable when it returns.
    pub async fn restore(
        &self,
        shard: ShardId,
        chunks: impl IntoIterator<Item = Result<Bytes, StorageError>>,
        members: Membership,
    ) -> Result<Option<LogId>, StorageError> {
        let mut receiver = self.receive_snapshot(shard)?;
        for chunk in chunks {
            receiver.write(chunk?)?;
        }
        let (meta, snapshot) = receiver.finish_as(Some(members))?;
        snapshot.install(&meta, &self.0.state(shard)?).await?;
        if let Some(last) = meta.last_log_id {
            let vote = Vote::new(last.committed_leader_id().term, self.marker().node_id);
            self.0.pipeline.queue().vote(&self.shard(shard)?.log.log, vote).await?;
        }
        Ok(meta.last_log_id)
    }

    /// Begins to receive a snapshot for a shard.
    pub fn receive_snapshot(&self, shard: ShardId) -> Result<SnapshotReceiver, StorageError> {
        SnapshotReceiver::new(self.0.state(shard)?, self.0.clone())
    }

    /// Writes may begin: nothing has failed, and there is room on the disk. Ask before proposing and before accepting entries
    /// from a leader; what has begun is always finished.
    pub fn writable(&self) -> Result<(), StorageError> {
        match self.failure() {
            Some(error) => Err(StorageError::Stopped(Box::new(error))),
            None => self.0.room.check(),
        }
    }

    /// The failure that stopped all writing, if there was one.
    pub fn failure(&self) -> Option<StorageError> {
        self.0.pipeline.queue().failure()
    }

    /// Lets the sweeper look whether a shard has let go of log entries that are purged already.
    pub fn sweep(&self, shard: ShardId) -> Result<(), StorageError> {
        if let (Some(purged), _) = self.0.state(shard)?.log.bounds() {
            self.0.sweeper.purged(shard, purged);
        }
        Ok(())
    }

    /// Indexes of the log rows that are kept for a shard, be they part of its log or referred to by its state. Reads them all: for tests
    /// and diagnosis.
    pub fn kept_rows(&self, shard: ShardId) -> Result<Vec<u64>, StorageError> {
        self.0.medium.kept(shard)
    }

    /// Completes when nobody uses the data any more, and another process (or this one) can open it.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        self.0.database.closed()
    }

    /// Waits until all that was purged is removed. For tests and for an orderly stop.
    pub fn wait_swept(&self) {
        self.0.sweeper.wait_idle();
    }
}

impl Inner {
    fn state(&self, shard: ShardId) -> Result<Arc<ShardState>, StorageError> {
        let mut shards = self.shards.lock();
        if let Some(state) = shards.get(&shard) {
            return Ok(state.clone());
        }
        let generation = self.generation(shard)?;
        // Later generations come with a snapshot, complete: the lack of one is damage.
        if generation == Generation::default() {
            self.database.create(&generation.state_family(shard))?;
            self.database.create(&generation.base_family(shard))?;
        }
        let queue = self.pipeline.queue();
        let state = Arc::new(ShardState::open(
            self.database.clone(),
            queue.open_log(shard, &self.medium)?,
            queue.clone(),
            self.observer.clone(),
            generation,
            self.head_cache_groups,
        )?);
        self.sweeper.register(shard, state.clone());
        if let Some(applied) = state.last_applied()
            && state.log.begins_behind_a_gap(applied)
        {
            // A snapshot took the place of what is missing, and the process ended before the purge that follows was noted.
            state.log.purge(applied);
            self.sweeper.purged(shard, applied);
        }
        metrics::begin(shard);
        shards.insert(shard, state.clone());
        Ok(state)
    }

    /// The generation of a shard's state that is in force.
    fn generation(&self, shard: ShardId) -> Result<Generation, StorageError> {
        Ok(Generation(self.medium.open_log(shard)?.generation))
    }

    /// Drops what snapshots left behind that were not installed, and generations that were replaced.
    fn drop_leftovers(&self) -> Result<(), StorageError> {
        for (shard, generations) in shards_and_generations(&self.database.family_names()) {
            let in_force = self.generation(shard)?;
            for other in generations.into_iter().filter(|generation| *generation != in_force) {
                self.database.drop_family(&other.state_family(shard))?;
                self.database.drop_family(&other.base_family(shard))?;
            }
        }
        Ok(())
    }
}

/// The node that the data in `path` belongs to; None for an empty directory.
///
/// # Errors
/// The marker can not be read.
pub fn stored_node_id(path: &Path) -> Result<Option<NodeId>, StorageError> {
    Ok(Marker::read(path)?.map(|marker| marker.node_id))
}

/// Reads the marker and checks whose data it is, or writes one into an empty directory.
fn claim(path: &Path, options: &StorageOptions) -> Result<Marker, StorageError> {
    match Marker::read(path)? {
        Some(marker) if marker.node_id == options.node_id => Ok(marker),
        Some(marker) => Err(StorageError::ForeignNode {
            path: path.display().to_string(),
            found: marker.node_id,
            configured: options.node_id,
        }),
        None if path.join("db").exists() || path.join("log").exists() => Err(StorageError::Corrupt {
            what: path.join("marker").display().to_string(),
            detail: "it is missing beside a database or a log".into(),
        }),
        None => {
            let marker = Marker { node_id: options.node_id, disk_id: options.new_disk_id, cluster: None };
            marker.write(path)?;
            Ok(marker)
        }
    }
}
