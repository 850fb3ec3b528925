//! Following the canonical log, strictly in order: what is in it is final.

use std::collections::BTreeMap;

use group_log::{
    ChainError, ChainVerifier, ClientId, Content, EntryId, Policy, StateId,
    fork::{BranchEntry, Item, LogEntry, Mark},
    hash::entry_id,
};

use super::{
    process::{Made, Taken},
    work::{BranchWork, authenticator},
};
use crate::{
    error::Error,
    event::EventKind,
    store::{
        LeftReason, PendingKind, Place, Position, Resolution, Status, Verdict,
        branch_entries::{self, Node},
        messages,
    },
};

/// The next entry of the log, and what a gateway says about it that no hash covers.
#[derive(Debug, Clone)]
pub(crate) struct Followed {
    pub(crate) entry: LogEntry,
    /// After a Side mark: leaves at the head that are owed a removal.
    pub(crate) owed_leaves: Vec<u32>,
}

/// Applies the next entry of the log. An entry that was applied before changes nothing.
///
/// An error means that the entry does not follow from what was applied before, or that this client's own state is damaged; the caller
/// keeps nothing then. A message that cannot be read is an event. A canonical commit that cannot be processed stops this client.
pub(crate) fn apply(work: &mut BranchWork<'_>, followed: &Followed, me: &ClientId) -> Result<(), Error> {
    let entry = &followed.entry;
    if entry.seq <= work.record.seq
        || matches!(work.record.status, Status::Left(_) | Status::Closed | Status::Stuck { .. })
    {
        return Ok(());
    }
    let at = verify(work, entry)?;
    match &entry.item {
        Item::Content(Content::Create(create)) => created(work, entry, &create.group_info)?,
        Item::Content(content @ Content::Commit(commit)) => {
            if !committed(work, entry, content, &commit.message, at, me)? {
                // Stuck in front of this commit.
                return Ok(());
            }
        }
        Item::Content(content @ (Content::Proposal { message } | Content::Application { message })) => {
            said(work, entry, content, message, me)?;
        }
        Item::Content(Content::PolicyChange { policy, turns: _ }) => policy_changed(work, *policy),
        Item::Content(Content::Close) => {
            work.forget_state(Status::Closed)?;
            work.events.push(EventKind::Closed);
        }
        Item::Mark(Mark::Side { ids, .. }) => {
            put_aside(work, entry, ids, false, me)?;
            work.owe(&followed.owed_leaves)?;
        }
        Item::Mark(Mark::Late { ids }) => put_aside(work, entry, ids, true, me)?,
        Item::Mark(Mark::Stable { position }) => work.settle_up_to(*position)?,
    }
    work.record.advance(at);
    Ok(())
}

fn verify(work: &BranchWork<'_>, entry: &LogEntry) -> Result<Position, ChainError> {
    let record = &work.record;
    let before = (record.seq > 0).then(|| (record.epoch, record.state_id()));
    let mut verifier = ChainVerifier::after(record.seq, record.chain(), before);
    verifier.push_item(entry)?;
    let (epoch, state) = verifier.position().unwrap_or((entry.epoch, entry.state_id));
    Ok(Position { seq: entry.seq, chain: entry.chain, epoch, state })
}

/// The parent of a state of which it is not known where it comes from, and of that of a create.
pub(super) const NOWHERE: StateId = StateId([0; 32]);

/// A canonical state: that of the create, or one that a client begins with.
pub(super) fn canonical_state(state: StateId, parent: StateId, epoch: u64, seq: u64) -> Node {
    Node {
        id: state.into(),
        parent,
        epoch,
        is_commit: true,
        is_own: false,
        processed: true,
        verdict: Some(Verdict { seq, dead: false }),
        intent: Vec::new(),
    }
}

fn created(work: &mut BranchWork<'_>, entry: &LogEntry, group_info: &[u8]) -> Result<(), Error> {
    let pending = work.record.pending.as_ref();
    let is_own = pending.is_some_and(|p| p.kind == PendingKind::Create && p.group_info == group_info);
    work.put_node(canonical_state(entry.state_id, NOWHERE, entry.epoch, entry.seq))?;
    if is_own {
        let epoch = entry.epoch;
        work.record.resolve(Resolution::Merged { seq: entry.seq, epoch });
        joined(work, entry.state_id, epoch)?;
    }
    Ok(())
}

fn joined(work: &mut BranchWork<'_>, state: StateId, epoch: u64) -> Result<(), Error> {
    work.record.status = Status::Active;
    work.record.joined_epoch = epoch;
    work.fork.set_current(Some(state));
    work.events.push(EventKind::Joined { epoch });
    Ok(())
}

