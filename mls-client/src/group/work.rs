//! A group as an operation sees it.

use std::{collections::BTreeSet, sync::Arc};

use group_log::{GroupId, GroupKind, Policy, StateId};
use openmls::prelude::{LeafNodeIndex, MlsGroup};
use openmls_rust_crypto::RustCrypto;
use openmls_traits::OpenMlsProvider;

use crate::{
    error::Error,
    event::{Event, EventKind},
    identity::client_id_of,
    provider::{Provider, Values},
    store::{
        GroupRecord, GroupUpdate, LeftReason, OutboxItem, OutboxKind, Status, Store, StoreError, StoredGroup,
        StoredMessage,
    },
};

/// One group, loaded: what an operation may look at and change.
pub(crate) struct GroupWork {
    pub(crate) group: GroupId,
    pub(crate) record: GroupRecord,
    pub(crate) provider: Provider,
    /// OpenMLS' view of the state that is held; absent if none is.
    pub(crate) mls: Option<MlsGroup>,
    pub(crate) outbox: Vec<OutboxItem>,
    /// Messages decrypted by this operation.
    pub(crate) messages: Vec<StoredMessage>,
    /// What this operation has to tell, in order.
    pub(crate) events: Vec<EventKind>,
    /// The identity's values before and after, if this operation used a KeyPackage up.
    pub(crate) identity: Option<(Values, Values)>,
    old: Option<StoredGroup>,
}

impl GroupWork {
    /// Takes up a group from the store.
    pub(crate) fn load(
        store: &Store,
        crypto: &Arc<RustCrypto>,
        group: &GroupId,
    ) -> Result<Option<Self>, Error> {
        let Some(stored) = store.load_group(group)? else { return Ok(None) };
        let provider = Provider::new(Arc::clone(crypto), stored.values.clone());
        let mls = if stored.values.is_empty() {
            None
        } else {
            MlsGroup::load(provider.storage(), &mls_group_id(group))
                .map_err(|e| StoreError::damaged("state of a group", e))?
        };
        if mls.is_none() && stored.record.held_state().is_some() {
            return Err(StoreError::damaged("state of a group", "it is not there").into());
        }
        Ok(Some(GroupWork {
            group: group.clone(),
            record: stored.record.clone(),
            provider,
            mls,
            outbox: stored.outbox.clone(),
            messages: Vec::new(),
            events: Vec::new(),
            identity: None,
            old: Some(stored),
        }))
    }

    /// Begins with a new state of a group. `old` is what the store holds of the group; it is replaced, except for what waits to be
    /// sent.
    pub(crate) fn begin(
        group: GroupId,
        mut record: GroupRecord,
        provider: Provider,
        mls: MlsGroup,
        old: Option<GroupWork>,
    ) -> Self {
        record.next_item = old.as_ref().map_or(1, |work| work.record.next_item);
        let (mut outbox, old) = old.map(|work| (work.outbox, work.old)).unwrap_or_default();
        // Made for a state that is no longer held; and whoever comes back does not want to leave.
        outbox.retain(OutboxItem::is_message);
        outbox.iter_mut().for_each(OutboxItem::forget_message);
        GroupWork {
            group,
            record,
            provider,
            mls: Some(mls),
            outbox,
            messages: Vec::new(),
            events: Vec::new(),
            identity: None,
            old,
        }
    }

    /// Stores everything in one transaction. Returns what there is to tell.
    pub(crate) fn save(mut self, store: &mut Store) -> Result<Vec<Event>, StoreError> {
        self.record.proposals_pending = self.mls.as_ref().is_some_and(MlsGroup::has_pending_proposals);
        let values = self.provider.values();
        let update = GroupUpdate {
            old: self.old.as_ref(),
            record: &self.record,
            values: &values,
            outbox: &self.outbox,
            messages: &self.messages,
            identity: self.identity.as_ref().map(|(old, new)| (old, new)),
        };
        if !update.is_empty() {
            store.save_group(&self.group, &update)?;
        }
        let group = self.group.clone();
        let events = std::mem::take(&mut self.events);
        Ok(events.into_iter().map(|kind| Event { group: group.clone(), kind }).collect())
    }

