//! Groups' logs: the rules decide, this stores what they say. Groups with branches are in [`forks`](super::forks).

use bytes::Bytes;
use concordat_proto::{
    log::v1::{self as log, Refused},
    ordering::v1::{GroupSubmission, outcome::Outcome},
};
use group_log::{
    Change, ClientId, CommitRef, Content, Decision, EntryId, GroupKind, Head, Offer, Pruned, ReadError,
    Record, Submission, View,
};

use super::{
    apply::Origin,
    batch::Batch,
    epochs, forks, heads, inbox,
    keys::RowKey,
    payload::Payloads,
    place::Place,
    prune,
    rows::{RecordRow, WelcomeRow},
};
use crate::storage::error::StorageError;

/// Decides about a submission and stores what it changes. True if the state now refers to the log entry.
pub(super) fn submit(
    batch: &mut Batch<'_>,
    submission: GroupSubmission,
    origin: Origin,
) -> Result<(Outcome, bool), StorageError> {
    let facts = submission.facts.clone();
    let offer = Offer { at_ms: origin.at_ms, members_only: submission.members_only };
    let submission = match Submission::try_from(submission) {
        Ok(submission) => submission,
        Err(error) => return Ok((Outcome::Refused(Refused::from(&error)), false)),
    };
    let group = submission.group_id.to_bytes();
    let head = batch.head(&group)?;
    if has_branches(head.as_ref(), &submission.content) {
        return forks::submit(batch, submission, facts.as_ref(), origin);
    }
    let view = GroupView { batch, group: &group, head };
    let (decision, change) =
        group_log::apply(&view, &submission, offer).map_err(|error| damaged(batch, error))?;
    let referenced = change.is_some();
    if let Some(change) = change {
        store(batch, &group, change, Place::Submission { index: origin.index }, origin)?;
    }
    let outcome = match decision {
        Decision::Accepted(accepted) => Outcome::Accepted(accepted.into()),
        Decision::Refused(refusal) => Outcome::Refused(Refused::from(&refusal)),
        Decision::Superseded { winner_seq } => {
            Outcome::Superseded(superseded(batch, &group, winner_seq, origin)?)
        }
    };
    Ok((outcome, referenced))
}

fn has_branches(head: Option<&Head>, content: &Content) -> bool {
    let created = if let Content::Create(create) = content { Some(create.kind) } else { None };
    head.map(|head| head.kind).or(created) == Some(GroupKind::Demls)
}

/// What the rules miss in the state is damage.
pub(super) fn damaged(batch: &Batch<'_>, error: ReadError<StorageError>) -> StorageError {
    match error {
        ReadError::View(error) => error,
        ReadError::Missing { what } => StorageError::Corrupt {
            what: format!("the state of shard {}", batch.state.shard),
            detail: format!("{what} is missing"),
        },
    }
}

/// Stores a new entry whose payload is at `place`.
pub(super) fn store(
    batch: &mut Batch<'_>,
    group: &Bytes,
    change: Change,
    place: Place,
    origin: Origin,
) -> Result<(), StorageError> {
    let Change { head, seq, record, commit_ending, recent_put, recent_delete, turn_order, welcomes } = change;
    if let Some((epoch, commit)) = commit_ending
        && epochs::has_rows(&head)
    {
        batch.put(&RowKey::Commit { group, epoch }, commit.encode());
    }
    if let Some(id) = recent_delete {
        batch.delete(&RowKey::Recent { group, id: id.as_bytes() });
    }
    if let Some(id) = recent_put {
        batch.put_number(&RowKey::Recent { group, id: id.as_bytes() }, seq);
    }
    if let Some(order) = turn_order {
        let members = batch.head(group)?.and_then(|head| head.turn).map_or(0, |turn| turn.members);
        for index in order.len() as u32..members {
            batch.delete(&RowKey::Turn { group, index });
        }
        for (index, client) in (0..).zip(order) {
            batch.put(&RowKey::Turn { group, index }, client.to_bytes());
        }
    }
    if !welcomes.is_empty() {
        let row = WelcomeRow {
            group: group.clone(),
            seq,
            epoch: record.epoch_after,
            state_id: record.state_after,
            chain: record.chain,
            kind: head.kind,
            place,
        };
        for note in welcomes {
            inbox::deliver(batch, note.client_id.to_bytes(), origin.index, &row)?;
        }
    }
    if heads::is_stored(&record, &head) {
        batch.put(&RowKey::Head { group }, head.encode());
    }
    let has_group_info = head.group_info_seq == seq;
    batch.put(&RowKey::Record { group, seq }, RecordRow { place, has_group_info, record }.encode());
    batch.set_head(group, head);
    Ok(())
}