/// Moves the canonical chain to the next epoch. Returns false if this client cannot follow.
fn committed(
    work: &mut BranchWork<'_>,
    entry: &LogEntry,
    content: &Content,
    message: &[u8],
    at: Position,
    me: &ClientId,
) -> Result<bool, Error> {
    let (state, head) = (at.state, work.record.state_id());
    let author = entry.author.as_ref().map(|a| a.as_bytes().to_vec()).unwrap_or_default();
    let made = Made {
        id: state.into(),
        parent: head,
        author: entry.author.as_ref(),
        content,
        epoch: entry.epoch,
        place: Place::Canonical { seq: entry.seq },
    };
    let joining = work.record.status == Status::Joining;
    let taken = if joining { external(work, state)? } else { work.take_commit(&made, message)? };
    if let Taken::Unprocessable(reason) = taken {
        work.record.status = Status::Stuck { seq: entry.seq, reason: reason.clone() };
        work.events.push(EventKind::Stuck { seq: entry.seq, reason });
        return Ok(false);
    }
    let known = work.node(&made.id)?.unwrap_or_else(|| made.node(me));
    let processed = known.processed || taken != Taken::NotEntitled;
    let verdict = Some(Verdict { seq: entry.seq, dead: false });
    work.put_node(Node { parent: head, processed, verdict, ..known })?;
    branch_entries::set_body(work.db, &work.group, &made.id, None)?;
    work.leave_behind(&head)?;
    resolve_pending(work, state, at, entry.seq, &author);
    match taken {
        Taken::Removed => {
            let left = work.record.leaving;
            let reason = if left { LeftReason::Left } else { LeftReason::Removed { by: author } };
            work.forget_state(Status::Left(reason.clone()))?;
            work.events.push(EventKind::Left { reason });
        }
        Taken::Held => stand_at_head(work, entry.seq, at, author, joining)?,
        Taken::NotEntitled | Taken::Unprocessable(_) => {}
    }
    Ok(true)
}

/// The state after an own external commit is held already; that of one that was not first will never be.
fn external(work: &mut BranchWork<'_>, state: StateId) -> Result<Taken, Error> {
    if work.states.contains(&state) {
        return Ok(Taken::Held);
    }
    work.forget_states()?;
    Ok(Taken::NotEntitled)
}

fn stand_at_head(
    work: &mut BranchWork<'_>,
    seq: u64,
    at: Position,
    by: Vec<u8>,
    joining: bool,
) -> Result<(), Error> {
    let before = work.fork.current();
    let ahead = before.is_some_and(|current| work.descends(&current, &at.state));
    if !ahead {
        work.stand(Some(at.state))?;
    }
    if let Some(from) = before.filter(|from| !ahead && !work.descends(&at.state, from)) {
        // The branch that this client stood on is not the one that the log has gone on with.
        work.fork.again.update = true;
        work.events.push(EventKind::WentBack { from, to: Some(at.state) });
    }
    if joining || work.record.status == Status::Waiting {
        joined(work, at.state, at.epoch)?;
    }
    let opened = work.open(&at.state)?;
    let authenticator = authenticator(opened.mls());
    work.keep_owing(&opened);
    work.events.push(EventKind::EpochChanged { seq, epoch: at.epoch, state_id: at.state, authenticator, by });
    if !ahead {
        work.propose_again();
    }
    Ok(())
}

/// What the log says about the commit that this client waits for.
fn resolve_pending(work: &mut BranchWork<'_>, state: StateId, at: Position, seq: u64, by: &[u8]) {
    let Some(pending) = &work.record.pending else { return };
    if pending.state_id() == state {
        work.record.resolve(Resolution::Merged { seq, epoch: at.epoch });
    } else if !work.descends(&pending.parent(), &state) {
        work.record.resolve(Resolution::Superseded { seq });
        work.events.push(EventKind::Superseded { seq, by: by.to_vec() });
    }
}

fn said(
    work: &mut BranchWork<'_>,
    entry: &LogEntry,
    content: &Content,
    message: &[u8],
    me: &ClientId,
) -> Result<(), Error> {
    let id = entry_id(&entry.state_id, content);
    let made = Made {
        id,
        parent: entry.state_id,
        author: entry.author.as_ref(),
        content,
        epoch: entry.epoch,
        place: Place::Canonical { seq: entry.seq },
    };
    decide(work, &made, message, Verdict { seq: entry.seq, dead: false }, me)
}