    /// The group of an active member; a typed error for everybody else.
    pub(crate) fn active(&mut self) -> Result<&mut MlsGroup, Error> {
        let why = match &self.record.status {
            Status::Active => {
                let lost = || StoreError::damaged("state of a group", "it is not there").into();
                return self.mls.as_mut().ok_or_else(lost);
            }
            Status::Stuck { seq, reason } => {
                return Err(Error::Stuck { seq: *seq, reason: reason.clone() });
            }
            Status::Joining => "joining is not finished; synchronize first",
            Status::Waiting => "it waits to be added again",
            Status::Left(LeftReason::Removed { .. } | LeftReason::RemovedUnseen) => {
                "it was removed; ask a member to invite it again"
            }
            Status::Left(_) => "it has left; ask a member to invite it again",
            Status::Closed => "the group was closed; create a new one",
        };
        Err(Error::NotMember(why.into()))
    }

    /// Adds something to the outbox. Returns its number.
    pub(crate) fn push_item(&mut self, kind: OutboxKind, body: Vec<u8>) -> u64 {
        let id = self.record.next_item;
        self.record.next_item += 1;
        self.outbox.push(OutboxItem::new(id, kind, body));
        id
    }

    /// Membership is over: the secrets go.
    pub(crate) fn forget_state(&mut self, status: Status) {
        self.record.status = status;
        self.record.pending = None;
        self.record.leaving = false;
        self.mls = None;
        self.provider.clear();
        self.outbox.retain(|item| item.is_message());
        self.outbox.iter_mut().for_each(OutboxItem::forget_message);
    }

    /// The group as a user sees it.
    pub(crate) fn view(&self) -> GroupView {
        let mls = self.mls.as_ref().filter(|_| self.record.status != Status::Joining);
        let mut member_ids: Vec<_> = mls.map(members).unwrap_or_default().into_iter().map(|m| m.1).collect();
        member_ids.sort();
        GroupView {
            group: self.group.clone(),
            kind: self.record.kind(),
            policy: self.record.policy(),
            status: self.record.status.clone(),
            seq: self.record.seq,
            epoch: self.record.epoch,
            state_id: self.record.state_id(),
            epoch_authenticator: mls.map(|g| g.epoch_authenticator().as_slice().to_vec()).unwrap_or_default(),
            members: member_ids,
            joined_epoch: self.record.joined_epoch,
            commit_pending: self.record.pending.is_some(),
            proposals_pending: self.record.proposals_pending,
            leaving: self.record.leaving,
            outbox: self.outbox.len(),
            provisional: false,
            retained_states: usize::from(mls.is_some()),
            repairing: false,
        }
    }
}

/// A group as a user sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupView {
    /// The group.
    pub group: GroupId,
    /// What it is.
    pub kind: GroupKind,
    /// Its policy.
    pub policy: Policy,
    /// Whether this client takes part.
    pub status: Status,
    /// Number of the last entry that was applied.
    pub seq: u64,
    /// The MLS epoch after that entry.
    pub epoch: u64,
    /// The exact state after that entry.
    pub state_id: StateId,
    /// RFC 9420 section 8.7: equal at all members that agree. Empty if this client is not a member.
    pub epoch_authenticator: Vec<u8>,
    /// The identities of all members, sorted. Empty if this client is not a member.
    pub members: Vec<Vec<u8>>,
    /// The epoch that this client joined in.
    pub joined_epoch: u64,
    /// A commit of this client waits to be decided.
    pub commit_pending: bool,
    /// Something that was proposed waits to be committed.
    pub proposals_pending: bool,
    /// This client has asked to be removed.
    pub leaving: bool,
    /// Messages that wait to be in the log.
    pub outbox: usize,
    /// The state was reached on a branch: the log says later what becomes of it. Only in DeMLS groups.
    pub provisional: bool,
    /// States of the group that this client holds. More than one only in DeMLS groups, until the log says `Stable`.
    pub retained_states: usize,
    /// Something is left to be done again after a branch has lost. Only in DeMLS groups.
    pub repairing: bool,
}

/// Leaf and client id of every member.
pub(crate) fn members(mls: &MlsGroup) -> Vec<(LeafNodeIndex, Vec<u8>)> {
    mls.members().map(|m| (m.index, client_id_of(&m.credential).to_vec())).collect()
}

/// The client ids of all members.
pub(crate) fn identities(mls: &MlsGroup) -> BTreeSet<Vec<u8>> {
    members(mls).into_iter().map(|(_, id)| id).collect()
}

/// The same id in OpenMLS' type.
pub(crate) fn mls_group_id(group: &GroupId) -> openmls::prelude::GroupId {
    openmls::prelude::GroupId::from_slice(group.as_bytes())
}
