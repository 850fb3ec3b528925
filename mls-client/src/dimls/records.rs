//! The seam to the storage: key-values in numbered parts, written in atomic batches.

use std::collections::BTreeMap;

use group_log::dimls::DgroupId;
use rusqlite::params;
use zeroize::Zeroizing;

use crate::store::{Store, StoreError};

/// A part of what a session stores.
pub type Part = u32;

/// The session's own records.
pub const STATE: Part = 0;
/// What no gateway has confirmed yet, by number.
pub const OUTBOX: Part = 1;
/// PSKs, by owner and epoch.
pub const PSKS: Part = 2;
/// Received messages, by number.
pub const MESSAGES: Part = 3;
/// The private parts of KeyPackages.
pub const KEY_PACKAGES: Part = 4;
/// OpenMLS' values of the Send Group of member 0; those of the others follow.
pub const SEND_GROUPS: Part = 16;

/// A key and its value.
pub type KeyValue = (Vec<u8>, Zeroizing<Vec<u8>>);

/// The storage failed.
#[derive(Debug, thiserror::Error)]
#[error("the storage of the DiMLS session failed: {0}")]
pub struct RecordsError(Box<dyn std::error::Error + Send + Sync>);

impl RecordsError {
    /// What the storage below says.
    pub fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        RecordsError(error.into())
    }
}

/// One change of a batch.
#[derive(Debug)]
pub struct Change {
    /// Where.
    pub part: Part,
    /// Of which key.
    pub key: Vec<u8>,
    /// The value from now on; nothing deletes the key.
    pub value: Option<Zeroizing<Vec<u8>>>,
}

/// Where a session keeps what it must not forget.
pub trait Records {
    /// The key-values of a part in the order of their keys: those after `after`, `most` at most.
    fn read(
        &self,
        dgroup: &DgroupId,
        part: Part,
        after: Option<&[u8]>,
        most: usize,
    ) -> Result<Vec<KeyValue>, RecordsError>;

    /// Makes all changes durable, or none.
    fn apply(&mut self, dgroup: &DgroupId, changes: &[Change]) -> Result<(), RecordsError>;

    /// The DGroups of which there is anything.
    fn dgroups(&self) -> Result<Vec<DgroupId>, RecordsError>;
}

/// Records that live as long as the process, for tests and simulations. A clone is a snapshot.
#[derive(Clone, Debug, Default)]
pub struct MemoryRecords(BTreeMap<(DgroupId, Part, Vec<u8>), Zeroizing<Vec<u8>>>);

impl MemoryRecords {
    /// What is stored, in bytes, without keys.
    pub fn bytes(&self) -> usize {
        self.0.values().map(|value| value.len()).sum()
    }
}

impl Records for MemoryRecords {
    fn read(
        &self,
        dgroup: &DgroupId,
        part: Part,
        after: Option<&[u8]>,
        most: usize,
    ) -> Result<Vec<KeyValue>, RecordsError> {
        let from = (*dgroup, part, after.unwrap_or_default().to_vec());
        let wanted = self
            .0
            .range(from..)
            .take_while(|((id, p, _), _)| id == dgroup && *p == part)
            .filter(|((_, _, key), _)| after.is_none_or(|after| key.as_slice() > after));
        Ok(wanted.take(most).map(|((_, _, key), value)| (key.clone(), value.clone())).collect())
    }

    fn apply(&mut self, dgroup: &DgroupId, changes: &[Change]) -> Result<(), RecordsError> {
        for Change { part, key, value } in changes {
            let key = (*dgroup, *part, key.clone());
            match value {
                Some(value) => self.0.insert(key, value.clone()),
                None => self.0.remove(&key),
            };
        }
        Ok(())
    }

    fn dgroups(&self) -> Result<Vec<DgroupId>, RecordsError> {
        let mut ids: Vec<DgroupId> = self.0.keys().map(|(id, _, _)| *id).collect();
        ids.dedup();
        Ok(ids)
    }
}

/// Records in a client's state file, in a table of their own that is made with the first session.
impl Records for Store {
    fn read(
        &self,
        dgroup: &DgroupId,
        part: Part,
        after: Option<&[u8]>,
        most: usize,
    ) -> Result<Vec<KeyValue>, RecordsError> {
        if !has_table(self).map_err(RecordsError::new)? {
            return Ok(Vec::new());
        }
        let read = || -> Result<Vec<KeyValue>, rusqlite::Error> {
            let mut query = self.db().prepare_cached(
                "SELECT key, value FROM dimls_records WHERE dgroup = ?1 AND part = ?2 AND key > ?3 ORDER BY key LIMIT ?4",
            )?;
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            let rows = query.query_map(params![dgroup.0, part, after.unwrap_or_default(), most], |row| {
                Ok((row.get(0)?, Zeroizing::new(row.get(1)?)))
            })?;
            rows.collect()
        };
        read().map_err(RecordsError::new)
    }

    fn apply(&mut self, dgroup: &DgroupId, changes: &[Change]) -> Result<(), RecordsError> {
        let write = |tx: &rusqlite::Transaction<'_>| -> Result<(), StoreError> {
            tx.execute_batch(
                "CREATE TABLE IF NOT EXISTS dimls_records (
                     dgroup BLOB NOT NULL,
                     part INTEGER NOT NULL,
                     key BLOB NOT NULL,
                     value BLOB NOT NULL,
                     PRIMARY KEY (dgroup, part, key)
                 ) WITHOUT ROWID",
            )?;
            let mut put = tx.prepare_cached(
                "INSERT INTO dimls_records (dgroup, part, key, value) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (dgroup, part, key) DO UPDATE SET value = excluded.value",
            )?;
            let mut delete =
                tx.prepare_cached("DELETE FROM dimls_records WHERE dgroup = ?1 AND part = ?2 AND key = ?3")?;
            for Change { part, key, value } in changes {
                match value {
                    Some(value) => put.execute(params![dgroup.0, part, key, value.as_slice()])?,
                    None => delete.execute(params![dgroup.0, part, key])?,
                };
            }
            Ok(())
        };
        self.transaction(write).map_err(RecordsError::new)
    }

    fn dgroups(&self) -> Result<Vec<DgroupId>, RecordsError> {
        if !has_table(self).map_err(RecordsError::new)? {
            return Ok(Vec::new());
        }
        let read = || -> Result<Vec<Vec<u8>>, rusqlite::Error> {
            let mut query = self.db().prepare("SELECT DISTINCT dgroup FROM dimls_records ORDER BY dgroup")?;
            query.query_map([], |row| row.get(0))?.collect()
        };
        let ids = read().map_err(RecordsError::new)?;
        Ok(ids.iter().filter_map(|id| DgroupId::from_slice(id)).collect())
    }
}

fn has_table(store: &Store) -> Result<bool, rusqlite::Error> {
    store.db().query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'dimls_records')",
        [],
        |row| row.get(0),
    )
}