/// A message that the log decides about: taken in, if it was not before on a branch.
fn decide(
    work: &mut BranchWork<'_>,
    made: &Made<'_>,
    message: &[u8],
    verdict: Verdict,
    me: &ClientId,
) -> Result<(), Error> {
    let known = work.node(&made.id)?;
    let processed = known.as_ref().is_some_and(|node| node.processed)
        || (!matches!(work.record.status, Status::Joining) && work.take_message(made, message, me)?);
    let node = known.unwrap_or_else(|| made.node(me));
    work.put_node(Node { processed, verdict: Some(verdict), ..node })?;
    branch_entries::set_body(work.db, &work.group, &made.id, None)?;
    work.write_messages()?;
    Ok(messages::settle(work.db, &work.group, &made.id, verdict.seq, verdict.dead)?)
}

/// Branch entries lost: they are read all the same, and whoever stands on them goes back.
fn put_aside(
    work: &mut BranchWork<'_>,
    entry: &LogEntry,
    ids: &[EntryId],
    late: bool,
    me: &ClientId,
) -> Result<(), Error> {
    let bodies: BTreeMap<_, &BranchEntry> = entry.bodies.iter().map(|body| (body.id(), body)).collect();
    let verdict = Verdict { seq: entry.seq, dead: true };
    for id in ids {
        match bodies.get(id) {
            Some(body) => lost(work, *id, body, verdict, me)?,
            None => lost_without_body(work, id, verdict)?,
        }
        if late {
            work.send_again(id)?;
        }
    }
    let commits: Vec<_> = ids.iter().filter_map(|id| work.nodes.get(&id.as_state()).cloned()).collect();
    for node in commits.iter().filter(|node| node.is_own && !node.intent.is_empty()) {
        work.do_again(&node.intent)?;
    }
    work.events.push(EventKind::PutAside { seq: entry.seq, entries: ids.len(), late });
    go_back(work, entry.seq)
}

fn lost(
    work: &mut BranchWork<'_>,
    id: EntryId,
    body: &BranchEntry,
    verdict: Verdict,
    me: &ClientId,
) -> Result<(), Error> {
    let made = Made {
        id,
        parent: body.parent,
        author: Some(&body.author),
        content: &body.content,
        epoch: work.epoch_of(&body.parent),
        place: Place::Side { entry: id, seq: verdict.seq },
    };
    match &body.content {
        Content::Commit(commit) => {
            let joining = work.record.status == Status::Joining;
            let taken = match joining {
                true => Taken::NotEntitled,
                false => work.take_commit(&made, &commit.message)?,
            };
            let known = work.node(&id)?.unwrap_or_else(|| made.node(me));
            let processed = known.processed || matches!(taken, Taken::Held | Taken::Removed);
            work.put_node(Node { processed, verdict: Some(verdict), ..known })?;
            Ok(branch_entries::set_body(work.db, &work.group, &id, None)?)
        }
        Content::Proposal { message } | Content::Application { message } => {
            decide(work, &made, message, verdict, me)
        }
        _ => Ok(()),
    }
}

/// An entry that was taken in before, so that nobody asked for what it carries.
fn lost_without_body(work: &mut BranchWork<'_>, id: &EntryId, verdict: Verdict) -> Result<(), Error> {
    let Some(node) = work.node(id)? else { return Ok(()) };
    if node.is_commit && work.states.is_pending(&id.as_state()) {
        let (state, content) = (id.as_state(), Content::Close);
        let place = Place::Side { entry: *id, seq: verdict.seq };
        let made =
            Made { id: *id, parent: node.parent, author: None, content: &content, epoch: node.epoch, place };
        debug_assert!(work.states.contains(&state));
        work.take_commit(&made, &[])?;
    }
    work.put_node(Node { verdict: Some(verdict), ..node })?;
    branch_entries::set_body(work.db, &work.group, id, None)?;
    Ok(messages::settle(work.db, &work.group, id, verdict.seq, true)?)
}

/// Whoever stands on what has lost goes back to the canonical head, or waits to be added again.
fn go_back(work: &mut BranchWork<'_>, seq: u64) -> Result<(), Error> {
    if let Some(pending) = &work.record.pending
        && (work.is_dead(&pending.state_id()) || work.is_dead(&pending.parent()))
    {
        work.record.resolve(Resolution::Superseded { seq });
        work.events.push(EventKind::Superseded { seq, by: Vec::new() });
    }
    let Some(current) = work.fork.current().filter(|current| work.is_dead(current)) else { return Ok(()) };
    let head = work.record.state_id();
    let back = work.states.contains(&head).then_some(head);
    work.stand(back)?;
    match back {
        Some(_) => {
            work.fork.again.update = true;
            work.propose_again();
        }
        None => work.record.status = Status::Waiting,
    }
    work.events.push(EventKind::WentBack { from: current, to: back });
    Ok(())
}

fn policy_changed(work: &mut BranchWork<'_>, policy: Policy) {
    // Groups that may be split take no turns.
    work.record.set_policy(policy, None);
    work.events.push(EventKind::PolicyChanged { past_epochs: policy.past_epochs, turn_ms: None });
}
