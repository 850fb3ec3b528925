//! Decrypted application messages.

use group_log::{EntryId, GroupId};
use rusqlite::{Connection, OptionalExtension, params};

use super::{Store, StoreError};
use crate::limits::MAX_STORED_MESSAGES;

/// An application message of a group, in the clear.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its number among this client's messages of the group. In a group that cannot fork it is the number of its entry.
    pub seq: u64,
    /// Where it is.
    pub place: Place,
    /// The epoch it was sent in.
    pub epoch: u64,
    /// The member who sent it: the identity in its credential.
    pub sender: Vec<u8>,
    /// For a message of this client: the number that it had in the outbox.
    pub item: Option<u64>,
    /// What was said.
    pub body: Vec<u8>,
}

/// Where an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the canonical log, for good.
    Canonical {
        /// Number of its entry.
        seq: u64,
    },
    /// On a branch; the log says later what became of it.
    Branch {
        /// Its id.
        entry: EntryId,
    },
    /// On the side, for good: whoever belonged to that branch can read it.
    Side {
        /// Its id.
        entry: EntryId,
        /// Number of the entry that says so.
        seq: u64,
    },
}

impl Place {
    /// As three columns.
    fn columns(&self) -> (u8, Option<u64>, Option<&[u8]>) {
        match self {
            Place::Canonical { seq } => (0, Some(*seq), None),
            Place::Branch { entry } => (1, None, Some(entry.as_bytes())),
            Place::Side { entry, seq } => (2, Some(*seq), Some(entry.as_bytes())),
        }
    }

    fn read(kind: u8, seq: Option<u64>, entry: Option<Vec<u8>>, number: u64) -> Result<Place, StoreError> {
        let damaged = || StoreError::damaged("place of a message", kind);
        let entry = || {
            let bytes = entry.as_deref().ok_or_else(damaged)?;
            EntryId::from_slice(bytes).map_err(|e| StoreError::damaged("place of a message", e))
        };
        match (kind, seq) {
            // Written before there were branches, the number is that of the entry.
            (0, seq) => Ok(Place::Canonical { seq: seq.unwrap_or(number) }),
            (1, _) => Ok(Place::Branch { entry: entry()? }),
            (2, Some(seq)) => Ok(Place::Side { entry: entry()?, seq }),
            _ => Err(damaged()),
        }
    }
}

impl std::fmt::Debug for StoredMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StoredMessage(seq {}, epoch {}, {} bytes)", self.seq, self.epoch, self.body.len())
    }
}

impl Store {
    /// Messages of a group after the one with the number `after_seq`, in order, at most `max`.
    pub fn messages(
        &self,
        group: &GroupId,
        after_seq: u64,
        max: usize,
    ) -> Result<Vec<StoredMessage>, StoreError> {
        let mut query = self.db().prepare_cached(
            "SELECT seq, epoch, sender, item, body, place, log_seq, entry_id FROM messages WHERE group_id = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
        )?;
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        let after = i64::try_from(after_seq).unwrap_or(i64::MAX);
        let rows = query.query_map(params![group.as_bytes(), after, max], |row| {
            let (seq, kind, log_seq, entry) = (row.get(0)?, row.get(5)?, row.get(6)?, row.get(7)?);
            let (epoch, sender, item, body) = (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
            let place = Place::read(kind, log_seq, entry, seq);
            Ok(place.map(|place| StoredMessage { seq, place, epoch, sender, item, body }))
        })?;
        rows.map(|row| row?).collect()
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

/// What became of a message that was read on a branch. Keeps its id, by which it is found again.
pub(crate) fn settle(
    db: &Connection,
    group: &GroupId,
    entry: &EntryId,
    seq: u64,
    dead: bool,
) -> Result<(), StoreError> {
    let mut update = db.prepare_cached(
        "UPDATE messages SET place = ?3, log_seq = ?4 WHERE group_id = ?1 AND entry_id = ?2 AND place = 1",
    )?;
    update.execute(params![group.as_bytes(), entry.as_bytes(), if dead { 2 } else { 0 }, seq])?;
    Ok(())
}

/// What this client said in an entry on a branch.
pub(crate) fn own_body(
    db: &Connection,
    group: &GroupId,
    entry: &EntryId,
) -> Result<Option<Vec<u8>>, StoreError> {
    let mut query = db.prepare_cached(
        "SELECT body FROM messages WHERE group_id = ?1 AND entry_id = ?2 AND item IS NOT NULL",
    )?;
    Ok(query.query_row(params![group.as_bytes(), entry.as_bytes()], |row| row.get(0)).optional()?)
}

/// Adds messages, and deletes the oldest beyond the bound.
pub(crate) fn write(db: &Connection, group: &GroupId, messages: &[StoredMessage]) -> Result<(), StoreError> {
    if messages.is_empty() {
        return Ok(());
    }
    let mut insert = db.prepare_cached(
        "INSERT OR IGNORE INTO messages (group_id, seq, epoch, sender, item, body, place, log_seq, entry_id)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    for m in messages {
        let (place, seq, entry) = m.place.columns();
        let sent = params![group.as_bytes(), m.seq, m.epoch, m.sender, m.item, m.body, place, seq, entry];
        insert.execute(sent)?;
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
