//! Heads of groups. Writing one with each entry would be a third of all rows, so a head is stored now and then, and the records after it
//! say how the group went on: a head is the stored one, rolled forward over at most [`STORED_EVERY`] records.

use bytes::Bytes;
use group_log::{EntryKind, GroupKind, Head, Record};

use super::{
    keys::{RowKey, trailing_number},
    reader::get_as,
    rows::RecordRow,
    shard::Rows,
};
use crate::storage::error::StorageError;

/// In entries of a group: so many records are read at most to know its head.
pub(super) const STORED_EVERY: u64 = 16;

/// Whether the head is stored with the entry that leads to it.
pub(super) fn is_stored(record: &Record, after: &Head) -> bool {
    !rolls_forward(after, record) || after.seq.is_multiple_of(STORED_EVERY)
}

/// Whether the entry's record says everything that it changes of the head. Turns end with a change of the policy only, so the head
/// before the entry and the one after it agree on this.
fn rolls_forward(head: &Head, record: &Record) -> bool {
    let is_plain = match record.kind {
        EntryKind::Commit | EntryKind::Proposal | EntryKind::Application => true,
        EntryKind::Create | EntryKind::PolicyChange | EntryKind::Close => false,
        EntryKind::Side | EntryKind::Late | EntryKind::Stable => false,
    };
    is_plain && head.kind == GroupKind::Mls && head.turn.is_none()
}

/// The head after one more entry whose record says everything.
fn rolled(head: Head, seq: u64, row: &RecordRow) -> Head {
    let Record { epoch_after: epoch, state_after: state_id, chain, .. } = row.record;
    let head = Head { epoch, state_id, seq, chain, ..head };
    match row.has_group_info {
        true => Head { group_info_seq: seq, group_info_epoch: epoch, ..head },
        false => head,
    }
}

/// A group's head as the rows say it, or nothing if there is no such group.
pub(super) fn head(rows: &Rows<'_>, group: &[u8]) -> Result<Option<Head>, StorageError> {
    let mut older = None;
    loop {
        let stored = get_as(rows, &RowKey::Head { group }, |row: Bytes| Head::decode(&row))?;
        let Some(stored) = stored else { return Ok(None) };
        if let Some(head) = roll_forward(rows, group, stored)? {
            return Ok(Some(head));
        }
        // Entries were applied meanwhile, and with them a newer head was stored.
        if older.replace(stored.seq) >= Some(stored.seq) {
            return Err(rows.bad_row("a head", format!("entries follow {} that go beyond it", stored.seq)));
        }
    }
}

/// Nothing if a newer head is stored by now.
pub(super) fn roll_forward(
    rows: &Rows<'_>,
    group: &[u8],
    stored: Head,
) -> Result<Option<Head>, StorageError> {
    let mut head = Some(stored);
    let start = RowKey::Record { group, seq: stored.seq.saturating_add(1) }.encode();
    let end = RowKey::Record { group, seq: u64::MAX }.encode();
    rows.scan(&start, end, usize::MAX, |key, value| {
        let seq = trailing_number(key).map_err(|error| rows.bad_row("the key of a record", error))?;
        let row = RecordRow::decode(value).map_err(|error| rows.bad_row("a record", error))?;
        if head.is_some_and(|head| head.seq + 1 != seq) {
            return Err(rows.bad_row("a record", format!("the one before {seq} is missing")));
        }
        head = head
            .filter(|head| {
                rolls_forward(head, &row.record) && seq / STORED_EVERY == stored.seq / STORED_EVERY
            })
            .map(|head| rolled(head, seq, &row));
        Ok(head.is_some())
    })?;
    Ok(head)
}
