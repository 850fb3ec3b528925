//! The state of one client in one SQLite file.
//!
//! A group *state* is a namespace of OpenMLS key-values, named by (group, state id), so that several states of one group can stand
//! side by side. An operation loads one namespace, works on it in memory, and writes what changed back in one transaction together
//! with everything that belongs to it: cursor, head, pending commit, outbox and decrypted messages. A crash leaves the state before
//! or the state after, never half.
//!
//! What is deleted is gone: pages are overwritten (`secure_delete`), and the rollback journal is cut to nothing at every commit.

pub(crate) mod branch_entries;
mod error;
mod fork;
pub(crate) mod groups;
pub(crate) mod hexed;
mod identity;
pub(crate) mod messages;
pub(crate) mod namespace;
pub(crate) mod outbox;
mod records;
mod schema;
#[cfg(test)]
mod tests;

use std::{fmt, path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

pub use self::{
    branch_entries::Verdict,
    error::StoreError,
    fork::{Again, ForkRecord, OwedRemoval},
    groups::StoredGroup,
    identity::StoredIdentity,
    messages::{Place, StoredMessage},
    namespace::{IDENTITY, NamespaceId},
    outbox::{OutboxItem, OutboxKind},
    records::{GroupRecord, LeftReason, Pending, PendingKind, Recipient, Resolution, Resolved, Status},
};
pub(crate) use self::{groups::GroupUpdate, records::Position};
use crate::limits::STATE_FILE_WAIT;

/// One client's state file, open and locked.
pub struct Store {
    db: Connection,
}

impl Store {
    /// Opens the state file at `path`, or makes a new one that only its owner can read. Waits up to
    /// [`STATE_FILE_WAIT`] for another process that uses the file.
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        Store::open_within(path, STATE_FILE_WAIT)
    }

    /// The same with another time to wait.
    pub fn open_within(path: &Path, wait: Duration) -> Result<Store, StoreError> {
        create_private(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags).map_err(|e| StoreError::open(path, e))?;
        Self::prepare(db, wait).map_err(|e| e.named(path))
    }

    /// A store that lives as long as the process.
    pub fn in_memory() -> Result<Store, StoreError> {
        Self::prepare(Connection::open_in_memory()?, Duration::ZERO)
    }

    fn prepare(mut db: Connection, wait: Duration) -> Result<Store, StoreError> {
        db.busy_timeout(wait)?;
        // Exclusive from the first access on, so that two processes never work on one state.
        db.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        db.pragma_update(None, "journal_mode", "TRUNCATE")?;
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "secure_delete", "ON")?;
        db.pragma_update(None, "temp_store", "MEMORY")?;
        db.pragma_update(None, "foreign_keys", "ON")?;
        schema::migrate(&mut db)?;
        Ok(Store { db })
    }

    /// Runs `work` in one transaction: all of it is stored, or nothing if it fails.
    pub(crate) fn transaction<T, E: From<StoreError>>(
        &mut self,
        work: impl FnOnce(&rusqlite::Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate);
        let tx = tx.map_err(StoreError::from)?;
        let result = work(&tx)?;
        tx.commit().map_err(StoreError::from)?;
        Ok(result)
    }

    pub(crate) fn db(&self) -> &Connection {
        &self.db
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

/// Creates the file with access for its owner only, so that secrets are never readable in between.
fn create_private(path: &Path) -> Result<(), StoreError> {
    let io = |source| StoreError::File { path: path.to_owned(), source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(io)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop).map_err(io)
}
