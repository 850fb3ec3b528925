//! Following the log: what to do with the next entry in the state that is held. Entries are applied strictly in order, each once.

use group_log::{ChainError, ChainVerifier, ClientId, Commit, Content, Entry, Policy, Turns};
use openmls::prelude::tls_codec::Deserialize;
use openmls::{
    group::PastEpochDeletionPolicy,
    prelude::{MlsMessageIn, ProcessedMessageContent, ProtocolMessage, StagedCommit},
};
use openmls_traits::OpenMlsProvider;

use super::{
    send,
    work::{GroupWork, identities},
};
use crate::{
    error::Error,
    event::EventKind,
    store::{LeftReason, PendingKind, Place, Position, Resolution, Status, StoreError, StoredMessage},
};

/// Applies the next entry of the log. An entry that was applied before changes nothing.
///
/// An error means that the entry does not follow from what was applied before, or that this client's own state is damaged; nothing
/// was changed then. A message that cannot be read is an event, not an error: it must not hold up the group. A commit that cannot be
/// processed stops this client, and nobody else ([`Status::Stuck`]).
pub(crate) fn apply(work: &mut GroupWork, entry: &Entry, me: &ClientId) -> Result<(), Error> {
    if entry.seq <= work.record.seq
        || matches!(work.record.status, Status::Left(_) | Status::Closed | Status::Stuck { .. })
    {
        return Ok(());
    }
    let at = verify(work, entry)?;
    match &entry.content {
        Content::Create(create) => created(work, &create.group_info),
        Content::Commit(commit) => {
            if !committed(work, entry, commit, at)? {
                // Stuck in front of this commit.
                return Ok(());
            }
        }
        Content::Proposal { message } => proposed(work, entry, message, me)?,
        Content::Application { message } => said(work, entry, message, me),
        Content::PolicyChange { policy, turns } => policy_changed(work, *policy, turns.as_ref())?,
        Content::Close => {
            work.forget_state(Status::Closed);
            work.events.push(EventKind::Closed);
        }
    }
    work.record.advance(at);
    Ok(())
}

/// Applies this client's own pending create or commit as the entry that the gateway's answer describes. Returns false if the answer
/// does not describe the next entry, or the gateway wrote it under another name: the log itself has to be read then.
pub(crate) fn apply_own(
    work: &mut GroupWork,
    accepted: &group_log::Accepted,
    me: &ClientId,
) -> Result<bool, Error> {
    let Some(pending) = work.record.pending.as_ref().filter(|_| accepted.seq == work.record.seq + 1) else {
        return Ok(accepted.seq <= work.record.seq);
    };
    let Ok(content) = crate::wire::pending_content(pending, &work.record) else { return Ok(false) };
    let entry = Entry {
        seq: accepted.seq,
        chain: accepted.chain,
        epoch: pending.epoch,
        state_id: pending.state_id(),
        author: Some(me.clone()),
        content,
    };
    match apply(work, &entry, me) {
        Ok(()) => Ok(true),
        Err(Error::Log(_)) => Ok(false),
        Err(other) => Err(other),
    }
}

/// Checks that the entry follows from what was applied before. Returns the position after it.
fn verify(work: &GroupWork, entry: &Entry) -> Result<Position, ChainError> {
    let record = &work.record;
    let before = (record.seq > 0).then(|| (record.epoch, record.state_id()));
    let mut verifier = ChainVerifier::after(record.seq, record.chain(), before);
    verifier.push(entry)?;
    let (epoch, state) = verifier.position().unwrap_or((entry.epoch, entry.state_id));
    Ok(Position { seq: entry.seq, chain: entry.chain, epoch, state })
}

fn created(work: &mut GroupWork, group_info: &[u8]) {
    let is_own = work
        .record
        .pending
        .as_ref()
        .is_some_and(|p| p.kind == PendingKind::Create && p.group_info == group_info);
    if is_own {
        let epoch = work.record.epoch;
        work.record.resolve(Resolution::Merged { seq: 1, epoch });
        joined(work, epoch);
    }
}

fn joined(work: &mut GroupWork, epoch: u64) {
    work.record.status = Status::Active;
    work.record.joined_epoch = epoch;
    work.events.push(EventKind::Joined { epoch });
}

