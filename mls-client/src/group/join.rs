//! Joining a group: by a Welcome, or by an external commit to its newest GroupInfo.

use group_log::{ChainHash, GroupId, GroupKind, Policy, StateId, hash};
use openmls::prelude::tls_codec::Deserialize;
use openmls::prelude::{
    LeafNodeParameters, MlsGroup, MlsMessageBodyIn, MlsMessageIn, ProcessedWelcome, ProposalStore,
    PublicGroup, StagedWelcome, group_info::VerifiableGroupInfo,
};
use openmls_traits::OpenMlsProvider;

use super::{
    commit::encode,
    create::join_config,
    intent::Intent,
    work::{GroupWork, mls_group_id},
};
use crate::{
    error::Error,
    event::EventKind,
    identity::{Identity, capabilities},
    provider::{Provider, Values},
    store::{GroupRecord, Pending, PendingKind, Position, Status},
};

/// A Welcome, and the place in the log where it was accepted.
pub(crate) struct Invitation {
    pub(crate) group: GroupId,
    pub(crate) kind: GroupKind,
    pub(crate) welcome: Vec<u8>,
    pub(crate) seq: u64,
    pub(crate) chain: ChainHash,
    pub(crate) epoch: u64,
    pub(crate) state: StateId,
}

/// The newest GroupInfo of a group, and the head that it belongs to.
pub(crate) struct External {
    pub(crate) group: GroupId,
    pub(crate) kind: GroupKind,
    pub(crate) policy: Policy,
    pub(crate) group_info: Vec<u8>,
    pub(crate) seq: u64,
    pub(crate) chain: ChainHash,
    pub(crate) epoch: u64,
    pub(crate) state: StateId,
}

/// As whom a client joins by an external commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coming {
    /// As one who was told of the group, or wants back into it.
    AsAnybody,
    /// As a member that lost the thread: whoever was removed meanwhile stays out.
    AsMember,
}

/// Joins by a Welcome. `provider` holds the identity's values: the KeyPackage that the Welcome uses is taken out of them.
pub(crate) fn join_welcome(
    provider: Provider,
    invitation: Invitation,
    old: Option<GroupWork>,
    policy: Policy,
    private_handshakes: bool,
) -> Result<GroupWork, Error> {
    let failed = |e: &dyn std::fmt::Display| Error::mls("joining by a Welcome", e);
    let message = MlsMessageIn::tls_deserialize_exact(&invitation.welcome).map_err(|e| failed(&e))?;
    let MlsMessageBodyIn::Welcome(welcome) = message.extract() else {
        return Err(failed(&"it is another kind of message"));
    };
    let before = provider.values();
    let config = join_config(policy, private_handshakes);
    let processed =
        ProcessedWelcome::new_from_welcome(&provider, &config, welcome).map_err(|e| failed(&e))?;
    let staged: StagedWelcome = processed.into_staged_welcome(&provider, None).map_err(|e| failed(&e))?;
    let mls = staged.into_group(&provider).map_err(|e| failed(&e))?;
    if *mls.group_id() != mls_group_id(&invitation.group) || mls.epoch().as_u64() != invitation.epoch {
        return Err(Error::Protocol(
            "the Welcome leads to another group or epoch than its envelope says".into(),
        ));
    }

    // What was there before belongs to the identity, what is new to the group.
    let (identity, group) = split(&before, &provider.values());
    let provider = provider.replace(group);
    let mls = MlsGroup::load(provider.storage(), mls.group_id())
        .map_err(|e| failed(&e))?
        .ok_or_else(|| failed(&"lost"))?;
    let at = Position {
        seq: invitation.seq,
        chain: invitation.chain,
        epoch: invitation.epoch,
        state: invitation.state,
    };
    let record = GroupRecord::new(Status::Active, invitation.kind, policy, at);
    let mut work = GroupWork::begin(invitation.group, record, provider, mls, old);
    work.identity = Some((before, identity));
    work.events.push(EventKind::Joined { epoch: invitation.epoch });
    Ok(work)
}

