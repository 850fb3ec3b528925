//! Retention: gives up the beginning of a group's log, as the rules allow it.
//!
//! Records say that their content is gone, and what no row refers to any more is noted: the sweeper removes it from the disk once this
//! command can not be undone by a crash.

use bytes::Bytes;
use concordat_proto::{
    convert,
    log::v1::{Refused, content::Content},
    ordering::v1::{GroupPruned, PruneGroup, outcome::Outcome},
};
use group_log::{EntryKind, Prune, Pruned};

use super::{
    apply::Origin,
    batch::Batch,
    epochs,
    groups::{self, GroupView},
    inbox,
    keys::RowKey,
    payload::Payloads,
    place::Place,
    rows::RecordRow,
};
use crate::storage::error::StorageError;

/// Carries out one step.
pub(super) fn prune(
    batch: &mut Batch<'_>,
    command: PruneGroup,
    origin: Origin,
) -> Result<Outcome, StorageError> {
    let group = match convert::group_id("group_id", command.group_id) {
        Ok(group) => group.to_bytes(),
        Err(error) => return Ok(Outcome::Refused(Refused::from(&error))),
    };
    let head = batch.head(&group)?;
    let view = GroupView { batch, group: &group, head };
    let step = group_log::prune(&view, command.upto_seq).map_err(|error| groups::damaged(batch, error))?;
    let Some(Prune { contents, records, pruned }) = step else {
        let pruned_seq = pruned(batch, &group)?.seq;
        return Ok(Outcome::GroupPruned(GroupPruned { pruned_seq, entries: 0 }));
    };
    let entries = contents.end() - contents.start() + 1;
    // Records go, sooner or later: what they say of epochs stays.
    for seq in (*contents.start()).max(2)..=contents.end() + 1 {
        epochs::keep(batch, &group, seq)?;
    }
    for seq in contents {
        give_up(batch, &group, seq, origin)?;
    }
    for seq in records {
        batch.delete(&RowKey::Record { group: &group, seq });
    }
    batch.put(&RowKey::Pruned { group: &group }, pruned.encode());
    Ok(Outcome::GroupPruned(GroupPruned { pruned_seq: pruned.seq, entries }))
}

fn give_up(batch: &mut Batch<'_>, group: &Bytes, seq: u64, origin: Origin) -> Result<(), StorageError> {
    let Some(row) = groups::record_row(batch, group, seq)? else {
        return Err(batch.rows.bad_row("a record", "it is missing"));
    };
    // Only logs of MLS groups are pruned, and all their entries came as submissions.
    let Place::Submission { index } = row.place else {
        return Err(batch.rows.bad_row("the place of an entry that is given up", "it is no submission"));
    };
    if row.record.kind == EntryKind::Commit {
        withdraw_welcomes(batch, group, seq, index)?;
    }
    batch.dropped_after(index, origin.index);
    batch.put(&RowKey::Record { group, seq }, RecordRow { place: Place::Pruned, ..row }.encode());
    Ok(())
}

/// Welcomes are in their commits: those that still wait go with them.
fn withdraw_welcomes(batch: &mut Batch<'_>, group: &Bytes, seq: u64, index: u64) -> Result<(), StorageError> {
    let (content, _) = Payloads::new(&batch.rows).content(group, seq, Place::Submission { index })?;
    let Some(Content::Commit(commit)) = content.content else {
        return Err(batch.rows.bad_row("the content of a commit", "it is something else"));
    };
    for recipient in commit.recipients {
        inbox::withdraw(batch, &recipient.client_id, index)?;
    }
    Ok(())
}

/// What was given up of a group's log.
pub(super) fn pruned(batch: &Batch<'_>, group: &[u8]) -> Result<Pruned, StorageError> {
    let row = batch.get(&RowKey::Pruned { group })?;
    let decode =
        |row: Bytes| Pruned::decode(&row).map_err(|error| batch.rows.bad_row("what was pruned", error));
    Ok(row.map(decode).transpose()?.unwrap_or_default())
}
