//! Streams on disk, in one SQLite file. What is answered is synced; a batch is one transaction.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use bytes::Bytes;
use group_log::{
    ClientId,
    dimls::{DgroupId, Setup},
};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use tokio::sync::watch;

use super::{
    check::Item,
    limits::{DGROUPS_MAX, ITEM_OVERHEAD_BYTES, PAGE_BYTES},
    recent::Recent,
    rows,
    stream::Stream,
};
use crate::metrics;

/// The format of the file, as its `user_version`. Another one is refused.
const FORMAT: u32 = 1;

/// The storage failed, or is at a bound.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite.
    #[error("the storage of DiMLS groups failed: {0}; check the disk under --data-dir")]
    Sqlite(#[from] rusqlite::Error),
    /// Something stored cannot be read.
    #[error("the storage of DiMLS groups is damaged: {0}; empty it, the other gateways have what was in it")]
    Damaged(&'static str),
    /// Written by another version.
    #[error(
        "the storage of DiMLS groups has format {got}, expected {FORMAT}; use the version that wrote it, or another --data-dir"
    )]
    Format {
        /// As found.
        got: u32,
    },
    /// No more items: what is kept is as large as it may be, and nothing of it can be dropped.
    #[error(
        "this gateway keeps {0} bytes of DiMLS groups, and nothing of it can be dropped; raise the bound, or use another gateway"
    )]
    NoRoom(u64),
    /// No more DGroups.
    #[error("this gateway keeps {DGROUPS_MAX} DiMLS groups, and takes no more")]
    Full,
}

/// How much is kept, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Of one stream.
    pub stream_bytes: u64,
    /// Of all together.
    pub total_bytes: u64,
}

/// What became of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It is on disk, now or since before. Everything up to `contiguous` is.
    Kept {
        /// Without a gap.
        contiguous: u64,
    },
    /// Another item has its number.
    Conflict,
    /// Too many are missing in front of it, or there is no room for it to wait for them.
    TooFar {
        /// The last one without a gap.
        contiguous: u64,
    },
    /// It was dropped at the bound, long ago.
    Dropped,
}

/// One stream's state, with its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Of which DGroup.
    pub dgroup: DgroupId,
    /// Whose.
    pub owner: ClientId,
    /// What is kept.
    pub stream: Stream,
}

/// What has changed since a mark.
#[derive(Debug, Default)]
pub struct Changes {
    /// Everything up to here is told.
    pub mark: u64,
    /// New DGroups.
    pub setups: Vec<Bytes>,
    /// Streams as they are now.
    pub streams: Vec<Named>,
}

/// All streams of a gateway.
pub struct MeshStore {
    db: Mutex<Connection>,
    storage_id: [u8; 16],
    bounds: Bounds,
    mark: watch::Sender<u64>,
    /// What clients have just submitted here.
    recent: Mutex<Recent>,
}

impl MeshStore {
    /// Opens the file `mesh.sqlite` in `dir`, or makes it. `fresh_id` names a new storage.
    pub fn open(dir: &Path, bounds: Bounds, fresh_id: [u8; 16]) -> Result<Arc<Self>, StoreError> {
        let db = Connection::open(dir.join("mesh.sqlite"))?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        begin(&db, fresh_id)?;
        let (storage_id, mark): ([u8; 16], u64) =
            db.query_row("SELECT id, mark FROM storage", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let bytes: u64 = db.query_row("SELECT bytes FROM storage", [], |row| row.get(0))?;
        metrics::mesh_bytes(bytes);
        let (db, mark, recent) = (Mutex::new(db), watch::Sender::new(mark), Mutex::default());
        Ok(Arc::new(MeshStore { db, storage_id, bounds, mark, recent }))
    }

    /// Names this storage.
    pub fn storage_id(&self) -> [u8; 16] {
        self.storage_id
    }

    /// Tells the mark of the newest change.
    pub fn marks(&self) -> watch::Receiver<u64> {
        self.mark.subscribe()
    }

    /// Keeps a DGroup.
    pub fn create(&self, setup: &Setup) -> Result<DgroupId, StoreError> {
        let id = setup.id();
        let work = |tx: &Transaction<'_>, mark: u64| {
            let known: bool =
                tx.query_row("SELECT EXISTS (SELECT 1 FROM dgroups WHERE id = ?1)", [id.0], |r| r.get(0))?;
            if known {
                return Ok(false);
            }
            let count: u64 = tx.query_row("SELECT count(*) FROM dgroups", [], |r| r.get(0))?;
            if count >= DGROUPS_MAX {
                return Err(StoreError::Full);
            }
            tx.execute(
                "INSERT INTO dgroups (id, setup, mark) VALUES (?1, ?2, ?3)",
                params![id.0, setup.encode(), mark],
            )?;
            for member in setup.members() {
                tx.execute(
                    "INSERT INTO members (client, dgroup) VALUES (?1, ?2)",
                    params![member.as_bytes(), id.0],
                )?;
            }
            Ok(true)
        };
        self.transaction(work, |_| {})?;
        Ok(id)
    }

