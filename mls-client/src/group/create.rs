//! A new group.

use group_log::{ChainHash, GroupId, GroupKind, Policy, StateId, hash};
use openmls::prelude::{
    MIXED_CIPHERTEXT_WIRE_FORMAT_POLICY, MIXED_PLAINTEXT_WIRE_FORMAT_POLICY, MlsGroup, MlsGroupJoinConfig,
    SenderRatchetConfiguration, WireFormatPolicy,
};
use openmls_traits::OpenMlsProvider;

use super::{
    intent::Intent,
    work::{GroupWork, mls_group_id},
};
use crate::{
    error::Error,
    identity::{Identity, capabilities},
    limits::{OUT_OF_ORDER_MESSAGES, SKIPPED_MESSAGES},
    provider::Provider,
    store::{GroupRecord, Pending, PendingKind, Position, Status},
};

/// Makes the first state of a group, and returns it; it is pending until the log has its create entry.
pub(crate) fn create(
    provider: Provider,
    me: &Identity,
    group: GroupId,
    kind: GroupKind,
    policy: Policy,
    private_handshakes: bool,
) -> Result<(StateId, GroupWork), Error> {
    let mls = MlsGroup::builder()
        .with_group_id(mls_group_id(&group))
        .ciphersuite(me.ciphersuite())
        .with_capabilities(capabilities(me.ciphersuite()))
        .with_wire_format_policy(wire_format(private_handshakes))
        .use_ratchet_tree_extension(true)
        .max_past_epochs(policy.past_epochs as usize)
        .sender_ratchet_configuration(sender_ratchets())
        .build(&provider, me.signer(), me.credential())
        .map_err(|e| Error::mls("creating a group", e))?;
    let group_info = mls
        .export_group_info(provider.crypto(), me.signer(), true)
        .map_err(|e| Error::mls("exporting a GroupInfo", e))?
        .to_bytes()
        .map_err(|e| Error::mls("encoding a GroupInfo", e))?;

    let epoch = mls.epoch().as_u64();
    let state = hash::create_state_id(&group, epoch, &group_info);
    let nothing = StateId([0; 32]);
    let start = Position { seq: 0, chain: ChainHash::START, epoch, state: nothing };
    let mut record = GroupRecord::new(Status::Joining, kind, policy, start);
    let mut pending = Pending::new(PendingKind::Create, Intent::default(), epoch, nothing, state);
    pending.group_info = group_info;
    record.pending = Some(pending);
    Ok((state, GroupWork::begin(group, record, provider, mls, None)))
}

/// The configuration of a group that is joined.
pub(crate) fn join_config(policy: Policy, private_handshakes: bool) -> MlsGroupJoinConfig {
    MlsGroupJoinConfig::builder()
        .wire_format_policy(wire_format(private_handshakes))
        .use_ratchet_tree_extension(true)
        .max_past_epochs(policy.past_epochs as usize)
        .sender_ratchet_configuration(sender_ratchets())
        .build()
}

/// How handshake messages travel: public ones can be validated by gateways, private ones hide who does what.
pub(crate) fn wire_format(private_handshakes: bool) -> WireFormatPolicy {
    if private_handshakes { MIXED_CIPHERTEXT_WIRE_FORMAT_POLICY } else { MIXED_PLAINTEXT_WIRE_FORMAT_POLICY }
}

/// The log gives one order to everybody, so messages of one sender are late only when submissions overtook one another.
pub(crate) fn sender_ratchets() -> SenderRatchetConfiguration {
    SenderRatchetConfiguration::new(OUT_OF_ORDER_MESSAGES, SKIPPED_MESSAGES)
}
