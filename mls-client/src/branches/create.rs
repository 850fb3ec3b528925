//! A new group.

use group_log::{ChainHash, GroupId, GroupKind, Policy, StateId, hash};
use openmls::prelude::MlsGroupCreateConfig;
use openmls_rust_crypto::RustCrypto;
use rusqlite::Connection;

use super::work::{BranchWork, begin};
use crate::{
    demls::{DmlsGroup, states::StateChange},
    error::Error,
    group::{Intent, encode, mls_group_id, sender_ratchets, wire_format},
    identity::{Identity, capabilities},
    store::{GroupRecord, Pending, PendingKind, Position, Status},
};

/// Makes the first state of a group, and returns it; it is pending until the log has its create entry.
pub(crate) fn create<'a>(
    db: &'a Connection,
    crypto: &'a RustCrypto,
    me: &Identity,
    group: GroupId,
    policy: Policy,
    private_handshakes: bool,
) -> Result<(StateId, BranchWork<'a>), Error> {
    let config = MlsGroupCreateConfig::builder()
        .ciphersuite(me.ciphersuite())
        .capabilities(capabilities(me.ciphersuite()))
        .wire_format_policy(wire_format(private_handshakes))
        .use_ratchet_tree_extension(true)
        .sender_ratchet_configuration(sender_ratchets())
        .build();
    let id = mls_group_id(&group);
    let mut first = DmlsGroup::create(crypto, me.signer(), &config, id, me.credential())?;
    let group_info = encode(&first.group_info(crypto, me.signer(), true)?)?;
    let epoch = first.mls().epoch().as_u64();
    let state = hash::create_state_id(&group, epoch, &group_info);
    let nothing = StateId([0; 32]);
    let start = Position { seq: 0, chain: ChainHash::START, epoch, state: nothing };
    let mut record = GroupRecord::new(Status::Joining, GroupKind::Demls, policy, start);
    let mut pending = Pending::new(PendingKind::Create, Intent::default(), epoch, nothing, state);
    pending.group_info = group_info;
    record.pending = Some(pending);
    let mut work = begin(db, crypto, group, record, None)?;
    work.store(StateChange::new().put(state, Some(nothing), first.state()?))?;
    Ok((state, work))
}
