//! Namespaces of OpenMLS key-values: one per group state, and one for the identity.

use group_log::{GroupId, StateId};
use rusqlite::{Connection, OptionalExtension, params};

use super::{Store, StoreError};
use crate::provider::Values;

/// A namespace in this file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamespaceId(pub(super) i64);

/// The namespace of the identity: the private parts of KeyPackages.
pub const IDENTITY: NamespaceId = NamespaceId(1);

impl Store {
    /// The namespace of one state of a group, if this file holds it.
    pub fn namespace(&self, group: &GroupId, state: &StateId) -> Result<Option<NamespaceId>, StoreError> {
        find(self.db(), group, state)
    }

    /// Every state of a group that this file holds.
    pub fn states(&self, group: &GroupId) -> Result<Vec<StateId>, StoreError> {
        let mut query = self.db().prepare_cached("SELECT state_id FROM namespaces WHERE group_id = ?1")?;
        let rows = query.query_map([group.as_bytes()], |row| row.get::<_, Vec<u8>>(0))?;
        rows.map(|row| StateId::from_slice(&row?).map_err(|e| StoreError::damaged("state id", e))).collect()
    }

    /// All key-values of a namespace.
    pub fn values(&self, namespace: NamespaceId) -> Result<Values, StoreError> {
        let mut query = self.db().prepare_cached("SELECT key, value FROM key_values WHERE namespace = ?1")?;
        let mut rows = query.query([namespace.0])?;
        let mut values = Values::default();
        while let Some(row) = rows.next()? {
            values.insert(row.get(0)?, row.get(1)?);
        }
        Ok(values)
    }

    /// Copies one state of a group under another name: from then on both change on their own.
    pub fn copy_state(
        &mut self,
        group: &GroupId,
        from: &StateId,
        to: &StateId,
    ) -> Result<NamespaceId, StoreError> {
        self.transaction(|tx| {
            let source = find(tx, group, from)?.ok_or_else(|| StoreError::damaged("state to copy", "it is not there"))?;
            let copy = obtain(tx, group, to)?;
            tx.execute(
                "INSERT INTO key_values (namespace, key, value) SELECT ?2, key, value FROM key_values WHERE namespace = ?1",
                params![source.0, copy.0],
            )?;
            Ok(copy)
        })
    }
}

pub(super) fn find(
    db: &Connection,
    group: &GroupId,
    state: &StateId,
) -> Result<Option<NamespaceId>, StoreError> {
    let mut query = db.prepare_cached("SELECT id FROM namespaces WHERE group_id = ?1 AND state_id = ?2")?;
    let id = query.query_row(params![group.as_bytes(), state.as_bytes()], |row| row.get(0)).optional()?;
    Ok(id.map(NamespaceId))
}

/// The namespace of a state; an empty one is made if there is none.
pub(super) fn obtain(db: &Connection, group: &GroupId, state: &StateId) -> Result<NamespaceId, StoreError> {
    if let Some(id) = find(db, group, state)? {
        return Ok(id);
    }
    let mut insert = db.prepare_cached("INSERT INTO namespaces (group_id, state_id) VALUES (?1, ?2)")?;
    insert.execute(params![group.as_bytes(), state.as_bytes()])?;
    Ok(NamespaceId(db.last_insert_rowid()))
}

/// The state has moved on: its namespace goes under a new name, without a copy.
pub(super) fn rename(db: &Connection, namespace: NamespaceId, to: &StateId) -> Result<(), StoreError> {
    let mut update = db.prepare_cached("UPDATE namespaces SET state_id = ?2 WHERE id = ?1")?;
    update.execute(params![namespace.0, to.as_bytes()])?;
    Ok(())
}

/// Deletes a namespace with everything in it.
pub(super) fn delete(db: &Connection, namespace: NamespaceId) -> Result<(), StoreError> {
    db.execute("DELETE FROM key_values WHERE namespace = ?1", [namespace.0])?;
    db.execute("DELETE FROM namespaces WHERE id = ?1", [namespace.0])?;
    Ok(())
}

/// Writes what differs between `old` and `new`.
pub(crate) fn write(
    db: &Connection,
    namespace: NamespaceId,
    old: &Values,
    new: &Values,
) -> Result<(), StoreError> {
    let changes = new.changes_since(old);
    let mut put = db.prepare_cached(
        "INSERT INTO key_values (namespace, key, value) VALUES (?1, ?2, ?3)
         ON CONFLICT (namespace, key) DO UPDATE SET value = excluded.value",
    )?;
    for (key, value) in changes.put {
        put.execute(params![namespace.0, key, value])?;
    }
    let mut remove = db.prepare_cached("DELETE FROM key_values WHERE namespace = ?1 AND key = ?2")?;
    for key in changes.delete {
        remove.execute(params![namespace.0, key])?;
    }
    Ok(())
}
