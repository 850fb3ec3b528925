//! A DeMLS group as an operation sees it.

use std::collections::{BTreeMap, BTreeSet};

use group_log::{EntryId, GroupId, StateId};
use openmls::prelude::MlsGroup;
use openmls_rust_crypto::RustCrypto;
use rusqlite::Connection;

use crate::{
    demls::{BranchStates, DemlsError, DmlsGroup, EpochState, states::SqliteRecords, states::StateChange},
    error::Error,
    event::{Event, EventKind},
    group::{GroupView, members, mls_group_id},
    store::{
        ForkRecord, GroupRecord, LeftReason, OutboxItem, OutboxKind, Status, StoreError, StoredMessage,
        branch_entries::{self, Node},
        groups, messages, outbox,
    },
};

/// One DeMLS group within a transaction: what an operation may look at and change.
pub(crate) struct BranchWork<'a> {
    pub(crate) group: GroupId,
    pub(crate) record: GroupRecord,
    pub(crate) fork: ForkRecord,
    /// The commits that are known, by the state that each leads to.
    pub(super) nodes: BTreeMap<StateId, Node>,
    pub(super) states: BranchStates,
    pub(crate) outbox: Vec<OutboxItem>,
    /// What this operation has to tell, in order.
    pub(crate) events: Vec<EventKind>,
    messages: Vec<StoredMessage>,
    outbox_before: Vec<OutboxItem>,
    record_before: Option<GroupRecord>,
    pub(super) db: &'a Connection,
    pub(super) crypto: &'a RustCrypto,
}

/// A group that this client has no state of. `old` is what it had before; messages and what waits to be sent are kept.
pub(crate) fn begin<'a>(
    db: &'a Connection,
    crypto: &'a RustCrypto,
    group: GroupId,
    mut record: GroupRecord,
    old: Option<BranchWork<'a>>,
) -> Result<BranchWork<'a>, Error> {
    let states = BranchStates::open(&SqliteRecords::new(db), mls_group_id(&group)).map_err(damaged)?;
    let next_message = old.as_ref().map_or(1, |old| old.fork.next_message);
    let fork = ForkRecord::new(next_message);
    let (mut waiting, before, outbox_before) = match old {
        Some(old) => {
            record.next_item = old.record.next_item;
            (old.outbox, old.record_before, old.outbox_before)
        }
        None => Default::default(),
    };
    waiting.retain(OutboxItem::is_message);
    waiting.iter_mut().for_each(OutboxItem::forget_message);
    let mut work = BranchWork {
        group,
        record,
        fork,
        nodes: BTreeMap::new(),
        states,
        outbox: waiting,
        events: Vec::new(),
        messages: Vec::new(),
        outbox_before,
        record_before: before,
        db,
        crypto,
    };
    work.forget_states()?;
    Ok(work)
}

impl<'a> BranchWork<'a> {
    /// Takes up a group from the store.
    pub(crate) fn load(
        db: &'a Connection,
        crypto: &'a RustCrypto,
        group: &GroupId,
    ) -> Result<Option<Self>, Error> {
        let Some(record) = groups::read_record(db, group)? else { return Ok(None) };
        let states = BranchStates::open(&SqliteRecords::new(db), mls_group_id(group)).map_err(damaged)?;
        let outbox = outbox::read(db, group)?;
        Ok(Some(BranchWork {
            group: group.clone(),
            fork: record.fork.clone().unwrap_or_default(),
            nodes: branch_entries::commits(db, group)?,
            states,
            outbox: outbox.clone(),
            events: Vec::new(),
            messages: Vec::new(),
            outbox_before: outbox,
            record_before: Some(record.clone()),
            record,
            db,
            crypto,
        }))
    }

    /// Writes what is not written yet. Returns what there is to tell, and whether anything that others wait for has changed.
    pub(crate) fn save(mut self) -> Result<(Vec<Event>, bool), Error> {
        if self.record.status == Status::Active
            && let Some(current) = self.fork.current()
        {
            self.record.proposals_pending = self.open(&current)?.mls().has_pending_proposals();
        }
        self.record.fork = Some(self.fork.clone());
        let changed = self.record_before.as_ref() != Some(&self.record);
        if changed {
            groups::write_record(self.db, &self.group, &self.record)?;
        }
        outbox::write(self.db, &self.group, &self.outbox_before, &self.outbox)?;
        messages::write(self.db, &self.group, &self.messages)?;
        let changed = changed || self.outbox != self.outbox_before || !self.events.is_empty();
        let group = self.group;
        let events = self.events.into_iter().map(|kind| Event { group: group.clone(), kind });
        Ok((events.collect(), changed))
    }

