//! The one RocksDB of a node: its column families and its options. It holds the states; the log lies beside it.
//!
//! | column family | holds |
//! |---|---|
//! | `state.<shard>.<generation>` | the shard's state machine, and up to where it is applied |
//! | `base.<shard>.<generation>` | payload rows that came with the snapshot that began the generation |
//!
//! Nothing is written to RocksDB's write-ahead log: after a crash the state is what was last flushed, and the entries since are applied
//! again. A flush is atomic for one column family, so the state and its position always fit together. It never gets ahead of the synced
//! log, because an entry is applied only once it is stored on this node. Which generation is in force, the log says.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    thread,
    time::Instant,
};

use parking_lot::Mutex;
use rocksdb::{
    BlockBasedOptions, BoundColumnFamily, Cache, ColumnFamilyDescriptor, DBCompressionType, DBWithThreadMode,
    ErrorKind, LogLevel, MultiThreaded, Options, WriteBatch, WriteOptions,
};
use tokio::sync::watch;

use super::{
    error::StorageError,
    limits::{LOCK_RETRY, LOCK_WAIT},
};
use crate::raft::types::ShardId;

/// RocksDB, as it is used here.
pub(crate) type Rocks = DBWithThreadMode<MultiThreaded>;
/// A column family. Reads through it go on when it is dropped meanwhile.
pub(crate) type Family<'a> = Arc<BoundColumnFamily<'a>>;

/// Small, because its rows come in no order: finding the place of a row in a large one misses the processor's caches at every step.
const STATE_MEMTABLE_BYTES: usize = 2 * 1024 * 1024;
/// So many of them make one file ...
const STATE_MEMTABLES_FLUSHED: i32 = 4;
/// ... and so many wait for that at most, before writes do.
const STATE_MEMTABLES_MAX: i32 = 2 * STATE_MEMTABLES_FLUSHED;
/// So many files are merged into the level below at once, which reads and writes most of that level.
const STATE_FILES_MERGED: i32 = 16;
const MAX_OPEN_FILES: i32 = 2048;

/// A file is compacted when so many of so many rows in a row are deletions, or this part of all its rows.
const DELETIONS_TRIGGER: usize = 4096;
const DELETIONS_WINDOW: usize = 16 * 1024;
const DELETIONS_RATIO: f64 = 0.3;

/// RocksDB insists on it. Nothing is in it.
const DEFAULT: &str = "default";

/// The database of a node.
pub(crate) struct Database {
    rocks: Rocks,
    cache: Cache,
    families: Mutex<BTreeSet<String>>,
    /// The last field: it goes when RocksDB is closed.
    closed: watch::Sender<()>,
}

impl Database {
    /// Opens what is there, or creates an empty one unless it is `known` that there was one. Keeps `cache_bytes` of blocks in memory.
    pub(crate) fn open(directory: &Path, known: bool, cache_bytes: usize) -> Result<Self, StorageError> {
        let path = directory.join("db");
        let cache = Cache::new_lru_cache(cache_bytes);
        let mut options = database_options();
        let mut families: Vec<String> = Vec::new();
        options.create_if_missing(!known);
        // An attempt to create it may have been cut short.
        if known || path.join("CURRENT").exists() {
            families = Rocks::list_cf(&options, &path).map_err(|error| opening(&path, error))?;
        }
        if !families.iter().any(|family| family == DEFAULT) {
            families.push(DEFAULT.to_owned());
        }
        let rocks = unlocked(|| {
            let descriptors =
                families.iter().map(|name| ColumnFamilyDescriptor::new(name, family_options(name, &cache)));
            Rocks::open_cf_descriptors(&options, &path, descriptors)
        });
        let rocks = rocks.map_err(|error| opening(&path, error))?;
        let families = Mutex::new(families.into_iter().collect());
        Ok(Database { rocks, cache, families, closed: watch::Sender::new(()) })
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

/// Key of a payload row.
pub(crate) fn payload_key(index: u64) -> [u8; 8] {
    index.to_be_bytes()
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
    if name != DEFAULT {
        options.set_write_buffer_size(STATE_MEMTABLE_BYTES);
        options.set_min_write_buffer_number_to_merge(STATE_MEMTABLES_FLUSHED);
        options.set_max_write_buffer_number(STATE_MEMTABLES_MAX);
        options.set_level_zero_file_num_compaction_trigger(STATE_FILES_MERGED);
        options.set_level_zero_slowdown_writes_trigger(3 * STATE_FILES_MERGED);
        options.set_level_zero_stop_writes_trigger(4 * STATE_FILES_MERGED);
        // Most lookups by message id find nothing.
        table.set_bloom_filter(10.0, false);
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
