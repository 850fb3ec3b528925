//! Groups with branches: the fork rules decide, this stores what they say.

use bytes::Bytes;
use concordat_proto::{
    convert::{GroupCommand, facts_in},
    log::v1::{self as log, Refused},
    ordering::v1::{command, outcome::Outcome},
};
use group_log::{
    ClientId, CommitRef, Content, Decision, EntryId, EntryKind, Head, Record, Submission, View,
    fork::{
        Answer, Appended, BranchEntry, Candidate, Command, ForkChange, ForkState, ForkView, LeafId, Payload,
        Recorded, apply,
    },
};
use prost::Message;

use super::{
    apply::Origin,
    batch::Batch,
    branches,
    groups::{self, GroupView},
    keys::RowKey,
    payload::Payloads,
    place::{Place, ReportedAt},
};
use crate::storage::error::StorageError;

/// Decides about a submission to a DeMLS group. True if the state now refers to the log entry.
pub(super) fn submit(
    batch: &mut Batch<'_>,
    submission: Submission,
    facts: Option<&log::CommitFacts>,
    origin: Origin,
) -> Result<(Outcome, bool), StorageError> {
    let facts = match facts_in(facts) {
        Ok(facts) => facts,
        Err(error) => return Ok((Outcome::Refused(Refused::from(&error)), false)),
    };
    let group = submission.group_id.to_bytes();
    run(batch, &group, &Command::Submit { submission, facts }, origin)
}

/// Decides about a command on a group's branches or gateways. True if the state now refers to the log entry.
pub(super) fn command(
    batch: &mut Batch<'_>,
    command: command::Command,
    origin: Origin,
) -> Result<(Outcome, bool), StorageError> {
    match GroupCommand::try_from(command) {
        Ok(GroupCommand { group_id, command }) => run(batch, &group_id.to_bytes(), &command, origin),
        Err(error) => Ok((Outcome::Refused(Refused::from(&error)), false)),
    }
}

fn run(
    batch: &mut Batch<'_>,
    group: &Bytes,
    command: &Command,
    origin: Origin,
) -> Result<(Outcome, bool), StorageError> {
    let head = batch.head(group)?;
    let view = ForkedGroup { view: GroupView { batch, group, head }, payloads: Payloads::new(&batch.rows) };
    let (answer, change) = apply(&view, command).map_err(|error| groups::damaged(batch, error))?;
    let referenced = match change {
        Some(change) => store(batch, group, change, origin)?,
        None => false,
    };
    branches::seen(batch, command, &answer, origin)?;
    let outcome = match answer {
        Answer::Decided(Decision::Superseded { winner_seq }) => {
            Outcome::Superseded(groups::superseded(batch, group, winner_seq, origin)?)
        }
        answer => answer.into(),
    };
    Ok((outcome, referenced))
}

/// Stores what a command changes. True if the state now refers to the log entry.
fn store(
    batch: &mut Batch<'_>,
    group: &Bytes,
    change: ForkChange,
    origin: Origin,
) -> Result<bool, StorageError> {
    let ForkChange { appended, fork, recorded, candidates_cleared, candidates, kept, members } = change;
    let index = origin.index;
    let mut referenced = !kept.is_empty();
    if referenced {
        batch.put(&RowKey::Report { index }, Bytes::new());
    }
    for (id, position) in kept {
        let position = u32::try_from(position).unwrap_or(u32::MAX);
        batch.put(&RowKey::Reported { group, id: &id.0 }, ReportedAt { index, position }.encode());
    }
    let kinds: Vec<EntryKind> = appended.iter().map(|appended| appended.change.record.kind).collect();
    if let Some(last) = appended.last() {
        let head_epoch = last.change.head.epoch;
        branches::note_unstable(batch, group, &kinds, head_epoch, fork.as_ref());
    }
    for Appended { change, payload } in appended {
        let place = match payload {
            Payload::Submission => {
                referenced = true;
                Place::Submission { index }
            }
            Payload::Reported(id) => Place::Report(need_reported(batch, group, &id)?),
            Payload::Mark(mark) => {
                let content = log::Content::from(mark).encode_to_vec();
                batch.put(&RowKey::Mark { group, seq: change.seq }, content);
                Place::Mark
            }
        };
        groups::store(batch, group, change, place, origin)?;
    }
    for (id, recorded) in recorded {
        batch.put(&RowKey::Recorded { group, id: &id.0 }, recorded.encode());
    }
    if candidates_cleared {
        let (first, last) = all_candidates(group);
        for key in batch.keys(&first, &last, usize::MAX)? {
            batch.delete_key(key);
        }
    }
    for candidate in candidates {
        batch.put(&RowKey::Candidate { group, id: &candidate.id.0 }, candidate.encode());
    }
    for (leaf, is_member) in members {
        let key = RowKey::Member { group, leaf: &leaf.0 };
        if is_member { batch.put(&key, Bytes::new()) } else { batch.delete(&key) }
    }
    if let Some(fork) = fork {
        let before = fork_state(batch, group)?;
        branches::index(batch, group, &before, &fork, origin)?;
        batch.put(&RowKey::Fork { group }, fork.encode());
    }
    Ok(referenced)
}