/// Moves the group to the next epoch. Returns false if that cannot be done.
fn committed(work: &mut GroupWork, entry: &Entry, commit: &Commit, at: Position) -> Result<bool, Error> {
    let author = entry.author.as_ref().map(|a| a.as_bytes().to_vec()).unwrap_or_default();
    let pending = work.record.pending.as_ref();
    let is_own = pending.is_some_and(|p| p.message == commit.message && p.state_id() == entry.state_id);
    let joining = work.record.status == Status::Joining;
    if joining && is_own {
        // The state after an external commit is held already.
        work.record.resolve(Resolution::Merged { seq: entry.seq, epoch: at.epoch });
        joined(work, at.epoch);
        tell_epoch(work, entry, at, author);
        return Ok(true);
    }
    if joining {
        superseded(work, entry.seq, &author);
        // That state will never be.
        work.mls = None;
        work.provider.clear();
        return Ok(true);
    }

    let lost = || Error::Store(StoreError::damaged("state of a group", "it is not there"));
    let mls = work.mls.as_mut().ok_or_else(lost)?;
    let before = identities(mls);
    let unmerged = work.provider.values();
    let merged = if is_own {
        mls.merge_pending_commit(&work.provider).map_err(|e| e.to_string())
    } else {
        stage(work, &commit.message).and_then(|staged| {
            let mls = work.mls.as_mut().ok_or("the state is not there")?;
            mls.merge_staged_commit(&work.provider, *staged).map_err(|e| e.to_string())
        })
    };
    if let Err(reason) = merged {
        // What is held stays the state in front of this commit, also if the merge has gone half-way.
        work.provider = work.provider.replace(unmerged);
        work.record.status = Status::Stuck { seq: entry.seq, reason: reason.clone() };
        work.events.push(EventKind::Stuck { seq: entry.seq, reason });
        return Ok(false);
    }
    if is_own {
        work.record.resolve(Resolution::Merged { seq: entry.seq, epoch: at.epoch });
    } else {
        superseded(work, entry.seq, &author);
    }
    let mls = work.mls.as_ref().ok_or_else(lost)?;
    if !mls.is_active() {
        let reason = if work.record.leaving { LeftReason::Left } else { LeftReason::Removed { by: author } };
        work.forget_state(Status::Left(reason.clone()));
        work.events.push(EventKind::Left { reason });
        return Ok(true);
    }
    let after = identities(mls);
    work.events.extend(after.difference(&before).map(|m| EventKind::MemberAdded { member: m.clone() }));
    work.events.extend(before.difference(&after).map(|m| EventKind::MemberRemoved { member: m.clone() }));
    tell_epoch(work, entry, at, author);
    send::propose_again(work);
    Ok(true)
}

fn tell_epoch(work: &mut GroupWork, entry: &Entry, at: Position, by: Vec<u8>) {
    let Some(mls) = &work.mls else { return };
    let authenticator = mls.epoch_authenticator().as_slice().to_vec();
    work.events.push(EventKind::EpochChanged {
        seq: entry.seq,
        epoch: at.epoch,
        state_id: at.state,
        authenticator,
        by,
    });
}

/// Somebody else's commit ended the epoch: what was pending in it is not to be.
fn superseded(work: &mut GroupWork, seq: u64, by: &[u8]) {
    if work.record.resolve(Resolution::Superseded { seq }).is_some() {
        work.events.push(EventKind::Superseded { seq, by: by.to_vec() });
    }
}

fn stage(work: &mut GroupWork, message: &[u8]) -> Result<Box<StagedCommit>, String> {
    let mls = work.mls.as_mut().ok_or("the state is not there")?;
    let processed = mls.process_message(&work.provider, parse(message)?).map_err(|e| e.to_string())?;
    match processed.into_content() {
        ProcessedMessageContent::StagedCommitMessage(staged) => Ok(staged),
        ProcessedMessageContent::OwnPendingCommit | ProcessedMessageContent::OwnPrivateMessage => {
            Err("it is this client's own, but its pending state is gone: was the state file restored from a copy?".into())
        }
        _ => Err("it is not a commit".into()),
    }
}

