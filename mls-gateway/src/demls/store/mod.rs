//! What a gateway keeps on disk: who it is, and of every DeMLS group that it serves its copy of the log, its branches and its promise.
//!
//! One RocksDB. Rows are written as they come and become durable with the next [`Store::sync`], which covers every write before it;
//! nothing is answered for before that.

mod error;
mod keys;
mod rows;
mod view;

use std::path::Path;

use group_log::{GroupId, fork::GatewayId};
use parking_lot::Mutex;
use rocksdb::{DB, DBRecoveryMode, Direction, IteratorMode, Options, WriteBatch};
use service_kit::rng::Randomness;

pub use error::StoreError;
pub use rows::{Promise, Seat};
pub use view::{GroupRows, StoredEntry};

/// The format of what is stored. Another one is refused. 2: registrations have numbers.
const FORMAT: u32 = 2;
const MEMTABLE_BYTES: usize = 16 * 1024 * 1024;
const MAX_WAL_BYTES: u64 = 64 * 1024 * 1024;
const MAX_OPEN_FILES: i32 = 256;

/// A key and its value.
type Row = (Box<[u8]>, Box<[u8]>);

/// The storage of one gateway.
pub struct Store {
    db: DB,
    id: GatewayId,
    cluster: Mutex<Option<String>>,
}

impl Store {
    /// Opens the storage in `directory`, or makes it there: then the gateway gets an id of its own. Blocks.
    pub fn open(directory: &Path, rng: &Randomness) -> Result<Self, StoreError> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_write_buffer_size(MEMTABLE_BYTES);
        options.set_max_total_wal_size(MAX_WAL_BYTES);
        options.set_max_open_files(MAX_OPEN_FILES);
        options.set_keep_log_file_num(2);
        // The tail may be cut off by a crash, as far as it was not synced. Damage anywhere else is not passed over.
        options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        std::fs::create_dir_all(directory).map_err(|error| StoreError::Io {
            what: directory.display().to_string(),
            detail: error.to_string(),
        })?;
        let db = DB::open(&options, directory)?;
        let (id, cluster) = match db.get(keys::MARKER)? {
            Some(marker) => rows::decode_marker(&marker)?,
            None if db.iterator(IteratorMode::Start).next().is_some() => return Err(StoreError::NoMarker),
            None => {
                let id = GatewayId(rng.bytes());
                db.put(keys::MARKER, rows::encode_marker(id, None))?;
                db.flush_wal(true)?;
                (id, None)
            }
        };
        Ok(Self { db, id, cluster: Mutex::new(cluster) })
    }

    /// Who this gateway is. A wiped disk is another gateway.
    pub fn gateway_id(&self) -> GatewayId {
        self.id
    }

    /// The cluster that the data belongs to, once it is known.
    pub fn cluster(&self) -> Option<String> {
        self.cluster.lock().clone()
    }

    /// The data belongs to this cluster from now on, or it did before. Blocks.
    pub fn bind(&self, cluster_id: &str) -> Result<(), StoreError> {
        let mut cluster = self.cluster.lock();
        match cluster.as_deref() {
            Some(own) if own == cluster_id => return Ok(()),
            Some(own) => {
                return Err(StoreError::ForeignCluster {
                    expected: own.to_owned(),
                    got: cluster_id.to_owned(),
                });
            }
            None => {}
        }
        self.db.put(keys::MARKER, rows::encode_marker(self.id, Some(cluster_id)))?;
        self.db.flush_wal(true)?;
        *cluster = Some(cluster_id.to_owned());
        Ok(())
    }

    /// Makes every write so far durable. Blocks for as long as the disk takes.
    pub fn sync(&self) -> Result<(), StoreError> {
        Ok(self.db.flush_wal(true)?)
    }

    /// Every group that something is stored of.
    pub fn groups(&self) -> Result<Vec<GroupId>, StoreError> {
        let mut groups = Vec::new();
        let start = [keys::GROUP];
        for row in self.db.iterator(IteratorMode::From(&start, Direction::Forward)) {
            let (key, _) = row?;
            if key.first() != Some(&keys::GROUP) {
                break;
            }
            groups.push(keys::group_of(&key)?);
        }
        Ok(groups)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.db.get(key)?)
    }

    fn write(&self, batch: WriteBatch) -> Result<(), StoreError> {
        Ok(self.db.write(batch)?)
    }

    /// Rows whose key begins with `prefix`, from `from` on.
    fn scan<'a>(
        &'a self,
        prefix: &'a [u8],
        from: &[u8],
    ) -> impl Iterator<Item = Result<Row, StoreError>> + 'a {
        self.db
            .iterator(IteratorMode::From(from, Direction::Forward))
            .map(|row| row.map_err(StoreError::from))
            .take_while(move |row| row.as_ref().map_or(true, |(key, _)| key.starts_with(prefix)))
    }
}

#[cfg(test)]
mod tests;
