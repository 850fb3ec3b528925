//! Reads about retention, from any task.

use bytes::Bytes;
use group_log::{Head, Pruned};

use super::{
    branches::LAST_GROUP,
    heads,
    keys::{RowKey, trailing_name},
    place::Place,
    reader::{ShardReader, get_as},
    rows::RecordRow,
    shard::Rows,
};
use crate::storage::error::StorageError;

impl ShardReader {
    /// What was given up of a group's log.
    pub fn pruned(&self, group: &[u8]) -> Result<Pruned, StorageError> {
        self.read(|rows| pruned(rows, group))
    }

    /// Groups after `after` in the order of keys, each with its head and what was given up of it; at most `max`.
    pub fn groups_after(
        &self,
        after: Option<&[u8]>,
        max: usize,
    ) -> Result<Vec<(Bytes, Head, Pruned)>, StorageError> {
        self.read(|rows| {
            let mut groups = Vec::new();
            let start = RowKey::Head { group: after.unwrap_or_default() }.encode();
            // One more, because the first may be the one to start after.
            rows.scan(
                &start,
                RowKey::Head { group: &LAST_GROUP }.encode(),
                max.saturating_add(1),
                |key, value| {
                    let group =
                        trailing_name(key, 0).map_err(|error| rows.bad_row("the key of a head", error))?;
                    let stored = Head::decode(value).map_err(|error| rows.bad_row("a head", error))?;
                    if after.is_none_or(|after| group != after) && groups.len() < max {
                        let head = match heads::roll_forward(rows, &group, stored)? {
                            Some(head) => head,
                            None => heads::head(rows, &group)?.unwrap_or(stored),
                        };
                        let pruned = pruned(rows, &group)?;
                        groups.push((group, head, pruned));
                    }
                    Ok(true)
                },
            )?;
            Ok(groups)
        })
    }

    /// When an entry came into the log: the leader's wall clock, in milliseconds since 1970. Nothing if that is not kept.
    pub fn made_at_ms(&self, group: &[u8], seq: u64) -> Result<Option<u64>, StorageError> {
        self.read(|rows| {
            let row = get_as(rows, &RowKey::Record { group, seq }, |row| RecordRow::decode(&row))?;
            match row.map(|row| row.place) {
                Some(Place::Submission { index }) => Ok(Some(rows.command(index)?.at_ms)),
                Some(Place::Report(at)) => Ok(Some(rows.command(at.index)?.at_ms)),
                Some(Place::Mark | Place::Pruned) | None => Ok(None),
            }
        })
    }

    /// A page that can not be read because it was given up is no damage, but another answer.
    pub(super) fn unless_pruned<T>(
        &self,
        rows: &Rows<'_>,
        group: &[u8],
        after_seq: u64,
        page: Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        if let Err(StorageError::Corrupt { .. }) = &page {
            let pruned = pruned(rows, group)?;
            if after_seq < pruned.seq {
                return Err(StorageError::Pruned(pruned));
            }
        }
        page
    }
}

/// What was given up of a group's log.
pub(super) fn pruned(rows: &Rows<'_>, group: &[u8]) -> Result<Pruned, StorageError> {
    Ok(get_as(rows, &RowKey::Pruned { group }, |row| Pruned::decode(&row))?.unwrap_or_default())
}
