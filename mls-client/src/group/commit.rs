//! Building a commit. It is pending from the moment it is built, and stored before it is sent.

use group_log::{StateId, hash};
use openmls::prelude::tls_codec::Deserialize;
use openmls::prelude::{
    KeyPackage, KeyPackageIn, MlsGroup, MlsMessageBodyIn, MlsMessageIn, MlsMessageOut, Proposal,
    ProtocolVersion, QueuedProposal, Sender, StagedCommit,
};
use openmls_traits::{OpenMlsProvider, crypto::OpenMlsCrypto};

use super::{
    intent::{Intent, Invitee},
    work::{GroupWork, identities, members},
};
use crate::{
    error::Error,
    identity::{Identity, client_id_of},
    limits::MAX_INTENT_MEMBERS,
    store::{Pending, PendingKind, Recipient},
};

/// Builds a commit that does what is left of `intent` in the current epoch. Returns the state that it leads to, or nothing if there
/// is nothing left to do.
pub(crate) fn build(work: &mut GroupWork, intent: &Intent, me: &Identity) -> Result<Option<StateId>, Error> {
    let leaving = work.record.leaving;
    let parent = work.record.state_id();
    let mls = work.active()?;
    if leaving || is_to_be_removed(mls) {
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
    let removed: Vec<_> = members(mls)
        .into_iter()
        .filter(|(_, id)| rest.remove.iter().any(|remove| remove.0 == *id))
        .map(|(leaf, _)| leaf)
        .collect();
    let (mut added, mut recipients) = (Vec::new(), Vec::new());
    for invitee in &rest.add {
        let (key_package, recipient) = validate(work.provider.crypto(), invitee)?;
        added.push(key_package);
        recipients.push(recipient);
    }

    let failed = |e: &dyn std::fmt::Display| Error::mls("building a commit", e);
    let provider = &work.provider;
    let mls = work.mls.as_mut().ok_or(Error::UnknownGroup)?;
    let bundle = mls
        .commit_builder()
        .propose_adds(added)
        .propose_removals(removed)
        // Always with a path: every commit renews the committer's keys, and decentralized groups need it.
        .force_self_update(true)
        .load_psks(provider.storage())
        .map_err(|e| failed(&e))?
        .create_group_info(true)
        .use_ratchet_tree_extension(true)
        .build(provider.rand(), provider.crypto(), me.signer(), is_member_proposal)
        .map_err(|e| failed(&e))?
        .stage_commit(provider)
        .map_err(|e| failed(&e))?;
    let (commit, welcome, group_info) = bundle.into_messages();
    let members_only = mls.pending_commit().is_some_and(changes_members_only);

    let message = encode(&commit)?;
    let state = hash::commit_state_id(&parent, &message);
    let mut pending = Pending::new(PendingKind::Commit, rest, epoch, parent, state);
    pending.message = message;
    pending.welcome = welcome.as_ref().map(encode).transpose()?.unwrap_or_default();
    pending.group_info = group_info.as_ref().map(encode).transpose()?.unwrap_or_default();
    pending.recipients = recipients;
    pending.members_only = members_only;
    work.record.pending = Some(pending);
    Ok(Some(state))
}

/// Whether somebody, this client itself perhaps, has proposed to remove this client: then only others can commit.
pub(crate) fn is_to_be_removed(mls: &MlsGroup) -> bool {
    let own = mls.own_leaf_index();
    mls.pending_proposals()
        .any(|proposal| matches!(proposal.proposal(), Proposal::Remove(r) if r.removed() == own))
}

/// The commit adds or removes members, and does nothing else that would have to wait for a turn.
fn changes_members_only(commit: &StagedCommit) -> bool {
    let mut proposals = commit.queued_proposals().peekable();
    proposals.peek().is_some()
        && proposals.all(|queued| {
            matches!(queued.proposal(), Proposal::Add(_) | Proposal::Remove(_) | Proposal::SelfRemove)
        })
}

/// Proposals of members are committed; those of outsiders are not.
pub(crate) fn is_member_proposal(proposal: &QueuedProposal) -> bool {
    matches!(proposal.sender(), Sender::Member(_))
}

/// Checks a KeyPackage that a gateway handed out: whole, valid, and of the client that was asked for.
pub(crate) fn validate(
    crypto: &impl OpenMlsCrypto,
    invitee: &Invitee,
) -> Result<(KeyPackage, Recipient), Error> {
    let bad = |e: &dyn std::fmt::Display| Error::mls("reading a KeyPackage", e);
    let message = MlsMessageIn::tls_deserialize_exact(&invitee.key_package).map_err(|e| bad(&e))?;
    let MlsMessageBodyIn::KeyPackage(key_package) = message.extract() else {
        return Err(bad(&"it is another kind of message"));
    };
    let key_package: KeyPackageIn = key_package;
    let key_package = key_package.validate(crypto, ProtocolVersion::Mls10).map_err(|e| bad(&e))?;
    if client_id_of(key_package.leaf_node().credential()) != invitee.client_id.0 {
        return Err(Error::ForeignKeyPackage);
    }
    let key_package_ref = key_package.hash_ref(crypto).map_err(|e| bad(&e))?.as_slice().to_vec();
    Ok((key_package, Recipient { client_id: invitee.client_id.0.clone(), key_package_ref }))
}

pub(crate) fn encode(message: &MlsMessageOut) -> Result<Vec<u8>, Error> {
    message.to_bytes().map_err(|e| Error::mls("encoding a message", e))
}