/// What is left of the identity's values, and what the group brought.
fn split(before: &Values, after: &Values) -> (Values, Values) {
    let (mut identity, mut group) = (Values::default(), Values::default());
    for (key, value) in after.iter() {
        let part = if before.get(key).is_some() { &mut identity } else { &mut group };
        part.insert(key.to_vec(), value.to_vec());
    }
    (identity, group)
}

/// Joins by an external commit (RFC 9420 section 12.4.3.2): the state after it is held, and pending until the log has the commit. A
/// leaf that this client has in the group already is replaced. Returns that state, too.
pub(crate) fn join_external(
    provider: Provider,
    me: &Identity,
    external: External,
    old: Option<GroupWork>,
    private_handshakes: bool,
    coming: Coming,
) -> Result<(StateId, GroupWork), Error> {
    let failed = |e: &dyn std::fmt::Display| Error::mls("joining by an external commit", e);
    let message = MlsMessageIn::tls_deserialize_exact(&external.group_info).map_err(|e| failed(&e))?;
    let MlsMessageBodyIn::GroupInfo(group_info) = message.extract() else {
        return Err(failed(&"the GroupInfo is another kind of message"));
    };
    if *group_info.group_id() != mls_group_id(&external.group)
        || group_info.epoch().as_u64() != external.epoch
    {
        return Err(Error::Protocol("the GroupInfo is of another group or epoch than the head".into()));
    }
    if coming == Coming::AsMember && !has_leaf(&provider, me, group_info.clone())? {
        return Err(Error::NotMember("it was removed while it was away".into()));
    }
    let leaf = LeafNodeParameters::builder().with_capabilities(capabilities(me.ciphersuite())).build();
    let (mls, bundle) = MlsGroup::external_commit_builder()
        .with_config(join_config(external.policy, private_handshakes))
        .build_group(&provider, group_info, me.credential())
        .map_err(|e| failed(&e))?
        .leaf_node_parameters(leaf)
        .load_psks(provider.storage())
        .map_err(|e| failed(&e))?
        .create_group_info(true)
        .use_ratchet_tree_extension(true)
        .build(provider.rand(), provider.crypto(), me.signer(), |_| true)
        .map_err(|e| failed(&e))?
        .finalize(&provider)
        .map_err(|e| failed(&e))?;
    let (commit, _, group_info) = bundle.into_messages();

    let message = encode(&commit)?;
    let state = hash::commit_state_id(&external.state, &message);
    let at =
        Position { seq: external.seq, chain: external.chain, epoch: external.epoch, state: external.state };
    let mut record = GroupRecord::new(Status::Joining, external.kind, external.policy, at);
    let mut pending =
        Pending::new(PendingKind::ExternalCommit, Intent::default(), external.epoch, external.state, state);
    pending.message = message;
    pending.group_info = group_info.as_ref().map(encode).transpose()?.unwrap_or_default();
    record.pending = Some(pending);
    Ok((state, GroupWork::begin(external.group, record, provider, mls, old)))
}

/// Whether the client has a leaf in the state that a GroupInfo describes.
fn has_leaf(provider: &Provider, me: &Identity, group_info: VerifiableGroupInfo) -> Result<bool, Error> {
    let failed = |e: &dyn std::fmt::Display| Error::mls("reading a GroupInfo", e);
    let tree = group_info.extensions().ratchet_tree().map(|extension| extension.ratchet_tree().clone());
    let tree = tree.ok_or_else(|| failed(&"it has no ratchet tree"))?;
    // What is stored on the way is not wanted.
    let scratch = provider.replace(Values::default());
    let (group, _) = PublicGroup::from_external(
        scratch.crypto(),
        scratch.storage(),
        tree,
        group_info,
        ProposalStore::new(),
    )
    .map_err(|e| failed(&e))?;
    let key = me.credential().signature_key;
    Ok(group.members().any(|member| member.signature_key == key.as_slice()))
}