fn parse(message: &[u8]) -> Result<ProtocolMessage, String> {
    MlsMessageIn::tls_deserialize_exact(message)
        .map_err(|e| e.to_string())?
        .try_into_protocol_message()
        .map_err(|e| e.to_string())
}

fn proposed(work: &mut GroupWork, entry: &Entry, message: &[u8], me: &ClientId) -> Result<(), Error> {
    if work.record.status != Status::Active {
        return Ok(());
    }
    if let Some(id) = own_item(work, message) {
        send::sent(work, id, entry.seq, me.as_bytes());
    } else {
        let Some(mls) = work.mls.as_mut() else { return Ok(()) };
        // A proposal that cannot be processed can be in no valid commit either.
        let Ok(processed) =
            parse(message).and_then(|m| mls.process_message(&work.provider, m).map_err(|e| e.to_string()))
        else {
            return Ok(());
        };
        if let ProcessedMessageContent::ProposalMessage(queued)
        | ProcessedMessageContent::ExternalJoinProposalMessage(queued) = processed.into_content()
        {
            let known = mls
                .pending_proposals()
                .any(|p| p.proposal_reference_ref() == queued.proposal_reference_ref());
            if !known {
                mls.store_pending_proposal(work.provider.storage(), *queued)
                    .map_err(|e| Error::mls("storing a proposal", e))?;
            }
        }
    }
    work.events.push(EventKind::Proposed { seq: entry.seq });
    Ok(())
}

fn own_item(work: &GroupWork, message: &[u8]) -> Option<u64> {
    work.outbox.iter().find(|item| !item.message.is_empty() && item.message == message).map(|item| item.id)
}

fn said(work: &mut GroupWork, entry: &Entry, message: &[u8], me: &ClientId) {
    // What was sent before this client joined is not for it.
    if work.record.status != Status::Active || entry.epoch < work.record.joined_epoch {
        return;
    }
    if let Some(id) = own_item(work, message) {
        return send::sent(work, id, entry.seq, me.as_bytes());
    }
    match decrypt(work, message) {
        Ok(Some((sender, body))) => {
            let (seq, epoch) = (entry.seq, entry.epoch);
            let place = Place::Canonical { seq };
            work.messages.push(StoredMessage {
                seq,
                place,
                epoch,
                sender: sender.clone(),
                item: None,
                body: body.clone(),
            });
            work.events.push(EventKind::MessageReceived { seq, place, epoch, sender, body });
        }
        Ok(None) => {}
        Err(reason) => work.events.push(EventKind::MessageUnreadable {
            seq: entry.seq,
            epoch: entry.epoch,
            author: entry.author.as_ref().map(|a| a.as_bytes().to_vec()).unwrap_or_default(),
            reason,
        }),
    }
}

/// Who said what.
type Said = (Vec<u8>, Vec<u8>);

/// What a message says; nothing for one of this client's own that it no longer knows.
fn decrypt(work: &mut GroupWork, message: &[u8]) -> Result<Option<Said>, String> {
    let mls = work.mls.as_mut().ok_or("the state is not there")?;
    let processed = mls.process_message(&work.provider, parse(message)?).map_err(|e| e.to_string())?;
    let sender = crate::identity::client_id_of(processed.credential()).to_vec();
    match processed.into_content() {
        ProcessedMessageContent::ApplicationMessage(message) => Ok(Some((sender, message.into_bytes()))),
        ProcessedMessageContent::OwnPrivateMessage => Ok(None),
        _ => Err("it is not an application message".into()),
    }
}

fn policy_changed(work: &mut GroupWork, policy: Policy, turns: Option<&Turns>) -> Result<(), Error> {
    work.record.set_policy(policy, turns);
    if let Some(mls) = work.mls.as_mut() {
        mls.set_past_epoch_deletion_policy(
            &work.provider,
            PastEpochDeletionPolicy::MaxEpochs(policy.past_epochs as usize),
        )
        .map_err(|e| Error::mls("changing the policy", e))?;
    }
    let turn_ms = turns.map(|turns| turns.turn_ms);
    work.events.push(EventKind::PolicyChanged { past_epochs: policy.past_epochs, turn_ms });
    Ok(())
}
