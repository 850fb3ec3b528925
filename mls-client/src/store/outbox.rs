//! What a client wants in a group's log and has not seen there yet.

use group_log::{GroupId, StateId};
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::{Store, StoreError, hexed};

/// One thing that waits to be in the log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxItem {
    /// Its number in the group's outbox, never used again.
    pub id: u64,
    /// What it is.
    pub kind: OutboxKind,
    /// The application message in the clear; empty for a proposal.
    #[serde(with = "hexed")]
    pub body: Vec<u8>,
    /// MLSMessage as it was last made, or empty if it has to be made.
    #[serde(with = "hexed")]
    pub message: Vec<u8>,
    /// The epoch it was made in.
    pub epoch: u64,
    #[serde(with = "hexed")]
    state_id: [u8; 32],
}

/// What waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutboxKind {
    /// An application message.
    Message,
    /// The proposal that this client be removed.
    Leave,
}

impl OutboxItem {
    pub(crate) fn new(id: u64, kind: OutboxKind, body: Vec<u8>) -> Self {
        OutboxItem { id, kind, body, message: Vec::new(), epoch: 0, state_id: [0; 32] }
    }

    /// Whether it is an application message.
    pub fn is_message(&self) -> bool {
        self.kind == OutboxKind::Message
    }

    /// The state it was made in.
    pub fn state_id(&self) -> StateId {
        StateId(self.state_id)
    }

    pub(crate) fn set_message(&mut self, message: Vec<u8>, epoch: u64, state: StateId) {
        (self.message, self.epoch, self.state_id) = (message, epoch, state.0);
    }

    /// The message has to be made again.
    pub(crate) fn forget_message(&mut self) {
        (self.message, self.epoch, self.state_id) = (Vec::new(), 0, [0; 32]);
    }
}

impl std::fmt::Debug for OutboxItem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OutboxItem({}, {:?}, epoch {})", self.id, self.kind, self.epoch)
    }
}

impl Drop for OutboxItem {
    fn drop(&mut self) {
        self.body.zeroize();
    }
}

impl Store {
    /// How much of a group waits.
    pub fn outbox_len(&self, group: &GroupId) -> Result<usize, StoreError> {
        let mut query = self.db().prepare_cached("SELECT count(*) FROM outbox WHERE group_id = ?1")?;
        Ok(query.query_row([group.as_bytes()], |row| row.get::<_, i64>(0))?.try_into().unwrap_or(usize::MAX))
    }
}

/// Everything of a group that waits, oldest first.
pub(crate) fn read(db: &Connection, group: &GroupId) -> Result<Vec<OutboxItem>, StoreError> {
    let mut query = db.prepare_cached("SELECT item FROM outbox WHERE group_id = ?1 ORDER BY id")?;
    let rows = query.query_map([group.as_bytes()], |row| row.get::<_, Vec<u8>>(0))?;
    rows.map(|row| serde_json::from_slice(&row?).map_err(|e| StoreError::damaged("outbox", e))).collect()
}

/// Writes what differs between `old` and `new`.
pub(crate) fn write(
    db: &Connection,
    group: &GroupId,
    old: &[OutboxItem],
    new: &[OutboxItem],
) -> Result<(), StoreError> {
    for gone in old.iter().filter(|o| new.iter().all(|n| n.id != o.id)) {
        db.execute("DELETE FROM outbox WHERE group_id = ?1 AND id = ?2", params![group.as_bytes(), gone.id])?;
    }
    for item in new.iter().filter(|item| !old.contains(item)) {
        let bytes = Zeroizing::new(serde_json::to_vec(item).map_err(|e| StoreError::damaged("outbox", e))?);
        db.execute(
            "INSERT INTO outbox (group_id, id, item) VALUES (?1, ?2, ?3)
             ON CONFLICT (group_id, id) DO UPDATE SET item = excluded.item",
            params![group.as_bytes(), item.id, *bytes],
        )?;
    }
    Ok(())
}
