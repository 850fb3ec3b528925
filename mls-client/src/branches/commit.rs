//! Own commits. A commit and the state after it are stored before it is sent, and kept until the log says `Stable`, whatever a branch
//! says about it.

use group_log::{ClientId, EntryId, StateId, hash};
use openmls::prelude::LeafNodeIndex;

use super::{branch::advance, work::BranchWork};
use crate::{
    demls::{DmlsGroup, states::StateChange},
    error::Error,
    group::{Intent, encode, identities, is_member_proposal, is_to_be_removed, members, validate},
    identity::Identity,
    limits::MAX_INTENT_MEMBERS,
    store::{
        Pending, PendingKind, Resolution,
        branch_entries::{self, Node},
    },
};

/// Builds a commit that does what is left of `intent` in the state that this client stands in. Returns the state that it leads to, or
/// nothing if there is nothing left to do.
pub(crate) fn build_commit(
    work: &mut BranchWork<'_>,
    intent: &Intent,
    me: &Identity,
) -> Result<Option<StateId>, Error> {
    let current = work.active()?;
    let mut opened = work.open(&current)?;
    let mls = opened.mls();
    if work.record.leaving || is_to_be_removed(mls) {
        return Err(Error::Leaving);
    }
    if intent.remove.iter().any(|id| id.0 == me.client_id().as_bytes()) {
        return Err(Error::CannotRemoveSelf);
    }
    if intent.len() > MAX_INTENT_MEMBERS {
        return Err(Error::IntentTooLarge { limit: MAX_INTENT_MEMBERS, got: intent.len() });
    }
    let rest = intent.rest(&identities(mls));
    let proposals = intent.proposals && mls.pending_proposals().any(is_member_proposal);
    if rest.is_done() && !proposals {
        return Ok(None);
    }
    let epoch = mls.epoch().as_u64();
    let removed: Vec<LeafNodeIndex> = members(mls)
        .into_iter()
        .filter(|(_, id)| rest.remove.iter().any(|remove| remove.0 == *id))
        .map(|(leaf, _)| leaf)
        .collect();
    let (mut added, mut recipients) = (Vec::new(), Vec::new());
    for invitee in &rest.add {
        let (key_package, recipient) = validate(work.crypto, invitee)?;
        added.push(key_package);
        recipients.push(recipient);
    }
    let mut own = opened
        .commit(work.crypto, me.signer(), |builder| builder.propose_adds(added).propose_removals(removed))?;
    let group_info = own.next.group_info(work.crypto, me.signer(), true)?;
    let state = hash::commit_state_id(&current, &own.message);
    let mut pending = Pending::new(PendingKind::Commit, rest, epoch, current, state);
    pending.welcome = own.welcome.as_ref().map(encode).transpose()?.unwrap_or_default();
    pending.group_info = encode(&group_info)?;
    pending.recipients = recipients;
    keep(work, pending, own.message, opened, own.next, me.client_id())?;
    Ok(Some(state))
}

/// Stores a commit that was made: the state after it beside the one before it.
fn keep(
    work: &mut BranchWork<'_>,
    mut pending: Pending,
    message: Vec<u8>,
    mut parent: DmlsGroup,
    mut next: DmlsGroup,
    me: &ClientId,
) -> Result<(), Error> {
    let (from, state) = (pending.parent(), pending.state_id());
    for member in &pending.intent.remove {
        work.fork.note_removal(state.into(), me.as_bytes(), member.0.clone());
    }
    let intent = serde_json::to_vec(&pending.intent)
        .map_err(|e| Error::Invalid(format!("an intent cannot be stored: {e}")))?;
    work.put_node(Node {
        id: state.into(),
        parent: from,
        epoch: pending.epoch + 1,
        is_commit: true,
        is_own: true,
        processed: false,
        verdict: None,
        intent,
    })?;
    let change = StateChange::new().put(from, None, parent.state()?).put(state, Some(from), next.state()?);
    work.store(change)?;
    pending.message = message;
    work.record.pending = Some(pending);
    Ok(())
}

/// A gateway without a quorum accepted the pending commit. `encoded` is the branch entry that it is now.
pub(crate) fn answered_provisionally(
    work: &mut BranchWork<'_>,
    state: StateId,
    encoded: &[u8],
    me: &ClientId,
) -> Result<(), Error> {
    let id = EntryId::from(state);
    let Some(node) = work.node(&id)? else { return Ok(()) };
    let (parent, epoch) = (node.parent, node.epoch);
    if work.states.is_pending(&state) {
        let (mut before, mut next) = (work.read(&parent)?, work.read(&state)?);
        before.settle_provisionally(work.crypto, &mut next)?;
        work.store(StateChange::new().put(parent, None, &before).put(state, None, &next))?;
    }
    if node.verdict.is_none() {
        branch_entries::set_body(work.db, &work.group, &id, Some(encoded))?;
    }
    work.put_node(Node { processed: true, ..node })?;
    if work.record.pending.as_ref().is_some_and(|pending| pending.state_id() == state) {
        work.record.resolve(Resolution::Provisional { epoch });
    }
    advance(work, state, &parent, me.as_bytes())
}

/// Another commit has to be made instead of the pending one that leads to `state`. It is kept all the same: only the log decides.
pub(crate) fn set_aside(work: &mut BranchWork<'_>, state: StateId) {
    if work.record.pending.as_ref().is_some_and(|pending| pending.state_id() == state) {
        work.record.resolve(Resolution::SetAside);
    }
}
