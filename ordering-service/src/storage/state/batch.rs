//! Changes of the state that are not written yet, over the rows that are. Commands of one batch see one another's changes.

use std::{
    collections::{BTreeMap, btree_map},
    iter::Peekable,
};

use bytes::Bytes;
use group_log::Head;
use rocksdb::WriteBatch;

use super::{
    heads,
    keys::RowKey,
    observer::Advanced,
    rows::{decode_number, encode_number},
    shard::{Rows, ShardState},
};
use crate::storage::{error::StorageError, wire::DecodeError};

/// One batch of changes of a shard's state.
pub(crate) struct Batch<'a> {
    pub(crate) state: &'a ShardState,
    pub(crate) rows: Rows<'a>,
    changes: BTreeMap<Vec<u8>, Option<Bytes>>,
    heads: BTreeMap<Bytes, Head>,
    inboxes: BTreeMap<Bytes, u64>,
    /// Welcomes dropped because an inbox was full.
    pub(crate) dropped: u64,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(state: &'a ShardState) -> Result<Self, StorageError> {
        let rows = state.rows()?;
        let (changes, heads, inboxes) = Default::default();
        Ok(Batch { state, rows, changes, heads, inboxes, dropped: 0 })
    }

    /// The value of a row.
    pub(crate) fn get(&self, key: &RowKey<'_>) -> Result<Option<Bytes>, StorageError> {
        let key = key.encode();
        match self.changes.get(&key) {
            Some(changed) => Ok(changed.clone()),
            None => self.rows.get(&key),
        }
    }

    /// The value of a row, decoded.
    pub(crate) fn get_as<T>(
        &self,
        key: &RowKey<'_>,
        what: &str,
        decode: impl Fn(Bytes) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, StorageError> {
        let row = self.get(key)?;
        row.map(|row| decode(row).map_err(|error| self.rows.bad_row(what, error))).transpose()
    }

    /// The value of a row that is a number.
    pub(crate) fn get_number(&self, key: &RowKey<'_>, what: &str) -> Result<Option<u64>, StorageError> {
        self.get_as(key, what, decode_number)
    }

    pub(crate) fn put(&mut self, key: &RowKey<'_>, value: impl Into<Bytes>) {
        self.changes.insert(key.encode(), Some(value.into()));
    }

    pub(crate) fn put_number(&mut self, key: &RowKey<'_>, number: u64) {
        self.put(key, encode_number(number));
    }

    pub(crate) fn delete(&mut self, key: &RowKey<'_>) {
        self.changes.insert(key.encode(), None);
    }

    /// Puts the row with these bytes as its key.
    pub(crate) fn put_key(&mut self, key: Vec<u8>, value: impl Into<Bytes>) {
        self.changes.insert(key, Some(value.into()));
    }

    /// Deletes the row with these bytes as its key.
    pub(crate) fn delete_key(&mut self, key: Vec<u8>) {
        self.changes.insert(key, None);
    }

    /// Keys from `start` to `last`, in order, at most `max` of them.
    pub(crate) fn keys(
        &self,
        start: &RowKey<'_>,
        last: &RowKey<'_>,
        max: usize,
    ) -> Result<Vec<Vec<u8>>, StorageError> {
        let (start, mut end) = (start.encode(), last.encode());
        end.push(0);
        let mut changed = self.changes.range(start.clone()..end.clone()).peekable();
        let mut keys = Vec::new();
        self.rows.scan(&start, end, usize::MAX, |key, _| {
            take_changed_before(&mut changed, key, &mut keys);
            let is_changed = changed.peek().is_some_and(|(changed, _)| changed.as_slice() == key);
            if !is_changed {
                keys.push(key.to_vec());
            }
            Ok(keys.len() < max)
        })?;
        keys.extend(changed.filter(|(_, value)| value.is_some()).map(|(key, _)| key.clone()));
        keys.truncate(max);
        Ok(keys)
    }

    /// Rows from `start` to `last`, in order. All of them: for what is bounded.
    pub(crate) fn range(
        &self,
        start: &RowKey<'_>,
        last: &RowKey<'_>,
    ) -> Result<BTreeMap<Vec<u8>, Bytes>, StorageError> {
        let (start, mut end) = (start.encode(), last.encode());
        end.push(0);
        let mut found = BTreeMap::new();
        self.rows.scan(&start, end.clone(), usize::MAX, |key, value| {
            found.insert(key.to_vec(), Bytes::copy_from_slice(value));
            Ok(true)
        })?;
        for (key, value) in self.changes.range(start..end) {
            match value {
                Some(value) => found.insert(key.clone(), value.clone()),
                None => found.remove(key),
            };
        }
        Ok(found)
    }

    /// The head of a group.
    pub(crate) fn head(&self, group: &[u8]) -> Result<Option<Head>, StorageError> {
        if let Some(head) = self.heads.get(group).copied().or_else(|| self.state.cached_head(group)) {
            return Ok(Some(head));
        }
        heads::head(&self.rows, group)
    }

    pub(crate) fn set_head(&mut self, group: &Bytes, head: Head) {
        self.heads.insert(group.clone(), head);
    }

    /// A Welcome has come into a client's inbox.
    pub(crate) fn inbox_advanced(&mut self, client: Bytes, position: u64) {
        self.inboxes.insert(client, position);
    }

    /// No row refers to this log entry.
    pub(crate) fn unreferenced(&mut self, index: u64) {
        self.put(&RowKey::Unreferenced { index }, Bytes::new());
    }

    /// From the command at `command` on, no row refers to this log entry any more.
    pub(crate) fn dropped_after(&mut self, index: u64, command: u64) {
        self.put_number(&RowKey::Dropped { index }, command);
    }

    /// Everything for one write, and what has moved on.
    pub(crate) fn finish(self) -> (WriteBatch, BTreeMap<Bytes, Head>, Vec<Advanced>) {
        let mut batch = WriteBatch::default();
        for (key, value) in &self.changes {
            match value {
                Some(value) => batch.put_cf(&self.rows.state, key, value),
                None => batch.delete_cf(&self.rows.state, key),
            }
        }
        let mut advanced = Vec::with_capacity(self.heads.len() + self.inboxes.len());
        for (group, head) in &self.heads {
            advanced.push(Advanced::Group { group_id: group.clone(), seq: head.seq });
        }
        let inboxes = self.inboxes.into_iter();
        advanced.extend(inboxes.map(|(client_id, position)| Advanced::Inbox { client_id, position }));
        (batch, self.heads, advanced)
    }
}

/// Takes the changed keys that come before `key`, if they are not deleted. Leaves one that equals `key`, unless it is behind.
fn take_changed_before(
    changed: &mut Peekable<btree_map::Range<'_, Vec<u8>, Option<Bytes>>>,
    key: &[u8],
    keys: &mut Vec<Vec<u8>>,
) {
    while let Some((changed_key, value)) = changed.peek()
        && changed_key.as_slice() < key
    {
        if value.is_some() {
            keys.push(changed_key.to_vec());
        }
        changed.next();
    }
}
