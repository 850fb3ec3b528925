//! Groups: loading one whole, and writing it back whole.

use group_log::{GroupId, StateId};
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    IDENTITY, NamespaceId, Store, StoreError,
    messages::{self, StoredMessage},
    namespace,
    outbox::{self, OutboxItem},
    records::{self, GroupRecord},
};
use crate::provider::Values;

/// Everything that the file holds of a group, as far as an operation may change it.
#[derive(Debug, Clone)]
pub struct StoredGroup {
    /// Cursor, head, status and pending commit.
    pub record: GroupRecord,
    /// OpenMLS' key-values of the state that is held; empty if none is.
    pub values: Values,
    /// What waits to be in the log.
    pub outbox: Vec<OutboxItem>,
    /// Where `values` came from.
    namespace: Option<NamespaceId>,
}

/// What is written in one transaction.
pub(crate) struct GroupUpdate<'a> {
    /// The group as it was loaded, if it was there.
    pub(crate) old: Option<&'a StoredGroup>,
    /// The record from now on.
    pub(crate) record: &'a GroupRecord,
    /// The values from now on, of the state that the record names as held.
    pub(crate) values: &'a Values,
    /// The outbox from now on.
    pub(crate) outbox: &'a [OutboxItem],
    /// Messages that were decrypted.
    pub(crate) messages: &'a [StoredMessage],
    /// The identity's values before and after, if a KeyPackage was used up.
    pub(crate) identity: Option<(&'a Values, &'a Values)>,
}

impl GroupUpdate<'_> {
    /// Whether nothing has changed.
    pub(crate) fn is_empty(&self) -> bool {
        let same = |old: &StoredGroup| {
            old.record == *self.record && old.outbox == self.outbox && old.values == *self.values
        };
        self.old.is_some_and(same) && self.messages.is_empty() && self.identity.is_none()
    }
}

impl Store {
    /// The ids of all groups.
    pub fn group_ids(&self) -> Result<Vec<GroupId>, StoreError> {
        let mut query = self.db().prepare_cached("SELECT group_id FROM groups ORDER BY group_id")?;
        let rows = query.query_map([], |row| row.get::<_, Vec<u8>>(0))?;
        rows.map(|row| GroupId::new(row?).map_err(|e| StoreError::damaged("group id", e))).collect()
    }

    /// A group's record.
    pub fn group_record(&self, group: &GroupId) -> Result<Option<GroupRecord>, StoreError> {
        read_record(self.db(), group)
    }

    /// A group with the state that it holds.
    pub fn load_group(&self, group: &GroupId) -> Result<Option<StoredGroup>, StoreError> {
        let Some(record) = self.group_record(group)? else { return Ok(None) };
        let namespace = match record.held_state() {
            Some(state) => self.namespace(group, &state)?,
            None => None,
        };
        let values = namespace.map(|n| self.values(n)).transpose()?.unwrap_or_default();
        let outbox = outbox::read(self.db(), group)?;
        Ok(Some(StoredGroup { record, values, outbox, namespace }))
    }

    /// Writes a group back.
    pub(crate) fn save_group(&mut self, group: &GroupId, update: &GroupUpdate<'_>) -> Result<(), StoreError> {
        self.transaction(|tx| write(tx, group, update))
    }

    /// Forgets a group with everything that belongs to it.
    pub fn delete_group(&mut self, group: &GroupId) -> Result<(), StoreError> {
        self.transaction(|tx| {
            let mut query = tx.prepare("SELECT id FROM namespaces WHERE group_id = ?1")?;
            let ids: Vec<i64> =
                query.query_map([group.as_bytes()], |row| row.get(0))?.collect::<Result<_, _>>()?;
            ids.into_iter().try_for_each(|id| namespace::delete(tx, NamespaceId(id)))?;
            for table in ["groups", "outbox", "messages", "demls_records", "branch_entries"] {
                tx.execute(&format!("DELETE FROM {table} WHERE group_id = ?1"), [group.as_bytes()])?;
            }
            Ok(())
        })
    }
}

/// A group's record.
pub(crate) fn read_record(db: &Connection, group: &GroupId) -> Result<Option<GroupRecord>, StoreError> {
    let mut query = db.prepare_cached("SELECT record FROM groups WHERE group_id = ?1")?;
    let bytes: Option<Vec<u8>> = query.query_row([group.as_bytes()], |row| row.get(0)).optional()?;
    bytes.map(|bytes| records::decode(group, &bytes)).transpose()
}

/// Writes a group's record.
pub(crate) fn write_record(db: &Connection, group: &GroupId, record: &GroupRecord) -> Result<(), StoreError> {
    let record = serde_json::to_vec(record).map_err(|e| StoreError::damaged("record of a group", e))?;
    let mut put = db.prepare_cached(
        "INSERT INTO groups (group_id, record) VALUES (?1, ?2)
         ON CONFLICT (group_id) DO UPDATE SET record = excluded.record",
    )?;
    put.execute(params![group.as_bytes(), record])?;
    Ok(())
}

fn write(db: &Connection, group: &GroupId, update: &GroupUpdate<'_>) -> Result<(), StoreError> {
    write_values(db, group, update)?;
    write_record(db, group, update.record)?;
    outbox::write(db, group, update.old.map_or(&[], |o| &o.outbox), update.outbox)?;
    messages::write(db, group, update.messages)?;
    if let Some((old, new)) = update.identity {
        namespace::write(db, IDENTITY, old, new)?;
    }
    Ok(())
}

/// The namespace follows the state that the record names: renamed while the state moves on, made when one is joined, deleted when
/// none is held any more.
fn write_values(db: &Connection, group: &GroupId, update: &GroupUpdate<'_>) -> Result<(), StoreError> {
    let empty = Values::default();
    let before = update.old.and_then(|old| old.namespace.map(|id| (id, &old.values)));
    let held: Option<StateId> = update.record.held_state();
    match (before, held) {
        (Some((id, old)), Some(state)) => {
            if namespace::find(db, group, &state)? != Some(id) {
                namespace::rename(db, id, &state)?;
            }
            namespace::write(db, id, old, update.values)
        }
        (None, Some(state)) => {
            let id = namespace::obtain(db, group, &state)?;
            namespace::write(db, id, &empty, update.values)
        }
        (Some((id, _)), None) => namespace::delete(db, id),
        (None, None) => Ok(()),
    }
}