    /// Opens a state that is held.
    pub(super) fn open(&self, state: &StateId) -> Result<DmlsGroup, Error> {
        Ok(DmlsGroup::open(self.read(state)?)?)
    }

    pub(super) fn read(&self, state: &StateId) -> Result<EpochState, Error> {
        self.states.read(&SqliteRecords::new(self.db), state).map_err(damaged)
    }

    /// Stores states: all of them belong together.
    pub(super) fn store(&mut self, change: StateChange<'_>) -> Result<(), Error> {
        self.states.store(&mut SqliteRecords::new(self.db), change).map_err(damaged)
    }

    /// Stores one state again.
    pub(super) fn store_again(&mut self, state: StateId, mut opened: DmlsGroup) -> Result<(), Error> {
        self.store(StateChange::new().put(state, None, opened.state()?))
    }

    /// Keeps what is known of a commit or message.
    pub(super) fn put_node(&mut self, node: Node) -> Result<(), Error> {
        branch_entries::put(self.db, &self.group, &node)?;
        if node.is_commit {
            self.nodes.insert(node.id.as_state(), node);
        }
        Ok(())
    }

    pub(super) fn node(&self, id: &EntryId) -> Result<Option<Node>, Error> {
        match self.nodes.get(&id.as_state()) {
            Some(node) => Ok(Some(node.clone())),
            None => Ok(branch_entries::find(self.db, &self.group, id)?),
        }
    }

    /// Whether `ancestor` is `state` or comes before it, as far as commits are known.
    pub(super) fn descends(&self, state: &StateId, ancestor: &StateId) -> bool {
        self.line(state).any(|at| at == *ancestor)
    }

