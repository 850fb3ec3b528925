//! The one RocksDB of a node: its column families, its options, and what must hold when it is opened again.
//!
//! | column family | holds | write-ahead log |
//! |---|---|---|
//! | `meta` | votes, marks, pointers; the running number of the newest write | yes |
//! | `log.<shard>` | the shard's Raft log. Rows of purged entries stay while the state refers to them | yes |
//! | `state.<shard>.<generation>` | the shard's state machine, and up to where it is applied | no |
//! | `base.<shard>.<generation>` | payload rows that came with the snapshot that began the generation | no |
//!
//! The state is not in the write-ahead log: after a crash it is what was last flushed, and the entries since are applied again.
//! A flush is atomic for one column family, so the state and its position always fit together. It never gets ahead of the
//! synced log, because an entry is applied only once it is stored on this node.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    thread,
    time::Instant,
};

use parking_lot::Mutex;
use rocksdb::{
    BlockBasedOptions, BoundColumnFamily, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode,
    DBWithThreadMode, ErrorKind, LogLevel, MultiThreaded, Options, WriteBatch, WriteOptions,
};
use tokio::sync::watch;

use super::{
    error::StorageError,
    limits::{LOCK_RETRY, LOCK_WAIT},
    synced::SyncedMark,
};
use crate::raft::types::ShardId;

/// RocksDB, as it is used here.
pub(crate) type Rocks = DBWithThreadMode<MultiThreaded>;
/// A column family. Reads through it go on when it is dropped meanwhile.
pub(crate) type Family<'a> = Arc<BoundColumnFamily<'a>>;

const META: &str = "meta";
const WRITE_NUMBER: &[u8] = b"\xffwrites";

const BLOCK_CACHE_BYTES: usize = 64 * 1024 * 1024;
const LOG_MEMTABLE_BYTES: usize = 64 * 1024 * 1024;
/// Small, because its rows come in no order: finding the place of a row in a large one misses the processor's caches at every step.
const STATE_MEMTABLE_BYTES: usize = 8 * 1024 * 1024;
/// So many of them are merged into the level below at once, which reads and writes most of that level.
const STATE_MEMTABLES_MERGED: i32 = 16;
const META_MEMTABLE_BYTES: usize = 4 * 1024 * 1024;
const MAX_WAL_BYTES: u64 = 512 * 1024 * 1024;
const MAX_OPEN_FILES: i32 = 2048;

/// A file is compacted when so many of so many rows in a row are deletions, or this part of all its rows.
const DELETIONS_TRIGGER: usize = 4096;
const DELETIONS_WINDOW: usize = 16 * 1024;
const DELETIONS_RATIO: f64 = 0.3;

/// The database of a node.
pub(crate) struct Database {
    rocks: Rocks,
    cache: Cache,
    families: Mutex<BTreeSet<String>>,
    /// Number of the newest write that went through the write-ahead log.
    writes: Mutex<u64>,
    synced: SyncedMark,
    /// The last field: it goes when RocksDB is closed.
    closed: watch::Sender<()>,
}

impl Database {
    /// Opens what is there, or creates an empty one if `directory` never held one.
    pub(crate) fn open(directory: &Path) -> Result<Self, StorageError> {
        let path = directory.join("db");
        let known = SyncedMark::exists(directory);
        let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
        let mut options = database_options();
        let mut families: Vec<String> = Vec::new();
        if known {
            options.create_if_missing(false);
            families = Rocks::list_cf(&options, &path).map_err(|error| opening(&path, error))?;
        } else {
            options.create_if_missing(true);
            // An attempt to create it may have been cut short.
            if path.join("CURRENT").exists() {
                families = Rocks::list_cf(&options, &path).map_err(|error| opening(&path, error))?;
            }
        }
        for name in ["default", META] {
            if !families.iter().any(|family| family == name) {
                families.push(name.to_owned());
            }
        }
        let rocks = unlocked(|| {
            let descriptors =
                families.iter().map(|name| ColumnFamilyDescriptor::new(name, family_options(name, &cache)));
            Rocks::open_cf_descriptors(&options, &path, descriptors)
        });
        let rocks = rocks.map_err(|error| opening(&path, error))?;
        if !known {
            SyncedMark::create(directory)?;
        }
        let (synced, number) = SyncedMark::open(directory)?;
        let families = Mutex::new(families.into_iter().collect());
        let database = Database {
            rocks,
            cache,
            families,
            writes: Mutex::new(0),
            synced,
            closed: watch::Sender::new(()),
        };
        let found = database.stored_write_number()?;
        if found < number {
            return Err(StorageError::Corrupt {
                what: format!("the write-ahead log in {}", path.display()),
                detail: format!(
                    "writes up to {number} were synced, but only those up to {found} can be read"
                ),
            });
        }
        *database.writes.lock() = found;
        Ok(database)
    }