    /// What a DGroup began with.
    pub fn setup(&self, id: &DgroupId) -> Result<Option<Setup>, StoreError> {
        let db = self.db.lock();
        let mut query = db.prepare_cached("SELECT setup FROM dgroups WHERE id = ?1")?;
        let bytes: Option<Vec<u8>> = query.query_row([id.0], |row| row.get(0)).optional()?;
        bytes.map(|bytes| Setup::decode(&bytes).map_err(|_| StoreError::Damaged("a setup"))).transpose()
    }

    /// The setups of a client's DGroups, `most` at most.
    pub fn setups_of(&self, client: &ClientId, most: usize) -> Result<Vec<Bytes>, StoreError> {
        let db = self.db.lock();
        let mut query = db.prepare_cached(
            "SELECT setup FROM members JOIN dgroups ON dgroups.id = members.dgroup WHERE client = ?1 LIMIT ?2",
        )?;
        let rows =
            query.query_map(params![client.as_bytes(), most as i64], |row| row.get::<_, Vec<u8>>(0))?;
        rows.map(|row| Ok(row?.into())).collect()
    }

    /// Stores items of known DGroups that another gateway has. The answers are in their order.
    pub fn insert(&self, items: &[(DgroupId, Item)]) -> Result<Vec<Stored>, StoreError> {
        self.insert_then(items, |_| {})
    }

    /// Stores an item that a client has submitted here. Other gateways get it with the news of it.
    pub fn submit(&self, dgroup: DgroupId, item: Item) -> Result<Stored, StoreError> {
        let items = [(dgroup, item)];
        let news = |mark| self.recent.lock().push(mark, &items[0]);
        let answer = self.insert_then(&items, news)?.pop();
        answer.ok_or(StoreError::Damaged("an item without an answer"))
    }

