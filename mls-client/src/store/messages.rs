//! Decrypted application messages.

use group_log::GroupId;
use rusqlite::{Connection, OptionalExtension, params};

use super::{Store, StoreError};
use crate::limits::MAX_STORED_MESSAGES;

/// An application message of a group, in the clear.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// Number of its entry.
    pub seq: u64,
    /// The epoch it was sent in.
    pub epoch: u64,
    /// The member who sent it: the identity in its credential.
    pub sender: Vec<u8>,
    /// For a message of this client: the number that it had in the outbox.
    pub item: Option<u64>,
    /// What was said.
    pub body: Vec<u8>,
}

impl std::fmt::Debug for StoredMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StoredMessage(seq {}, epoch {}, {} bytes)", self.seq, self.epoch, self.body.len())
    }
}

impl Store {
    /// Messages of a group after entry `after_seq`, in order, at most `max`.
    pub fn messages(
        &self,
        group: &GroupId,
        after_seq: u64,
        max: usize,
    ) -> Result<Vec<StoredMessage>, StoreError> {
        let mut query = self.db().prepare_cached(
            "SELECT seq, epoch, sender, item, body FROM messages WHERE group_id = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
        )?;
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        let after = i64::try_from(after_seq).unwrap_or(i64::MAX);
        let rows = query.query_map(params![group.as_bytes(), after, max], |row| {
            Ok(StoredMessage {
                seq: row.get(0)?,
                epoch: row.get(1)?,
                sender: row.get(2)?,
                item: row.get(3)?,
                body: row.get(4)?,
            })
        })?;
        rows.map(|row| Ok(row?)).collect()
    }

    /// Where the message is that had this number in the outbox: its entry and epoch.
    pub fn sent_message(&self, group: &GroupId, item: u64) -> Result<Option<(u64, u64)>, StoreError> {
        let mut query =
            self.db().prepare_cached("SELECT seq, epoch FROM messages WHERE group_id = ?1 AND item = ?2")?;
        Ok(query
            .query_row(params![group.as_bytes(), item], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?)
    }

    /// Deletes the messages of a group up to and including entry `up_to_seq`.
    pub fn forget_messages(&mut self, group: &GroupId, up_to_seq: u64) -> Result<(), StoreError> {
        let up_to = i64::try_from(up_to_seq).unwrap_or(i64::MAX);
        self.transaction(|tx| {
            tx.execute(
                "DELETE FROM messages WHERE group_id = ?1 AND seq <= ?2",
                params![group.as_bytes(), up_to],
            )?;
            Ok(())
        })
    }
}

/// Adds messages, and deletes the oldest beyond the bound.
pub(super) fn write(db: &Connection, group: &GroupId, messages: &[StoredMessage]) -> Result<(), StoreError> {
    if messages.is_empty() {
        return Ok(());
    }
    let mut insert = db.prepare_cached(
        "INSERT OR IGNORE INTO messages (group_id, seq, epoch, sender, item, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for m in messages {
        insert.execute(params![group.as_bytes(), m.seq, m.epoch, m.sender, m.item, m.body])?;
    }
    let count: i64 =
        db.query_row("SELECT count(*) FROM messages WHERE group_id = ?1", [group.as_bytes()], |row| {
            row.get(0)
        })?;
    let excess = count - MAX_STORED_MESSAGES as i64;
    if excess > 0 {
        db.execute(
            "DELETE FROM messages WHERE group_id = ?1 AND seq IN
                (SELECT seq FROM messages WHERE group_id = ?1 ORDER BY seq LIMIT ?2)",
            params![group.as_bytes(), excess],
        )?;
    }
    Ok(())
}
