//! Which commit ended an epoch. The records of a log say it: epochs only grow along it, so a search that begins at its end finds the
//! commit in a number of steps that grows with the logarithm of how far it lies back. Only what the records can not say has rows of
//! its own: logs of DeMLS groups, and what retention gave up.

use bytes::Bytes;
use group_log::{CommitRef, EntryKind, GroupKind, Head};

use super::{batch::Batch, groups::record_row, keys::RowKey, prune::pruned, rows::RecordRow};
use crate::storage::error::StorageError;

/// Whether commits of the group have rows of their own from the start.
pub(super) fn has_rows(head: &Head) -> bool {
    head.kind != GroupKind::Mls
}

/// The commit that ended `epoch`. Nothing if the epoch has not ended, or is before the log.
pub(super) fn commit_ending(
    batch: &Batch<'_>,
    group: &[u8],
    head: Option<&Head>,
    epoch: u64,
) -> Result<Option<CommitRef>, StorageError> {
    let Some(head) = head else { return Ok(None) };
    if !has_rows(head) {
        if epoch < head.first_epoch || epoch >= head.epoch {
            return Ok(None);
        }
        let first = pruned(batch, group)?.seq + 1;
        if need_record(batch, group, first)?.record.epoch_after <= epoch {
            let seq = first_after(batch, group, first, head.seq, epoch)?;
            return commit_at(batch, group, seq).map(Some);
        }
    }
    let row = batch.get(&RowKey::Commit { group, epoch })?;
    let decode =
        |row: Bytes| CommitRef::decode(&row).map_err(|error| batch.rows.bad_row("a commit reference", error));
    row.map(decode).transpose()
}

/// The first entry after which the group is past `epoch`. After `before` it is not, after `last` it is.
fn first_after(
    batch: &Batch<'_>,
    group: &[u8],
    before: u64,
    last: u64,
    epoch: u64,
) -> Result<u64, StorageError> {
    let (mut before, mut after, mut step) = (before, last, 1);
    // Most who ask are a little late.
    while after - before > step {
        let probe = after - step;
        if need_record(batch, group, probe)?.record.epoch_after <= epoch {
            before = probe;
            break;
        }
        after = probe;
        step *= 2;
    }
    while after - before > 1 {
        let middle = before + (after - before) / 2;
        match need_record(batch, group, middle)?.record.epoch_after <= epoch {
            true => before = middle,
            false => after = middle,
        }
    }
    Ok(after)
}

fn commit_at(batch: &Batch<'_>, group: &[u8], seq: u64) -> Result<CommitRef, StorageError> {
    let record = need_record(batch, group, seq)?.record;
    if record.kind != EntryKind::Commit {
        return Err(batch
            .rows
            .bad_row("the record of a commit", format!("entry {seq} is a {:?}", record.kind)));
    }
    let parent = need_record(batch, group, seq - 1)?.record.state_after;
    Ok(CommitRef { seq, parent, state_id: record.state_id, chain: record.chain })
}

/// Gives the commit at `seq` a row of its own, if it is one: the record before it, or its own, is about to go.
pub(super) fn keep(batch: &mut Batch<'_>, group: &Bytes, seq: u64) -> Result<(), StorageError> {
    let record = need_record(batch, group, seq)?.record;
    if record.kind == EntryKind::Commit {
        let key = RowKey::Commit { group, epoch: record.epoch };
        if batch.get(&key)?.is_none() {
            let commit = commit_at(batch, group, seq)?;
            batch.put(&key, commit.encode());
        }
    }
    Ok(())
}

fn need_record(batch: &Batch<'_>, group: &[u8], seq: u64) -> Result<RecordRow, StorageError> {
    record_row(batch, group, seq)?
        .ok_or_else(|| batch.rows.bad_row("a record", format!("entry {seq} has none")))
}