    fn insert_then(
        &self,
        items: &[(DgroupId, Item)],
        then: impl FnOnce(u64),
    ) -> Result<Vec<Stored>, StoreError> {
        let bounds = self.bounds;
        let (mut answers, mut dropped) = (Vec::with_capacity(items.len()), 0);
        let work = |tx: &Transaction<'_>, mark: u64| {
            let mut changed = false;
            for (dgroup, item) in items {
                let (stored, new) = rows::insert(tx, dgroup, item, mark, &bounds, &mut dropped)?;
                changed |= new;
                answers.push(stored);
            }
            if changed {
                rows::keep_total(tx, mark, &bounds, &mut dropped)?;
            }
            Ok(changed)
        };
        self.transaction(work, then)?;
        metrics::mesh_dropped(dropped);
        Ok(answers)
    }

    /// What clients submitted here after one mark, up to another one; only what is recent.
    pub fn recent(&self, after: u64, to: u64) -> Vec<(DgroupId, Item)> {
        self.recent.lock().between(after, to)
    }

    /// The items in front of `first` are gone everywhere: the stream goes on from there.
    pub fn skip_to(&self, dgroup: &DgroupId, owner: &ClientId, first: u64) -> Result<(), StoreError> {
        let work = |tx: &Transaction<'_>, mark: u64| {
            let (stream, bytes) = rows::load(tx, dgroup, owner)?;
            if first <= stream.last + 1 {
                return Ok(false);
            }
            let key = params![dgroup.0, owner.as_bytes(), first];
            let gone: u64 = tx.query_row(
                "SELECT coalesce(sum(length(message) + length(welcome) + ?4), 0) FROM items
                 WHERE dgroup = ?1 AND owner = ?2 AND seq < ?3",
                params![dgroup.0, owner.as_bytes(), first, ITEM_OVERHEAD_BYTES],
                |row| row.get(0),
            )?;
            tx.execute("DELETE FROM items WHERE dgroup = ?1 AND owner = ?2 AND seq < ?3", key)?;
            let stream = rows::advance(tx, dgroup, owner, Stream { first, last: first - 1 })?;
            rows::save(tx, dgroup, owner, stream, bytes.saturating_sub(gone), mark)?;
            Ok(true)
        };
        self.transaction(work, |_| {})
    }

    /// Every stream of a DGroup that has changed after a mark; after 0: that has begun.
    pub fn streams(&self, dgroup: &DgroupId, after: u64) -> Result<BTreeMap<ClientId, Stream>, StoreError> {
        let db = self.db.lock();
        // Whoever follows a DGroup asks after every change, so what has changed is little.
        let mut query = db.prepare_cached(match after {
            0 => "SELECT owner, first, last FROM streams WHERE dgroup = ?1 AND mark > ?2",
            _ => "SELECT owner, first, last FROM streams INDEXED BY streams_by_mark WHERE mark > ?2 AND dgroup = ?1",
        })?;
        let rows = query.query_map(params![dgroup.0, after], |row| {
            Ok((row.get::<_, Vec<u8>>(0)?, Stream { first: row.get(1)?, last: row.get(2)? }))
        })?;
        rows.map(|row| {
            let (owner, stream) = row?;
            Ok((ClientId::new(owner).map_err(|_| StoreError::Damaged("an owner"))?, stream))
        })
        .collect()
    }

    /// One stream.
    pub fn stream(&self, dgroup: &DgroupId, owner: &ClientId) -> Result<Stream, StoreError> {
        Ok(rows::load(&self.db.lock(), dgroup, owner)?.0)
    }

    /// Items from .. to of a stream, both included: as many as fit into a page, at least one if there is any.
    pub fn read(
        &self,
        dgroup: &DgroupId,
        owner: &ClientId,
        from: u64,
        to: u64,
        most: usize,
    ) -> Result<Vec<Item>, StoreError> {
        let db = self.db.lock();
        let mut query = db.prepare_cached(
            "SELECT seq, message, welcome FROM items
             WHERE dgroup = ?1 AND owner = ?2 AND seq BETWEEN ?3 AND ?4 ORDER BY seq LIMIT ?5",
        )?;
        let mut rows = query.query(params![dgroup.0, owner.as_bytes(), from, to, most as i64])?;
        let (mut items, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let item = Item {
                owner: owner.clone(),
                seq: row.get(0)?,
                message: row.get::<_, Vec<u8>>(1)?.into(),
                welcome: row.get::<_, Vec<u8>>(2)?.into(),
            };
            bytes += item.bytes();
            if bytes > PAGE_BYTES && !items.is_empty() {
                break;
            }
            items.push(item);
        }
        Ok(items)
    }

    /// What has changed after a mark, `most` things at most, the oldest first.
    pub fn changes(&self, after: u64, most: usize) -> Result<Changes, StoreError> {
        let db = self.db.lock();
        let mut marks = db.prepare_cached(
            "SELECT mark FROM (SELECT mark FROM dgroups WHERE mark > ?1 UNION ALL SELECT mark FROM streams WHERE mark > ?1)
             ORDER BY mark LIMIT 1 OFFSET ?2",
        )?;
        // Things of one mark are told together.
        let end: Option<u64> = marks.query_row(params![after, most as i64], |row| row.get(0)).optional()?;
        let newest: u64 = db.query_row("SELECT mark FROM storage", [], |row| row.get(0))?;
        let end = end.unwrap_or(newest);
        let mut changes = Changes { mark: end, ..Changes::default() };
        let mut query = db.prepare_cached("SELECT setup FROM dgroups WHERE mark > ?1 AND mark <= ?2")?;
        for setup in query.query_map([after, end], |row| row.get::<_, Vec<u8>>(0))? {
            changes.setups.push(setup?.into());
        }
        let mut query = db.prepare_cached(
            "SELECT dgroup, owner, first, last FROM streams WHERE mark > ?1 AND mark <= ?2",
        )?;
        let mut rows = query.query([after, end])?;
        while let Some(row) = rows.next()? {
            let owner =
                ClientId::new(row.get::<_, Vec<u8>>(1)?).map_err(|_| StoreError::Damaged("an owner"))?;
            let stream = Stream { first: row.get(2)?, last: row.get(3)? };
            changes.streams.push(Named { dgroup: DgroupId(row.get(0)?), owner, stream });
        }
        Ok(changes)
    }

    /// What is kept, in bytes of items.
    pub fn bytes(&self) -> Result<u64, StoreError> {
        Ok(self.db.lock().query_row("SELECT bytes FROM storage", [], |row| row.get(0))?)
    }

    /// Runs `work` with the mark of its changes. It says whether there are any; if so, `then` is called when they are on disk and before
    /// anybody is told.
    fn transaction(
        &self,
        work: impl FnOnce(&Transaction<'_>, u64) -> Result<bool, StoreError>,
        then: impl FnOnce(u64),
    ) -> Result<(), StoreError> {
        let mut db = self.db.lock();
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mark: u64 = tx.query_row("SELECT mark + 1 FROM storage", [], |row| row.get(0))?;
        if !work(&tx, mark)? {
            return Ok(());
        }
        tx.execute("UPDATE storage SET mark = ?1", [mark])?;
        let bytes: u64 = tx.query_row("SELECT bytes FROM storage", [], |row| row.get(0))?;
        tx.commit()?;
        metrics::mesh_bytes(bytes);
        then(mark);
        self.mark.send_replace(mark);
        Ok(())
    }
}

/// Makes the tables of a new file, or looks whether those of an old one are understood.
fn begin(db: &Connection, fresh_id: [u8; 16]) -> Result<(), StoreError> {
    match db.pragma_query_value(None, "user_version", |row| row.get(0))? {
        FORMAT => Ok(()),
        0 => {
            let tx = db.unchecked_transaction()?;
            tx.execute_batch(rows::TABLES)?;
            tx.execute("INSERT INTO storage (one, id, mark, bytes) VALUES (1, ?1, 0, 0)", [fresh_id])?;
            tx.pragma_update(None, "user_version", FORMAT)?;
            Ok(tx.commit()?)
        }
        got => Err(StoreError::Format { got }),
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