    /// The state and those it comes from, as far as commits are known.
    pub(super) fn line(&self, state: &StateId) -> impl Iterator<Item = StateId> + '_ {
        // Ids are hashes of their parents, so there is no way round in a circle.
        std::iter::successors(Some(*state), |at| self.nodes.get(at).map(|node| node.parent))
    }

    /// The log says that the state, or one it comes from, has lost.
    pub(super) fn is_dead(&self, state: &StateId) -> bool {
        self.line(state)
            .any(|at| self.nodes.get(&at).and_then(|node| node.verdict).is_some_and(|verdict| verdict.dead))
    }

    /// The state that an active member acts in; a typed error for everybody else.
    pub(crate) fn active(&self) -> Result<StateId, Error> {
        let why = match &self.record.status {
            Status::Active => {
                let lost = || StoreError::damaged("state of a group", "it is not there").into();
                return self.fork.current().ok_or_else(lost);
            }
            Status::Stuck { seq, reason } => {
                return Err(Error::Stuck { seq: *seq, reason: reason.clone() });
            }
            Status::Waiting => {
                "the branch that it was added on has lost; whoever added it there adds it again"
            }
            Status::Joining => "joining is not finished; synchronize first",
            Status::Left(LeftReason::Removed { .. } | LeftReason::RemovedUnseen) => {
                "it was removed; ask a member to invite it again"
            }
            Status::Left(_) => "it has left; ask a member to invite it again",
            Status::Closed => "the group was closed; create a new one",
        };
        Err(Error::NotMember(why.into()))
    }

    /// This client stands in a state from now on (or nowhere), and tells who has come and gone by that.
    pub(super) fn stand(&mut self, state: Option<StateId>) -> Result<(), Error> {
        let before = self.identities(self.fork.current())?;
        let after = self.identities(state)?;
        self.fork.set_current(state);
        if state.is_some() && !before.is_empty() {
            self.events
                .extend(after.difference(&before).map(|m| EventKind::MemberAdded { member: m.clone() }));
            self.events
                .extend(before.difference(&after).map(|m| EventKind::MemberRemoved { member: m.clone() }));
        }
        Ok(())
    }

    fn identities(&self, state: Option<StateId>) -> Result<BTreeSet<Vec<u8>>, Error> {
        match state.filter(|state| self.states.contains(state)) {
            Some(state) => Ok(members(self.open(&state)?.mls()).into_iter().map(|(_, id)| id).collect()),
            None => Ok(BTreeSet::new()),
        }
    }

    /// Membership is over: the secrets go.
    pub(crate) fn forget_state(&mut self, status: Status) -> Result<(), Error> {
        self.record.status = status;
        self.record.pending = None;
        self.record.leaving = false;
        self.fork.again = Default::default();
        self.fork.owed.clear();
        self.outbox.retain(OutboxItem::is_message);
        self.outbox.iter_mut().for_each(OutboxItem::forget_message);
        self.forget_states()
    }

    /// Deletes all states, and what is known of the commits between them.
    pub(super) fn forget_states(&mut self) -> Result<(), Error> {
        let all: Vec<_> = self.states.ids().collect();
        self.store(all.into_iter().fold(StateChange::new(), StateChange::delete))?;
        branch_entries::forget_all(self.db, &self.group)?;
        self.nodes.clear();
        self.fork.set_current(None);
        Ok(())
    }

    /// Adds something to the outbox. Returns its number.
    pub(super) fn push_item(&mut self, kind: OutboxKind, body: Vec<u8>) -> u64 {
        let id = self.record.next_item;
        self.record.next_item += 1;
        self.outbox.push(OutboxItem::new(id, kind, body));
        id
    }

    /// Keeps a message in the clear under its own number.
    pub(super) fn keep_message(&mut self, make: impl FnOnce(u64) -> StoredMessage) -> u64 {
        let number = self.fork.next_message;
        self.fork.next_message += 1;
        self.messages.push(make(number));
        number
    }

    /// The messages of this operation are written now, so that what became of them can be noted.
    pub(super) fn write_messages(&mut self) -> Result<(), Error> {
        messages::write(self.db, &self.group, &std::mem::take(&mut self.messages))?;
        Ok(())
    }

    /// States that are held.
    pub(crate) fn state_count(&self) -> usize {
        self.states.ids().count()
    }

    /// Those of these entries that were not taken in, so that what they carry is needed.
    pub(crate) fn not_taken_in(&self, ids: &[EntryId]) -> Result<Vec<EntryId>, Error> {
        let mut missing = Vec::new();
        for id in ids {
            if self.node(id)?.is_none_or(|node| !node.processed) {
                missing.push(*id);
            }
        }
        Ok(missing)
    }

    /// A look at the state that this client acts in.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&MlsGroup) -> T) -> Result<T, Error> {
        let opened = self.open(&self.active()?)?;
        Ok(look(opened.mls()))
    }

    /// Entries that branches have and the log does not, as far as this client took them in: their ids.
    pub(crate) fn undecided(&self) -> Result<Vec<(EntryId, Vec<u8>)>, Error> {
        Ok(branch_entries::undecided(self.db, &self.group)?)
    }

    /// The group as a user sees it.
    pub(crate) fn view(&self) -> Result<GroupView, Error> {
        let current = self.fork.current().filter(|_| self.record.status != Status::Joining);
        let opened = current.map(|state| self.open(&state)).transpose()?;
        let mls = opened.as_ref().map(DmlsGroup::mls);
        let mut member_ids: Vec<_> = mls.map(members).unwrap_or_default().into_iter().map(|m| m.1).collect();
        member_ids.sort();
        let epoch = mls.map_or(self.record.epoch, |mls| mls.epoch().as_u64());
        Ok(GroupView {
            group: self.group.clone(),
            kind: self.record.kind(),
            policy: self.record.policy(),
            status: self.record.status.clone(),
            seq: self.record.seq,
            epoch,
            state_id: current.unwrap_or(self.record.state_id()),
            epoch_authenticator: mls.map(authenticator).unwrap_or_default(),
            members: member_ids,
            joined_epoch: self.record.joined_epoch,
            commit_pending: self.record.pending.is_some(),
            proposals_pending: self.record.proposals_pending,
            leaving: self.record.leaving,
            outbox: self.outbox.len(),
            provisional: current.is_some_and(|state| state != self.record.state_id()),
            retained_states: self.state_count(),
            repairing: !self.fork.owed.is_empty() || !self.fork.again.is_empty(),
        })
    }
}

pub(super) fn authenticator(mls: &MlsGroup) -> Vec<u8> {
    mls.epoch_authenticator().as_slice().to_vec()
}

fn damaged(error: crate::demls::states::StoreError) -> Error {
    DemlsError::from(error).into()
}
