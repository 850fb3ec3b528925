//! Groups' logs: the rules decide, this stores what they say.

use bytes::Bytes;
use concordat_proto::{
    log::v1::{self as log, Refused},
    ordering::v1::{Command, GroupSubmission, command, outcome::Outcome},
};
use group_log::{Change, CommitRef, Decision, EntryId, Head, ReadError, Record, Submission, View};
use prost::Message;

use super::{
    batch::Batch,
    inbox,
    keys::RowKey,
    rows::{RecordRow, WelcomeRow},
    shard::Rows,
};
use crate::storage::error::StorageError;

/// Decides about a submission and stores what it changes. True if the state now refers to the log entry.
///
/// `wanted`: somebody waits for the outcome, so a winner is read for it.
pub(super) fn submit(
    batch: &mut Batch<'_>,
    submission: GroupSubmission,
    index: u64,
    wanted: bool,
) -> Result<(Outcome, bool), StorageError> {
    let submission = match Submission::try_from(submission) {
        Ok(submission) => submission,
        Err(error) => return Ok((Outcome::Refused(Refused::from(&error)), false)),
    };
    let group = submission.group_id.to_bytes();
    let view = GroupView { batch, group: &group };
    let (decision, change) = group_log::apply(&view, &submission).map_err(|error| match error {
        ReadError::View(error) => error,
        ReadError::Missing { what } => StorageError::Corrupt {
            what: format!("the state of shard {}", batch.state.shard),
            detail: format!("{what} is missing"),
        },
    })?;
    let referenced = change.is_some();
    if let Some(change) = change {
        store(batch, &group, change, index)?;
    }
    let outcome = match decision {
        Decision::Accepted(accepted) => Outcome::Accepted(accepted.into()),
        Decision::Refused(refusal) => Outcome::Refused(Refused::from(&refusal)),
        Decision::Superseded { winner_seq } => {
            let winner = if wanted { Some(winner(batch, &group, winner_seq)?) } else { None };
            Outcome::Superseded(log::Superseded { winner })
        }
    };
    Ok((outcome, referenced))
}

fn store(batch: &mut Batch<'_>, group: &Bytes, change: Change, index: u64) -> Result<(), StorageError> {
    let Change { head, seq, record, commit_ending, recent_put, recent_delete, welcomes } = change;
    if let Some((epoch, commit)) = commit_ending {
        batch.put(&RowKey::Commit { group, epoch }, commit.encode());
    }
    if let Some(id) = recent_delete {
        batch.delete(&RowKey::Recent { group, id: id.as_bytes() });
    }
    if let Some(id) = recent_put {
        batch.put_number(&RowKey::Recent { group, id: id.as_bytes() }, seq);
    }
    if !welcomes.is_empty() {
        let row = WelcomeRow {
            group: group.clone(),
            seq,
            epoch: record.epoch_after,
            state_id: record.state_after,
            chain: record.chain,
            kind: head.kind,
        };
        for note in welcomes {
            inbox::deliver(batch, note.client_id.to_bytes(), index, &row)?;
        }
    }
    batch.put(&RowKey::Record { group, seq }, RecordRow { index, record }.encode());
    batch.set_head(group, head);
    Ok(())
}

fn winner(batch: &Batch<'_>, group: &[u8], seq: u64) -> Result<log::Entry, StorageError> {
    let row = record_row(batch, group, seq)?.ok_or_else(|| StorageError::Corrupt {
        what: format!("the state of shard {}", batch.state.shard),
        detail: "the record of a commit that ended an epoch is missing".into(),
    })?;
    entry(&batch.rows, seq, row)
}

fn record_row(batch: &Batch<'_>, group: &[u8], seq: u64) -> Result<Option<RecordRow>, StorageError> {
    let row = batch.get(&RowKey::Record { group, seq })?;
    row.map(|row| RecordRow::decode(&row).map_err(|error| batch.rows.bad_row("a record", error))).transpose()
}

/// An entry of a group's log, put together from its record and its payload.
pub(super) fn entry(rows: &Rows<'_>, seq: u64, row: RecordRow) -> Result<log::Entry, StorageError> {
    let content = content(rows, row.index)?;
    let Record { epoch, state_id, chain, author, .. } = row.record;
    Ok(log::Entry {
        seq,
        chain_hash: chain.to_bytes(),
        epoch,
        state_id: state_id.to_bytes(),
        author: author.map(|author| author.to_bytes()).unwrap_or_default(),
        content: Some(content),
        facts: None,
    })
}

/// What the group submission in a log entry carries.
pub(super) fn content(rows: &Rows<'_>, index: u64) -> Result<log::Content, StorageError> {
    let bad = |error: &dyn std::fmt::Display| rows.bad_row("the payload of an entry", error);
    let command = Command::decode(rows.command(index)?.command).map_err(|error| bad(&error))?;
    match command.command {
        Some(command::Command::Group(GroupSubmission { content: Some(content), .. })) => Ok(content),
        _ => Err(bad(&"it is no group submission")),
    }
}

/// One group as the rules see it.
struct GroupView<'a, 'b> {
    batch: &'a Batch<'b>,
    group: &'a [u8],
}

impl View for GroupView<'_, '_> {
    type Error = StorageError;

    fn head(&self) -> Result<Option<Head>, StorageError> {
        self.batch.head(self.group)
    }

    fn commit_ending(&self, epoch: u64) -> Result<Option<CommitRef>, StorageError> {
        let row = self.batch.get(&RowKey::Commit { group: self.group, epoch })?;
        let decode = |row: Bytes| {
            CommitRef::decode(&row).map_err(|error| self.batch.rows.bad_row("a commit reference", error))
        };
        row.map(decode).transpose()
    }

    fn recent(&self, id: &EntryId) -> Result<Option<u64>, StorageError> {
        self.batch.get_number(&RowKey::Recent { group: self.group, id: id.as_bytes() }, "a recent entry")
    }

    fn record(&self, seq: u64) -> Result<Option<Record>, StorageError> {
        Ok(record_row(self.batch, self.group, seq)?.map(|row| row.record))
    }
}
