//! What becomes of a submission, read off the group's head and at most two more lookups.

use super::{Accepted, Decision, change::NewEntry};
use crate::{
    content::{CommitRef, Content, Create, EntryKind, Record, Submission},
    hash::{create_state_id, entry_id},
    head::Head,
    ids::{ClientId, EntryId, StateId},
    limits::TURNS_AHEAD,
    refusal::Refusal,
    turns::{Offer, Turn, only_mls},
    view::{ReadError, View},
};

/// A decision that stands already, or an entry to be made.
pub(super) enum Verdict {
    Known(Decision),
    New(Box<NewEntry>),
}

pub(super) fn decide<V: View>(
    view: &V,
    submission: &Submission,
    offer: Offer,
) -> Result<Verdict, ReadError<V::Error>> {
    let head = view.head()?;
    match (&submission.content, head) {
        (Content::Create(create), head) => decide_create(view, submission, create, head),
        (_, None) => Ok(refused(Refusal::GroupNotFound)),
        (Content::Commit(_), Some(head)) => decide_commit(view, submission, offer, head),
        (_, Some(head)) => decide_other(view, submission, head),
    }
}

fn decide_create<V: View>(
    view: &V,
    submission: &Submission,
    create: &Create,
    head: Option<Head>,
) -> Result<Verdict, ReadError<V::Error>> {
    let state_id = create_state_id(&submission.group_id, submission.epoch, &create.group_info);
    let id = entry_id(&state_id, &submission.content);
    if head.is_none() {
        return Ok(new_entry(None, id, state_id));
    }
    let first = record(view, 1)?;
    Ok(if first.id == id {
        accepted_before(1, &first)
    } else {
        refused(Refusal::GroupExists { expected: first.id, got: id })
    })
}

/// A commit is compare-and-swap on the epoch and the state. One for a past epoch is answered from the commit that ended that
/// epoch, so that the answer stays the same forever, without an index of its own.
fn decide_commit<V: View>(
    view: &V,
    submission: &Submission,
    offer: Offer,
    head: Head,
) -> Result<Verdict, ReadError<V::Error>> {
    if let Some(refusal) = outside(submission.epoch, head.first_epoch, &head) {
        return Ok(refused(refusal));
    }
    if submission.epoch < head.epoch {
        let winner = commit_ending(view, submission.epoch)?;
        let same_parent = submission.parent_state_id.is_none_or(|parent| parent == winner.parent);
        let same = same_parent && entry_id(&winner.parent, &submission.content) == winner.state_id.into();
        return Ok(Verdict::Known(if same {
            Decision::Accepted(Accepted {
                seq: winner.seq,
                epoch: submission.epoch + 1,
                state_id: winner.state_id,
                chain: winner.chain,
            })
        } else {
            Decision::Superseded { winner_seq: winner.seq }
        }));
    }
    if let Some(refusal) = closed(&head).or_else(|| wrong_state(submission, &head.state_id)) {
        return Ok(refused(refusal));
    }
    if let Some(refusal) = out_of_turn(view, submission, offer, &head)? {
        return Ok(refused(refusal));
    }
    let id = entry_id(&head.state_id, &submission.content);
    Ok(new_entry(Some(head), id, id.as_state()))
}

/// In a group that takes turns, a commit that changes more than the members is for whoever's turn it is. Refused, not decided: the
/// same bytes are accepted when the turn has come.
fn out_of_turn<V: View>(
    view: &V,
    submission: &Submission,
    offer: Offer,
    head: &Head,
) -> Result<Option<Refusal>, ReadError<V::Error>> {
    let Some(turn) = head.turn.filter(|_| !offer.members_only) else { return Ok(None) };
    let turn = turn.at(offer.at_ms);
    let holder = view.turn_holder(turn.index)?;
    let holder = holder.ok_or(ReadError::Missing { what: "a member in the order of turns" })?;
    if holder == submission.author {
        return Ok(None);
    }
    let left_ms = turn.left_ms(offer.at_ms);
    let retry_after_ms = left_ms + turns_between(view, turn, &submission.author)? * u64::from(turn.turn_ms);
    Ok(Some(Refusal::NotYourTurn { holder: turn.index, left_ms, retry_after_ms }))
}