/// The answer for a commit that lost to the entry `seq`. That entry is read only if somebody waits for it.
pub(super) fn superseded(
    batch: &Batch<'_>,
    group: &[u8],
    seq: u64,
    origin: Origin,
) -> Result<log::Superseded, StorageError> {
    let winner = if origin.wanted { Some(winner(batch, group, seq)?) } else { None };
    Ok(log::Superseded { winner: winner.flatten() })
}

/// Nothing if the entry was given up since.
fn winner(batch: &Batch<'_>, group: &[u8], seq: u64) -> Result<Option<log::Entry>, StorageError> {
    match record_row(batch, group, seq)? {
        Some(RecordRow { place: Place::Pruned, .. }) => Ok(None),
        Some(row) => entry(&Payloads::new(&batch.rows), group, seq, row).map(Some),
        None if seq <= prune::pruned(batch, group)?.seq => Ok(None),
        None => Err(StorageError::Corrupt {
            what: format!("the state of shard {}", batch.state.shard),
            detail: "the record of a commit that ended an epoch is missing".into(),
        }),
    }
}

pub(super) fn record_row(
    batch: &Batch<'_>,
    group: &[u8],
    seq: u64,
) -> Result<Option<RecordRow>, StorageError> {
    let row = batch.get(&RowKey::Record { group, seq })?;
    row.map(|row| RecordRow::decode(&row).map_err(|error| batch.rows.bad_row("a record", error))).transpose()
}

/// An entry of a group's log, put together from its record and its payload.
pub(super) fn entry(
    payloads: &Payloads<'_>,
    group: &[u8],
    seq: u64,
    row: RecordRow,
) -> Result<log::Entry, StorageError> {
    let (content, facts) = payloads.content(group, seq, row.place)?;
    let Record { epoch, state_id, chain, author, .. } = row.record;
    Ok(log::Entry {
        seq,
        chain_hash: chain.to_bytes(),
        epoch,
        state_id: state_id.to_bytes(),
        author: author.map(|author| author.to_bytes()).unwrap_or_default(),
        content: Some(content),
        facts,
    })
}

/// One group as the rules see it.
pub(super) struct GroupView<'a, 'b> {
    pub(super) batch: &'a Batch<'b>,
    pub(super) group: &'a [u8],
    pub(super) head: Option<Head>,
}

impl View for GroupView<'_, '_> {
    type Error = StorageError;

    fn head(&self) -> Result<Option<Head>, StorageError> {
        Ok(self.head)
    }

    fn commit_ending(&self, epoch: u64) -> Result<Option<CommitRef>, StorageError> {
        epochs::commit_ending(self.batch, self.group, self.head.as_ref(), epoch)
    }

    fn recent(&self, id: &EntryId) -> Result<Option<u64>, StorageError> {
        self.batch.get_number(&RowKey::Recent { group: self.group, id: id.as_bytes() }, "a recent entry")
    }

    fn turn_holder(&self, index: u32) -> Result<Option<ClientId>, StorageError> {
        let decode = |row: Bytes| {
            ClientId::new(row)
                .map_err(|error| self.batch.rows.bad_row("a member in the order of turns", error))
        };
        self.batch.get(&RowKey::Turn { group: self.group, index })?.map(decode).transpose()
    }

    fn record(&self, seq: u64) -> Result<Option<Record>, StorageError> {
        Ok(record_row(self.batch, self.group, seq)?.map(|row| row.record))
    }

    fn pruned(&self) -> Result<Pruned, StorageError> {
        prune::pruned(self.batch, self.group)
    }
}
