//! Reads of a shard's applied state, from any task. Calls block for as long as a read of the disk takes.
//!
//! Each call sees one state, also while entries are applied, purged, or replaced by a snapshot.

use std::sync::Arc;

use bytes::Bytes;
use concordat_proto::{
    log::v1::{self as log, content::Content},
    ordering::v1::{GroupSubmission, Outcome, outcome::Outcome as Answer},
};
use group_log::{ChainHash, GroupKind, Head};
use prost::Message;

use super::{
    apply::Origin,
    batch::Batch,
    groups, heads,
    keys::{RowKey, trailing_number},
    payload::Payloads,
    pruned_reader::pruned,
    rows::{InboxRow, KeyPackagesRow, RecordRow, WelcomeRow, decode_number},
    shard::{Rows, ShardState},
};
use crate::{
    raft::types::ShardId,
    storage::{
        error::StorageError,
        limits::PAGE_ENTRIES,
        log::{LogId, StoredMembership},
        wire::DecodeError,
    },
};

/// Reads are repeated this often when a snapshot takes the place of the state meanwhile.
const READ_ATTEMPTS: usize = 4;

/// Up to so many records are looked up one by one.
const FEW_RECORDS: u64 = 4;

/// Reads one shard's applied state. Cheap to clone.
#[derive(Clone)]
pub struct ShardReader {
    pub(crate) state: Arc<ShardState>,
    /// Keeps the database open.
    pub(crate) _keep: Arc<dyn Send + Sync>,
}

/// The newest GroupInfo of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInfo {
    /// The epoch that it describes. Behind the head's if the last committers published none.
    pub epoch: u64,
    /// MLSMessage with the GroupInfo.
    pub message: Bytes,
}

/// How many KeyPackages of a client are left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyPackageStatus {
    /// To be handed out once.
    pub one_time_left: u32,
    /// There is one of last resort.
    pub has_last_resort: bool,
}

impl ShardReader {
    /// The shard.
    pub fn shard(&self) -> ShardId {
        self.state.shard
    }

    /// The last log entry that is applied.
    pub fn last_applied(&self) -> Option<LogId> {
        self.state.last_applied()
    }

    /// The membership in force at the last applied entry.
    pub fn membership(&self) -> StoredMembership {
        StoredMembership::clone(&self.state.position().membership)
    }

    /// A group's head, or nothing if the group does not exist.
    pub fn head(&self, group: &[u8]) -> Result<Option<Head>, StorageError> {
        match self.state.cached_head(group) {
            Some(head) => Ok(Some(head)),
            None => self.read(|rows| heads::head(rows, group)),
        }
    }

    /// What became of a commit for an epoch that has ended: decided for good, so no consensus is needed to say it. Nothing if its
    /// epoch has not ended here. In a group that takes turns also that it is another member's at `at_ms` (milliseconds since 1970),
    /// which is no outcome.
    pub fn decided(&self, commit: &GroupSubmission, at_ms: u64) -> Result<Option<Outcome>, StorageError> {
        let Some(head) = self.head(&commit.group_id)? else { return Ok(None) };
        let has_branches = head.kind == GroupKind::Demls;
        let has_ended = commit.epoch < head.epoch;
        let takes_turns = head.turn.is_some() && commit.epoch == head.epoch;
        let is_known = has_ended || takes_turns || (has_branches && self.is_collecting(&commit.group_id)?);
        if !is_known {
            return Ok(None);
        }
        // The rules decide as they would when applying; what they would change is dropped.
        let mut batch = Batch::new(&self.state)?;
        let origin = Origin { index: 0, at_ms, wanted: true };
        let (answer, _) = groups::submit(&mut batch, commit.clone(), origin)?;
        let is_for_good = match &answer {
            Answer::Refused(refused) if takes_turns => refused.reason() == log::Reason::NotYourTurn,
            _ if takes_turns => false,
            Answer::Accepted(_) | Answer::Superseded(_) | Answer::OnSide(_) => true,
            // Not an outcome: it can be said without consensus.
            Answer::Reconciling(_) => true,
            // What this node does not know yet may be known to others.
            _ => !has_branches,
        };
        Ok(is_for_good.then_some(Outcome { outcome: Some(answer) }))
    }