fn all_candidates(group: &[u8]) -> (RowKey<'_>, RowKey<'_>) {
    (RowKey::Candidate { group, id: &[0; 32] }, RowKey::Candidate { group, id: &[0xff; 32] })
}

fn fork_state(batch: &Batch<'_>, group: &[u8]) -> Result<ForkState, StorageError> {
    match batch.get(&RowKey::Fork { group })? {
        Some(row) => ForkState::decode(&row).map_err(|error| batch.rows.bad_row("a fork state", error)),
        None => Ok(ForkState::default()),
    }
}

fn reported_at(batch: &Batch<'_>, group: &[u8], id: &EntryId) -> Result<Option<ReportedAt>, StorageError> {
    batch.get_as(&RowKey::Reported { group, id: &id.0 }, "a reported entry", ReportedAt::decode)
}

fn need_reported(batch: &Batch<'_>, group: &[u8], id: &EntryId) -> Result<ReportedAt, StorageError> {
    let place = reported_at(batch, group, id)?;
    place.ok_or_else(|| batch.rows.bad_row("the place of a reported entry", "it is missing"))
}

/// A DeMLS group as the rules see it.
struct ForkedGroup<'a, 'b> {
    view: GroupView<'a, 'b>,
    payloads: Payloads<'a>,
}

impl ForkedGroup<'_, '_> {
    fn row<T>(
        &self,
        key: &RowKey<'_>,
        what: &str,
        decode: impl Fn(&[u8]) -> Result<T, group_log::DecodeError>,
    ) -> Result<Option<T>, StorageError> {
        let row = self.view.batch.get(key)?;
        row.map(|row| decode(&row).map_err(|error| self.view.batch.rows.bad_row(what, error))).transpose()
    }
}

impl View for ForkedGroup<'_, '_> {
    type Error = StorageError;

    fn head(&self) -> Result<Option<Head>, StorageError> {
        self.view.head()
    }

    fn commit_ending(&self, epoch: u64) -> Result<Option<CommitRef>, StorageError> {
        self.view.commit_ending(epoch)
    }

    fn recent(&self, id: &EntryId) -> Result<Option<u64>, StorageError> {
        self.view.recent(id)
    }

    fn turn_holder(&self, index: u32) -> Result<Option<ClientId>, StorageError> {
        self.view.turn_holder(index)
    }

    fn record(&self, seq: u64) -> Result<Option<Record>, StorageError> {
        self.view.record(seq)
    }
}

impl ForkView for ForkedGroup<'_, '_> {
    fn fork(&self) -> Result<ForkState, StorageError> {
        fork_state(self.view.batch, self.view.group)
    }

    fn recorded(&self, id: &EntryId) -> Result<Option<Recorded>, StorageError> {
        let key = RowKey::Recorded { group: self.view.group, id: &id.0 };
        self.row(&key, "a recorded entry", Recorded::decode)
    }

    fn candidate(&self, id: &EntryId) -> Result<Option<Candidate>, StorageError> {
        let key = RowKey::Candidate { group: self.view.group, id: &id.0 };
        self.row(&key, "a candidate", Candidate::decode)
    }

    fn candidates(&self) -> Result<Vec<Candidate>, StorageError> {
        let (first, last) = all_candidates(self.view.group);
        let rows = self.view.batch.range(&first, &last)?;
        let decode = |row: &Bytes| {
            Candidate::decode(row).map_err(|error| self.view.batch.rows.bad_row("a candidate", error))
        };
        let mut candidates = rows.values().map(decode).collect::<Result<Vec<_>, _>>()?;
        candidates.sort_by_key(|candidate| candidate.ordinal);
        Ok(candidates)
    }

    fn candidate_content(&self, id: &EntryId) -> Result<Option<Content>, StorageError> {
        let Some(at) = reported_at(self.view.batch, self.view.group, id)? else { return Ok(None) };
        let entry = BranchEntry::try_from(self.payloads.reported(at)?);
        entry.map(|entry| Some(entry.content)).map_err(|error| self.payloads.bad(error))
    }

    fn is_member(&self, leaf: &LeafId) -> Result<bool, StorageError> {
        let key = RowKey::Member { group: self.view.group, leaf: &leaf.0 };
        Ok(self.view.batch.get(&key)?.is_some())
    }
}
