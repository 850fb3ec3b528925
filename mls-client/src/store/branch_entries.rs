//! Entries of a DeMLS group that matter until the log says `Stable`: which there are, what became of them, and what they carry as long
//! as only branches have them.

use std::collections::BTreeMap;

use group_log::{EntryId, GroupId, StateId};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::StoreError;

/// What the log says about an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Number of the entry that says so; for a canonical one, its own.
    pub seq: u64,
    /// It is on the side, or was late.
    pub dead: bool,
}

/// An entry as far as it is known. For a commit its id is the state that it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) id: EntryId,
    /// The state it was made in.
    pub(crate) parent: StateId,
    /// The epoch it was made in; for a commit, the one that it leads to.
    pub(crate) epoch: u64,
    pub(crate) is_commit: bool,
    /// This client made it.
    pub(crate) is_own: bool,
    /// It was taken in, and never needs to be again.
    pub(crate) processed: bool,
    /// Nothing while only branches have it.
    pub(crate) verdict: Option<Verdict>,
    /// For an own commit, the encoded intent.
    pub(crate) intent: Vec<u8>,
}

const COLUMNS: &str = "id, parent, epoch, is_commit, is_own, processed, seq, dead, intent";

fn node(row: &Row<'_>) -> rusqlite::Result<Result<Node, StoreError>> {
    let (id, parent): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?);
    let seq: Option<u64> = row.get(6)?;
    let verdict = seq.map(|seq| Ok::<_, rusqlite::Error>(Verdict { seq, dead: row.get(7)? })).transpose()?;
    let ids = EntryId::from_slice(&id).and_then(|id| Ok((id, StateId::from_slice(&parent)?)));
    let (epoch, is_commit, is_own, processed, intent) =
        (row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(8)?);
    Ok(ids.map_err(|e| StoreError::damaged("id of a branch entry", e)).map(|(id, parent)| Node {
        id,
        parent,
        epoch,
        is_commit,
        is_own,
        processed,
        verdict,
        intent,
    }))
}

/// Every commit that is known.
pub(crate) fn commits(db: &Connection, group: &GroupId) -> Result<BTreeMap<StateId, Node>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM branch_entries WHERE group_id = ?1 AND is_commit");
    let mut query = db.prepare_cached(&sql)?;
    let rows = query.query_map([group.as_bytes()], node)?;
    rows.map(|row| row?.map(|node| (node.id.as_state(), node))).collect()
}

/// One entry.
pub(crate) fn find(db: &Connection, group: &GroupId, id: &EntryId) -> Result<Option<Node>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM branch_entries WHERE group_id = ?1 AND id = ?2");
    let mut query = db.prepare_cached(&sql)?;
    query.query_row(params![group.as_bytes(), id.as_bytes()], node).optional()?.transpose()
}

/// Stores what is known of an entry; what it carries stays as it is.
pub(crate) fn put(db: &Connection, group: &GroupId, node: &Node) -> Result<(), StoreError> {
    let mut put = db.prepare_cached(
        "INSERT INTO branch_entries (group_id, id, parent, epoch, is_commit, is_own, processed, seq, dead, intent)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT (group_id, id) DO UPDATE SET
             parent = excluded.parent, processed = excluded.processed, is_own = excluded.is_own, seq = excluded.seq, dead = excluded.dead,
             intent = excluded.intent",
    )?;
    put.execute(params![
        group.as_bytes(),
        node.id.as_bytes(),
        node.parent.as_bytes(),
        node.epoch,
        node.is_commit,
        node.is_own,
        node.processed,
        node.verdict.map(|verdict| verdict.seq),
        node.verdict.is_some_and(|verdict| verdict.dead),
        node.intent,
    ])?;
    Ok(())
}

/// Keeps what an entry carries, or forgets it once the log has it.
pub(crate) fn set_body(
    db: &Connection,
    group: &GroupId,
    id: &EntryId,
    body: Option<&[u8]>,
) -> Result<(), StoreError> {
    let mut update =
        db.prepare_cached("UPDATE branch_entries SET body = ?3 WHERE group_id = ?1 AND id = ?2")?;
    update.execute(params![group.as_bytes(), id.as_bytes(), body])?;
    Ok(())
}

/// Entries that were taken in from branches and that the log does not have yet, with what they carry, by epoch.
pub(crate) fn undecided(db: &Connection, group: &GroupId) -> Result<Vec<(EntryId, Vec<u8>)>, StoreError> {
    let mut query = db.prepare_cached(
        "SELECT id, body FROM branch_entries
         WHERE group_id = ?1 AND processed AND seq IS NULL AND body IS NOT NULL ORDER BY epoch, is_commit DESC, id",
    )?;
    let rows = query.query_map([group.as_bytes()], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?)))?;
    rows.map(|row| {
        let (id, body) = row?;
        let id = EntryId::from_slice(&id).map_err(|e| StoreError::damaged("id of a branch entry", e))?;
        Ok((id, body))
    })
    .collect()
}

/// Forgets everything that the log decided up to entry `seq`, except for the state `head`.
pub(crate) fn forget_decided(
    db: &Connection,
    group: &GroupId,
    seq: u64,
    head: &StateId,
) -> Result<(), StoreError> {
    db.execute(
        "DELETE FROM branch_entries WHERE group_id = ?1 AND seq <= ?2 AND id <> ?3",
        params![group.as_bytes(), seq, head.as_bytes()],
    )?;
    Ok(())
}

/// Forgets one entry.
pub(crate) fn forget(db: &Connection, group: &GroupId, id: &EntryId) -> Result<(), StoreError> {
    db.execute(
        "DELETE FROM branch_entries WHERE group_id = ?1 AND id = ?2",
        params![group.as_bytes(), id.as_bytes()],
    )?;
    Ok(())
}

/// Forgets all entries of a group.
pub(crate) fn forget_all(db: &Connection, group: &GroupId) -> Result<(), StoreError> {
    db.execute("DELETE FROM branch_entries WHERE group_id = ?1", [group.as_bytes()])?;
    Ok(())
}