    /// Entries of a group after `after_seq`, in order. Stops after `max_entries` (at most [`PAGE_ENTRIES`]), or when the next
    /// would exceed `max_bytes` (but gives at least one). Empty if there is none, or no such group. [`StorageError::Pruned`] if the
    /// next was given up.
    pub fn entries(
        &self,
        group: &[u8],
        after_seq: u64,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Vec<log::Entry>, StorageError> {
        self.read(|rows| {
            let page = self.page(rows, group, after_seq, max_entries.min(PAGE_ENTRIES), max_bytes);
            self.unless_pruned(rows, group, after_seq, page)
        })
    }

    fn page(
        &self,
        rows: &Rows<'_>,
        group: &[u8],
        after_seq: u64,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Vec<log::Entry>, StorageError> {
        let records = self.records(rows, group, after_seq, max_entries)?;
        let (mut entries, mut bytes) = (Vec::with_capacity(records.len()), 0);
        let payloads = Payloads::new(rows);
        for (seq, row) in records {
            let entry = groups::entry(&payloads, group, seq, row)?;
            bytes += entry.encoded_len();
            if bytes > max_bytes && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// Chain hash of a group's entry, for checking a reader's cursor. Nothing if there is no such entry.
    pub fn entry_chain(&self, group: &[u8], seq: u64) -> Result<Option<ChainHash>, StorageError> {
        self.read(|rows| {
            let row = get_as(rows, &RowKey::Record { group, seq }, |row| RecordRow::decode(&row))?;
            Ok(row.map(|row| row.record.chain))
        })
    }

    /// A group's newest GroupInfo. Nothing if there is no such group.
    pub fn group_info(&self, group: &[u8]) -> Result<Option<GroupInfo>, StorageError> {
        self.read(|rows| {
            let mut newest = heads::head(rows, group)?;
            loop {
                let Some(head) = newest else { return Ok(None) };
                match group_info_at(rows, group, &head) {
                    // It can be given up in the very moment in which another one takes its place.
                    Err(StorageError::Corrupt { .. }) if self.is_replaced(rows, group, &head)? => {
                        newest = heads::head(rows, group)?;
                    }
                    message => {
                        return message
                            .map(|message| Some(GroupInfo { epoch: head.group_info_epoch, message }));
                    }
                }
            }
        })
    }

    fn is_replaced(&self, rows: &Rows<'_>, group: &[u8], old: &Head) -> Result<bool, StorageError> {
        Ok(heads::head(rows, group)?.is_some_and(|head| head.group_info_seq > old.group_info_seq))
    }

    /// The shard that a group lives in. For the directory shard.
    pub fn locate(&self, group: &[u8]) -> Result<Option<ShardId>, StorageError> {
        self.read(|rows| {
            let shard = get_as(rows, &RowKey::ShardOf { group }, decode_number)?;
            let shard = shard.map(ShardId::try_from).transpose();
            shard.map_err(|error| rows.bad_row("the place of a group", error))
        })
    }

    /// Welcomes that wait for a client after a position, oldest first, at most those of `max` positions. Usually there is one at a
    /// position; the close of a collection can bring several.
    pub fn inbox(
        &self,
        client: &[u8],
        after: u64,
        max: usize,
    ) -> Result<Vec<log::PendingWelcome>, StorageError> {
        self.read(|rows| {
            let Some(inbox) = get_as(rows, &RowKey::Inbox { client }, InboxRow::decode)? else {
                return Ok(Vec::new());
            };
            let Some(first) = after.max(inbox.after).checked_add(1) else { return Ok(Vec::new()) };
            let mut waiting = Vec::new();
            let start = RowKey::Welcome { client, position: first }.encode();
            let end = RowKey::Welcome { client, position: u64::MAX }.encode();
            rows.scan(&start, end, max, |key, value| {
                let bad = |error: DecodeError| rows.bad_row("a waiting Welcome", error);
                let position = trailing_number(key).map_err(bad)?;
                let rows = WelcomeRow::decode_all(Bytes::copy_from_slice(value)).map_err(bad)?;
                waiting.extend(rows.into_iter().map(|row| (position, row)));
                Ok(true)
            })?;
            let payloads = Payloads::new(rows);
            let mut welcomes = Vec::with_capacity(waiting.len());
            for (position, row) in waiting {
                let (group, seq) = (row.group.clone(), row.seq);
                match self.welcome(&payloads, client, position, row) {
                    Ok(welcome) => welcomes.push(welcome),
                    // It was given up in this very moment, together with its commit.
                    Err(StorageError::Corrupt { .. }) if seq <= pruned(rows, &group)?.seq => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(welcomes)
        })
    }

    /// How many KeyPackages of a client are left. For the directory shard.
    pub fn key_package_status(&self, client: &[u8]) -> Result<KeyPackageStatus, StorageError> {
        self.read(|rows| {
            let row =
                get_as(rows, &RowKey::KeyPackages { client }, KeyPackagesRow::decode)?.unwrap_or_default();
            Ok(KeyPackageStatus {
                one_time_left: u32::try_from(row.one_time_left()).unwrap_or(u32::MAX),
                has_last_resort: row.has_last_resort,
            })
        })
    }

    /// Records after `after_seq`, in order, at most `max`.
    fn records(
        &self,
        rows: &Rows<'_>,
        group: &[u8],
        after_seq: u64,
        max: usize,
    ) -> Result<Vec<(u64, RecordRow)>, StorageError> {
        let Some(head) = self.cached_or_stored_head(rows, group)? else { return Ok(Vec::new()) };
        if after_seq >= head.seq {
            return Ok(Vec::new());
        }
        let last = head.seq.min(after_seq.saturating_add(max as u64));
        let mut records = Vec::new();
        if last.saturating_sub(after_seq) <= FEW_RECORDS {
            // A reader that keeps up needs the newest records only: looking each up costs less than a scan.
            for seq in after_seq + 1..=last {
                let row = get_as(rows, &RowKey::Record { group, seq }, |row| RecordRow::decode(&row))?;
                records.push((seq, row.ok_or_else(|| rows.bad_row("a record", "it is missing"))?));
            }
            return Ok(records);
        }
        let start = RowKey::Record { group, seq: after_seq + 1 }.encode();
        let end = RowKey::Record { group, seq: last + 1 }.encode();
        rows.scan(&start, end, max, |key, value| {
            let seq = trailing_number(key).map_err(|error| rows.bad_row("a record", error))?;
            let row = RecordRow::decode(value).map_err(|error| rows.bad_row("a record", error))?;
            records.push((seq, row));
            Ok(true)
        })?;
        if records.first().is_some_and(|(first, _)| *first != after_seq + 1) {
            return Err(rows.bad_row("a record", "it is missing"));
        }
        Ok(records)
    }

    fn cached_or_stored_head(&self, rows: &Rows<'_>, group: &[u8]) -> Result<Option<Head>, StorageError> {
        match self.state.cached_head(group) {
            Some(head) => Ok(Some(head)),
            None => heads::head(rows, group),
        }
    }

    fn welcome(
        &self,
        payloads: &Payloads<'_>,
        client: &[u8],
        position: u64,
        row: WelcomeRow,
    ) -> Result<log::PendingWelcome, StorageError> {
        let (content, _) = payloads.content(&row.group, row.seq, row.place)?;
        let Some(Content::Commit(commit)) = content.content else {
            return Err(payloads.bad("the entry of a Welcome is no commit"));
        };
        let of_client = commit.recipients.into_iter().filter(|to| to.client_id == client);
        let mut key_package_refs: Vec<Bytes> = of_client.map(|to| to.key_package_ref).collect();
        key_package_refs.sort();
        key_package_refs.dedup();
        let place = log::ShardPosition { shard: self.state.shard, position };
        Ok(log::PendingWelcome {
            cursor: Some(log::InboxCursor { positions: vec![place] }),
            group_id: row.group,
            seq: row.seq,
            chain_hash: row.chain.to_bytes(),
            state_id: row.state_id.to_bytes(),
            epoch: row.epoch,
            kind: log::GroupKind::from(row.kind).into(),
            welcome: commit.welcome,
            key_package_refs,
        })
    }

    /// Reads from one generation of the state. What fails because another one began meanwhile is read again.
    pub(super) fn read<T>(
        &self,
        read: impl Fn(&Rows<'_>) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        for _ in 1..READ_ATTEMPTS {
            let rows = self.state.rows()?;
            match read(&rows) {
                Err(StorageError::Corrupt { .. }) if !Arc::ptr_eq(&rows.current, &self.state.current()) => {}
                result => return result,
            }
        }
        read(&self.state.rows()?)
    }
}

fn group_info_at(rows: &Rows<'_>, group: &[u8], head: &Head) -> Result<Bytes, StorageError> {
    let seq = head.group_info_seq;
    let Some(row) = get_as(rows, &RowKey::Record { group, seq }, |row| RecordRow::decode(&row))? else {
        return Err(rows.bad_row("the record of a GroupInfo", "it is missing"));
    };
    let (content, _) = Payloads::new(rows).content(group, seq, row.place)?;
    match content.content {
        Some(Content::Create(create)) => Ok(create.group_info),
        Some(Content::Commit(commit)) => Ok(commit.group_info),
        _ => Err(rows.bad_row("the entry of a GroupInfo", "it holds none")),
    }
}

pub(super) fn get_as<T, E: std::fmt::Display>(
    rows: &Rows<'_>,
    key: &RowKey<'_>,
    decode: impl Fn(Bytes) -> Result<T, E>,
) -> Result<Option<T>, StorageError> {
    let row = rows.get(&key.encode())?;
    row.map(|row| decode(row).map_err(|error| rows.bad_row("a row", error))).transpose()
}
