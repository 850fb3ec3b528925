//! A submission to a DeMLS group that a quorum orders: the ordered rules, and on top of them no commit while branches are being
//! brought together, and no step before the removals that are owed.

use crate::{
    content::{EntryKind, GroupKind, Submission},
    fork::{
        answer::Answer,
        draft::{Draft, Read},
        facts::CommitFacts,
        obligations,
        state::{Dead, Recorded},
        view::{ForkView, Payload},
    },
    hash::entry_id,
    head::Head,
    ids::{EntryId, StateId},
    limits::Limits,
    refusal::Refusal,
    rules::{Accepted, Decision, Made, apply, closed, commit_ending, outside, record},
    turns::Offer,
    validate::{malformed, validate},
};

pub(super) fn submit<V: ForkView>(
    draft: &mut Draft<'_, V>,
    submission: &Submission,
    facts: &CommitFacts,
) -> Read<Answer, V> {
    if let Err(refusal) =
        validate(submission, &Limits::REPLICATED).and_then(|()| facts.validate(&submission.content))
    {
        return Ok(refused(refusal));
    }
    let kind = submission.content.kind();
    match (draft.head, kind) {
        (Some(head), EntryKind::Commit | EntryKind::Proposal | EntryKind::Application)
            if head.kind == GroupKind::Demls =>
        {
            made_in_a_state(draft, head, submission, facts)
        }
        _ => ordered(draft, submission, facts),
    }
}

/// Create, policy change and close: as for any group, but never while branches are being brought together.
fn ordered<V: ForkView>(
    draft: &mut Draft<'_, V>,
    submission: &Submission,
    facts: &CommitFacts,
) -> Read<Answer, V> {
    let (decision, change) = apply(draft, submission, Offer::default())?;
    if let Some(change) = change {
        if draft.fork.collecting.is_some() {
            return Ok(Answer::Retry);
        }
        draft.take(change, facts, Payload::Submission)?;
    }
    Ok(Answer::Decided(decision))
}

fn made_in_a_state<V: ForkView>(
    draft: &mut Draft<'_, V>,
    head: Head,
    submission: &Submission,
    facts: &CommitFacts,
) -> Read<Answer, V> {
    // The epoch alone does not say which branch something was made on.
    let kind = submission.content.kind();
    let Some(parent) = submission.parent_state_id else {
        let expected = "the state it was made in, because the group is DeMLS";
        return Ok(refused(malformed(kind, "parent_state_id", expected, "nothing")));
    };
    let id = entry_id(&parent, &submission.content);
    if let Some(recorded) = draft.recorded(&id)? {
        return recorded_answer(draft, recorded, &parent);
    }
    let Some(parent_epoch) = draft.canonical_epoch(&parent)? else {
        if draft.fork.collecting.is_some() {
            return Ok(Answer::Retry);
        }
        return Ok(refused(Refusal::WrongState { expected: head.state_id, got: parent }));
    };
    if submission.epoch != parent_epoch {
        let expected = "the epoch of the state it was made in";
        return Ok(refused(malformed(kind, "epoch", expected, "another epoch")));
    }
    match kind {
        EntryKind::Commit => commit(draft, head, submission, facts, id, parent),
        _ => message(draft, head, submission, id, parent),
    }
}

fn commit<V: ForkView>(
    draft: &mut Draft<'_, V>,
    head: Head,
    submission: &Submission,
    facts: &CommitFacts,
    id: EntryId,
    parent: StateId,
) -> Read<Answer, V> {
    if draft.fork.collecting.is_some() {
        return Ok(Answer::Retry);
    }
    if parent != head.state_id {
        let winner_seq = commit_ending(draft, submission.epoch)?.seq;
        return Ok(Answer::Decided(Decision::Superseded { winner_seq }));
    }
    if let Some(refusal) = closed(&head) {
        return Ok(refused(refusal));
    }
    if !obligations::covers(&draft.fork, facts) {
        return Ok(remove_first(draft));
    }
    append(draft, id, id.as_state(), submission, facts)
}

/// Messages are readable as long as the state they were made in is kept, and commits can refer to proposals of their own state only.
fn message<V: ForkView>(
    draft: &mut Draft<'_, V>,
    head: Head,
    submission: &Submission,
    id: EntryId,
    parent: StateId,
) -> Read<Answer, V> {
    if let Some(refusal) = closed(&head) {
        return Ok(refused(refusal));
    }
    if !draft.fork.owed.is_empty() {
        return Ok(remove_first(draft));
    }
    let oldest = match submission.content.kind() {
        EntryKind::Application => head.oldest_application_epoch().max(draft.fork.stable_epoch),
        _ => head.epoch,
    };
    if let Some(refusal) = outside(submission.epoch, oldest, &head) {
        return Ok(refused(refusal));
    }
    append(draft, id, parent, submission, &CommitFacts::default())
}

fn append<V: ForkView>(
    draft: &mut Draft<'_, V>,
    id: EntryId,
    state_id: StateId,
    submission: &Submission,
    facts: &CommitFacts,
) -> Read<Answer, V> {
    let made = Made::from(submission);
    let record = draft.append(id, state_id, &made, facts, Payload::Submission)?;
    let seq = draft.head.map_or(0, |head| head.seq);
    Ok(Answer::Decided(Decision::Accepted(Accepted::from_record(seq, &record))))
}

/// What was decided once is answered again, whatever happened since.
fn recorded_answer<V: ForkView>(
    draft: &Draft<'_, V>,
    recorded: Recorded,
    parent: &StateId,
) -> Read<Answer, V> {
    let Dead { seq, late, .. } = match recorded {
        Recorded::Canonical { seq, .. } => {
            let accepted = Accepted::from_record(seq, &record(draft, seq)?);
            return Ok(Answer::Decided(Decision::Accepted(accepted)));
        }
        Recorded::Dead(dead) => dead,
    };
    // It was superseded already if another commit had ended its epoch before it was put to the side.
    if let Some(epoch) = draft.canonical_epoch(parent)?
        && draft.head.is_some_and(|head| epoch < head.epoch)
    {
        let winner_seq = commit_ending(draft, epoch)?.seq;
        if winner_seq < seq {
            return Ok(Answer::Decided(Decision::Superseded { winner_seq }));
        }
    }
    Ok(Answer::OnSide { seq, late })
}

fn refused(refusal: Refusal) -> Answer {
    Answer::Decided(Decision::Refused(refusal))
}

fn remove_first<V: ForkView>(draft: &Draft<'_, V>) -> Answer {
    Answer::RemoveFirst { owed: draft.fork.owed.iter().copied().collect() }
}