    /// Completes when the database is closed and its lock is free.
    pub(crate) fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut open = self.closed.subscribe();
        async move { while open.changed().await.is_ok() {} }
    }

    /// RocksDB itself, for reads.
    pub(crate) fn rocks(&self) -> &Rocks {
        &self.rocks
    }

    /// Names of all column families.
    pub(crate) fn family_names(&self) -> Vec<String> {
        self.families.lock().iter().cloned().collect()
    }

    /// The column family with this name, if there is one.
    pub(crate) fn family(&self, name: &str) -> Option<Family<'_>> {
        self.rocks.cf_handle(name)
    }

    /// The column family with this name. Its absence is damage.
    pub(crate) fn need(&self, name: &str) -> Result<Family<'_>, StorageError> {
        self.family(name).ok_or_else(|| StorageError::Corrupt {
            what: format!("column family {name}"),
            detail: "it is missing".into(),
        })
    }

    /// The column family of votes, marks and pointers.
    pub(crate) fn meta(&self) -> Result<Family<'_>, StorageError> {
        self.need(META)
    }

    /// Creates a column family, unless it is there.
    pub(crate) fn create(&self, name: &str) -> Result<(), StorageError> {
        if self.family(name).is_some() {
            return Ok(());
        }
        self.rocks
            .create_cf(name, &family_options(name, &self.cache))
            .map_err(|error| StorageError::database(&format!("creating column family {name}"), error))?;
        self.families.lock().insert(name.to_owned());
        Ok(())
    }

    /// Drops a column family, if it is there.
    pub(crate) fn drop_family(&self, name: &str) -> Result<(), StorageError> {
        if self.family(name).is_none() {
            return Ok(());
        }
        self.rocks
            .drop_cf(name)
            .map_err(|error| StorageError::database(&format!("dropping column family {name}"), error))?;
        self.families.lock().remove(name);
        Ok(())
    }

    /// Writes to the write-ahead log. Durable after the next [`Database::sync`].
    pub(crate) fn write_logged(&self, mut batch: WriteBatch) -> Result<(), StorageError> {
        let mut writes = self.writes.lock();
        let number = *writes + 1;
        batch.put_cf(&self.meta()?, WRITE_NUMBER, number.to_be_bytes());
        self.rocks.write(batch).map_err(|error| StorageError::database("writing the log", error))?;
        *writes = number;
        Ok(())
    }

    /// Makes durable everything that was written to the write-ahead log.
    pub(crate) fn sync(&self) -> Result<(), StorageError> {
        let number = *self.writes.lock();
        self.rocks.flush_wal(true).map_err(|error| StorageError::database("syncing the log", error))?;
        self.synced.record(number)
    }

    /// Syncs the evidence of what was synced.
    pub(crate) fn settle(&self) -> Result<(), StorageError> {
        self.synced.settle()
    }

    /// Writes without the write-ahead log. Durable after the next flush of the column families.
    pub(crate) fn write_unlogged(&self, batch: WriteBatch) -> Result<(), StorageError> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.rocks
            .write_opt(batch, &options)
            .map_err(|error| StorageError::database("writing the state", error))
    }

    /// Makes durable everything written to a column family.
    pub(crate) fn flush(&self, name: &str) -> Result<(), StorageError> {
        self.rocks
            .flush_cf(&self.need(name)?)
            .map_err(|error| StorageError::database(&format!("flushing column family {name}"), error))
    }

    /// The same for what was deleted from a column family with a write-ahead log: deletions free room on the disk once they are in a
    /// file themselves, and the write-ahead log once nothing needs it.
    pub(crate) fn flush_logged(&self, name: &str) -> Result<(), StorageError> {
        self.flush(name)?;
        self.flush(META)
    }

    fn stored_write_number(&self) -> Result<u64, StorageError> {
        let what = "the number of the newest write";
        let row = self.rocks.get_cf(&self.meta()?, WRITE_NUMBER);
        match row.map_err(|error| StorageError::database(what, error))? {
            None => Ok(0),
            Some(bytes) => match bytes.try_into() {
                Ok(bytes) => Ok(u64::from_be_bytes(bytes)),
                Err(bytes) => {
                    Err(StorageError::Corrupt { what: what.into(), detail: format!("{} bytes", bytes.len()) })
                }
            },
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Err(error) = self.settle() {
            tracing::warn!(%error, "the evidence of synced writes is not synced");
        }
    }
}