/// How many turns of others come between this one and the next of `author`, as far as is looked ahead. None if it is not in the order:
/// that may change.
fn turns_between<V: View>(view: &V, turn: Turn, author: &ClientId) -> Result<u64, ReadError<V::Error>> {
    let others = turn.members - 1;
    for ahead in 0..others.min(TURNS_AHEAD) {
        let index = (u64::from(turn.index) + 1 + u64::from(ahead)) % u64::from(turn.members);
        if view.turn_holder(index as u32)?.as_ref() == Some(author) {
            return Ok(ahead.into());
        }
    }
    Ok(if others > TURNS_AHEAD { TURNS_AHEAD.into() } else { 0 })
}

/// Proposals, application messages, policy changes and the close: recognised by their id first, then held against the head.
fn decide_other<V: View>(
    view: &V,
    submission: &Submission,
    head: Head,
) -> Result<Verdict, ReadError<V::Error>> {
    if let Some(refusal) = outside(submission.epoch, head.first_epoch, &head) {
        return Ok(refused(refusal));
    }
    let state_id = match submission.epoch {
        epoch if epoch == head.epoch => head.state_id,
        epoch => commit_ending(view, epoch)?.parent,
    };
    if let Some(refusal) = wrong_state(submission, &state_id) {
        return Ok(refused(refusal));
    }
    let kind = submission.content.kind();
    let id = entry_id(&state_id, &submission.content);
    if let Some(seq) = known(view, kind, &id, &head)? {
        return Ok(accepted_before(seq, &record(view, seq)?));
    }
    let oldest = match kind {
        EntryKind::Application => head.oldest_application_epoch(),
        _ => head.epoch,
    };
    if let Some(refusal) = closed(&head).or_else(|| outside(submission.epoch, oldest, &head)) {
        return Ok(refused(refusal));
    }
    if let Content::PolicyChange { turns: Some(_), .. } = &submission.content
        && let Err(refusal) = only_mls(head.kind)
    {
        return Ok(refused(refusal));
    }
    Ok(new_entry(Some(head), id, state_id))
}

/// Number of the entry that already carries this id.
fn known<V: View>(
    view: &V,
    kind: EntryKind,
    id: &EntryId,
    head: &Head,
) -> Result<Option<u64>, ReadError<V::Error>> {
    if kind != EntryKind::Close {
        return Ok(view.recent(id)?);
    }
    Ok(match head.closed {
        Some(seq) if record(view, seq)?.id == *id => Some(seq),
        _ => None,
    })
}

pub(crate) fn outside(epoch: u64, oldest: u64, head: &Head) -> Option<Refusal> {
    if epoch > head.epoch {
        Some(Refusal::EpochAhead { head_epoch: head.epoch, got: epoch })
    } else if epoch < oldest {
        Some(Refusal::EpochTooOld { oldest, head_epoch: head.epoch, got: epoch })
    } else {
        None
    }
}

pub(crate) fn closed(head: &Head) -> Option<Refusal> {
    head.closed.map(|closed_seq| Refusal::GroupClosed { closed_seq })
}

fn wrong_state(submission: &Submission, expected: &StateId) -> Option<Refusal> {
    match submission.parent_state_id {
        Some(got) if got != *expected => Some(Refusal::WrongState { expected: *expected, got }),
        _ => None,
    }
}

fn refused(refusal: Refusal) -> Verdict {
    Verdict::Known(Decision::Refused(refusal))
}

fn accepted_before(seq: u64, record: &Record) -> Verdict {
    Verdict::Known(Decision::Accepted(Accepted::from_record(seq, record)))
}

fn new_entry(head: Option<Head>, id: EntryId, state_id: StateId) -> Verdict {
    Verdict::New(Box::new(NewEntry { head, id, state_id }))
}

pub(crate) fn record<V: View>(view: &V, seq: u64) -> Result<Record, ReadError<V::Error>> {
    view.record(seq)?.ok_or(ReadError::Missing { what: "the record of an entry" })
}

pub(crate) fn commit_ending<V: View>(view: &V, epoch: u64) -> Result<CommitRef, ReadError<V::Error>> {
    view.commit_ending(epoch)?.ok_or(ReadError::Missing { what: "the commit that ended an epoch" })
}
