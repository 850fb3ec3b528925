//! Joining: by a Welcome, or by an external commit to the newest GroupInfo.

use group_log::{StateId, hash};
use openmls::prelude::{
    KeyPackageBundle, LeafNodeParameters, MlsMessageBodyIn, MlsMessageIn, Welcome, tls_codec::Deserialize,
};
use openmls_rust_crypto::RustCrypto;
use openmls_traits::{OpenMlsProvider as _, storage::StorageProvider as _};
use rusqlite::Connection;

use super::{
    follow::canonical_state,
    work::{BranchWork, begin},
};
use crate::{
    demls::{DmlsGroup, epoch_in, states::StateChange},
    error::Error,
    event::EventKind,
    group::{External, Intent, Invitation, encode, join_config, mls_group_id},
    identity::{Identity, capabilities},
    provider::Provider,
    store::{GroupRecord, Pending, PendingKind, Position, Status, branch_entries::Node},
};

/// Joins by a Welcome. `provider` holds the identity's values: the KeyPackage that the Welcome uses is taken out of them.
///
/// A Welcome without a number is one of a branch: the state that it leads to is provisional, and the log is read from its beginning
/// to learn what becomes of it.
pub(crate) fn join_welcome<'a>(
    db: &'a Connection,
    crypto: &'a RustCrypto,
    provider: &Provider,
    invitation: Invitation,
    old: Option<BranchWork<'a>>,
    policy: group_log::Policy,
    private_handshakes: bool,
) -> Result<BranchWork<'a>, Error> {
    let failed = |e: &dyn std::fmt::Display| Error::mls("joining by a Welcome", e);
    let message = MlsMessageIn::tls_deserialize_exact(&invitation.welcome).map_err(|e| failed(&e))?;
    let MlsMessageBodyIn::Welcome(welcome) = message.extract() else {
        return Err(failed(&"it is another kind of message"));
    };
    let key_package = take_key_package(provider, &welcome)?;
    let config = join_config(policy, private_handshakes);
    let mut joined = DmlsGroup::join(crypto, &config, welcome, &key_package, None)?;
    if *joined.mls().group_id() != mls_group_id(&invitation.group)
        || joined.mls().epoch().as_u64() != invitation.epoch
    {
        return Err(Error::Protocol(
            "the Welcome leads to another group or epoch than its envelope says".into(),
        ));
    }
    let (state, epoch, nothing) = (invitation.state, invitation.epoch, StateId([0; 32]));
    let provisional = invitation.seq == 0;
    let at = Position { seq: invitation.seq, chain: invitation.chain, epoch, state };
    let mut work = match old.filter(|old| old.record.status == Status::Waiting) {
        // What it read on the branch that has lost stays readable until the log says `Stable`.
        Some(mut old) => {
            if !provisional && old.record.seq > at.seq {
                // The log has gone on past the state that is only held now: it is followed again from there.
                old.record.advance(at);
            }
            old
        }
        None => {
            let at = if provisional { Position { state: nothing, ..at } } else { at };
            let record = GroupRecord::new(Status::Active, invitation.kind, policy, at);
            begin(db, crypto, invitation.group, record, old_of_another_time(db, crypto, &joined)?)?
        }
    };
    work.store(StateChange::new().put(state, None, joined.state()?))?;
    let node = match work.node(&state.into())? {
        Some(known) => Node { processed: true, ..known },
        None => {
            let node = canonical_state(state, nothing, epoch, invitation.seq);
            Node { verdict: node.verdict.filter(|_| !provisional), ..node }
        }
    };
    work.put_node(node)?;
    if work.record.status != Status::Waiting || work.record.seq == invitation.seq || provisional {
        work.record.status = Status::Active;
        work.record.joined_epoch = epoch;
        work.fork.set_current(Some(state));
        work.events.push(EventKind::Joined { epoch });
    }
    Ok(work)
}

/// What this client had in the group before, if anything: messages and what waits to be sent are kept.
fn old_of_another_time<'a>(
    db: &'a Connection,
    crypto: &'a RustCrypto,
    joined: &DmlsGroup,
) -> Result<Option<BranchWork<'a>>, Error> {
    let group = group_log::GroupId::new(joined.mls().group_id().as_slice().to_vec());
    group.map_or(Ok(None), |group| BranchWork::load(db, crypto, &group))
}

/// The KeyPackage that a Welcome is for. One that is used once is deleted.
fn take_key_package(provider: &Provider, welcome: &Welcome) -> Result<KeyPackageBundle, Error> {
    let failed = |e: &dyn std::fmt::Display| Error::mls("joining by a Welcome", e);
    let storage = provider.storage();
    for secrets in welcome.secrets() {
        let reference = secrets.new_member();
        let found: Option<KeyPackageBundle> = storage.key_package(&reference).map_err(|e| failed(&e))?;
        let Some(bundle) = found else { continue };
        if !bundle.key_package().last_resort() {
            storage.delete_key_package(&reference).map_err(|e| failed(&e))?;
        }
        return Ok(bundle);
    }
    Err(failed(&"it is for no KeyPackage that this client holds"))
}

/// Joins by an external commit: the state after it is held, and pending until the log has the commit. Returns that state, too.
pub(crate) fn join_external<'a>(
    db: &'a Connection,
    crypto: &'a RustCrypto,
    me: &Identity,
    external: External,
    private_handshakes: bool,
) -> Result<(StateId, BranchWork<'a>), Error> {
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
    let epoch = epoch_in(&group_info).ok_or_else(|| failed(&"the GroupInfo does not name its dmls_epoch"))?;
    let leaf = LeafNodeParameters::builder().with_capabilities(capabilities(me.ciphersuite())).build();
    let config = join_config(external.policy, private_handshakes);
    let mut join = DmlsGroup::join_external(
        crypto,
        me.signer(),
        &config,
        group_info,
        None,
        &epoch,
        me.credential(),
        leaf,
    )?;
    let group_info = encode(&join.next.group_info(crypto, me.signer(), true)?)?;
    let state = hash::commit_state_id(&external.state, &join.message);
    let at =
        Position { seq: external.seq, chain: external.chain, epoch: external.epoch, state: external.state };
    let mut record = GroupRecord::new(Status::Joining, external.kind, external.policy, at);
    let mut pending =
        Pending::new(PendingKind::ExternalCommit, Intent::default(), external.epoch, external.state, state);
    pending.message = join.message;
    pending.group_info = group_info;
    record.pending = Some(pending);
    let old = BranchWork::load(db, crypto, &external.group)?;
    let mut work = begin(db, crypto, external.group, record, old)?;
    let (nothing, epoch) = (StateId([0; 32]), external.epoch);
    work.put_node(canonical_state(external.state, nothing, epoch, external.seq))?;
    work.store(StateChange::new().put(state, Some(external.state), join.next.state()?))?;
    Ok((state, work))
}