/// The generation of a shard's state machine that is in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Generation(pub(crate) u64);

impl Generation {
    pub(crate) fn state_family(self, shard: ShardId) -> String {
        format!("state.{shard}.{}", self.0)
    }

    pub(crate) fn base_family(self, shard: ShardId) -> String {
        format!("base.{shard}.{}", self.0)
    }
}

/// Name of the column family of a shard's log.
pub(crate) fn log_family(shard: ShardId) -> String {
    format!("log.{shard}")
}

/// Which shards the column families belong to, and which generations there are of each.
pub(crate) fn shards_and_generations(names: &[String]) -> BTreeMap<ShardId, Vec<Generation>> {
    let mut shards: BTreeMap<ShardId, Vec<Generation>> = BTreeMap::new();
    for name in names {
        let mut parts = name.split('.');
        let kind = parts.next();
        let Some(shard) = parts.next().and_then(|shard| shard.parse().ok()) else { continue };
        let generations = shards.entry(shard).or_default();
        if let (Some("state" | "base"), Some(Ok(generation))) = (kind, parts.next().map(str::parse)) {
            generations.push(Generation(generation));
        }
    }
    shards
}

fn database_options() -> Options {
    let mut options = Options::default();
    options.create_missing_column_families(true);
    options.set_paranoid_checks(true);
    // Stops at the first bad record, which keeps a clean prefix whatever a crash left behind. Whether that prefix holds all
    // that was synced is checked against [`SyncedMark`].
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    // A synced write would hold the write queue during the sync: written and synced apart, other writes go on meanwhile.
    options.set_manual_wal_flush(true);
    options.set_max_total_wal_size(MAX_WAL_BYTES);
    // Recycled logs and writes without a log exclude each other.
    options.set_recycle_log_file_num(0);
    options.set_max_background_jobs(4);
    options.set_bytes_per_sync(1024 * 1024);
    options.set_max_open_files(MAX_OPEN_FILES);
    options.set_keep_log_file_num(4);
    options.set_max_log_file_size(4 * 1024 * 1024);
    options.set_log_level(LogLevel::Warn);
    options
}

fn family_options(name: &str, cache: &Cache) -> Options {
    let mut options = Options::default();
    // MLS messages are encrypted: there is nothing to compress.
    options.set_compression_type(DBCompressionType::None);
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(16 * 1024);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    match name.split('.').next() {
        // Written once, in order, and rarely removed: files move down the levels without being rewritten.
        Some("log") => {
            options.set_write_buffer_size(LOG_MEMTABLE_BYTES);
            options.set_max_write_buffer_number(4);
            options.set_target_file_size_base(LOG_MEMTABLE_BYTES as u64);
        }
        Some("state" | "base") => {
            options.set_write_buffer_size(STATE_MEMTABLE_BYTES);
            options.set_max_write_buffer_number(8);
            options.set_level_zero_file_num_compaction_trigger(STATE_MEMTABLES_MERGED);
            options.set_level_zero_slowdown_writes_trigger(3 * STATE_MEMTABLES_MERGED);
            options.set_level_zero_stop_writes_trigger(4 * STATE_MEMTABLES_MERGED);
            // Most lookups by message id find nothing.
            table.set_bloom_filter(10.0, false);
        }
        _ => options.set_write_buffer_size(META_MEMTABLE_BYTES),
    }
    options.set_block_based_table_factory(&table);
    // Files in which much was deleted are compacted soon: what retention gives up leaves the disk.
    options.add_compact_on_deletion_collector_factory(DELETIONS_WINDOW, DELETIONS_TRIGGER, DELETIONS_RATIO);
    options
}

/// A node that is started again may meet the last moments of its predecessor, which still holds the lock.
fn unlocked<T>(open: impl Fn() -> Result<T, rocksdb::Error>) -> Result<T, rocksdb::Error> {
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match open() {
            Err(error) if is_locked(&error) && Instant::now() < deadline => thread::sleep(LOCK_RETRY),
            opened => return opened,
        }
    }
}

fn is_locked(error: &rocksdb::Error) -> bool {
    error.kind() == ErrorKind::IOError && error.as_ref().contains("/LOCK")
}

fn opening(path: &Path, error: rocksdb::Error) -> StorageError {
    let what = format!("opening the database {}", path.display());
    let text = error.to_string();
    if is_locked(&error) {
        return StorageError::Invalid(format!(
            "{what} failed: another process uses it. Stop that process ({text})"
        ));
    }
    if text.contains("No such file") || text.contains("does not exist") {
        return StorageError::Corrupt { what: path.display().to_string(), detail: text };
    }
    StorageError::database(&what, error)
}
