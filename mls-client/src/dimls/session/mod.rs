//! A DiMLS session: all Send Groups of one DGroup as one member holds them. Bytes in, bytes out.
//!
//! Every operation changes memory first, then stores everything that changed in one transaction, and only then says what happened.
//! The owner of a Send Group is the only one who commits in it, so an own commit is merged at once: nobody can be faster.

mod apply;
mod commit;
mod join;
mod lost;
mod receive;
mod tick;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use group_log::{
    ClientId, GroupId,
    dimls::{DgroupId, Setup},
};
use openmls::prelude::{Ciphersuite, KeyPackage};
use openmls_rust_crypto::RustCrypto;

pub use self::view::View;
use super::{
    error::{DimlsError, Rejected},
    graph::{Graph, Member, Node},
    group::{SendGroup, Space},
    item::{DgroupMessage, Item},
    limits::{OUTBOX_ITEMS, WAITING_BYTES, WAITING_ITEMS},
    policy::Policy,
    record::{self, Peer, PeerRow, Record, SESSION},
    records::{Change, KEY_PACKAGES, OUTBOX, PSKS, Records, SEND_GROUPS, STATE},
    removal::Removals,
    waiting::Waiting,
};
use crate::{
    demls::Secret,
    identity::{Identity, capabilities},
};

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message came. It is stored, too.
    Message(DgroupMessage),
    /// A Send Group went into another epoch; this client is in it.
    Entered {
        /// Whose Send Group.
        owner: ClientId,
        /// Its epoch.
        epoch: u64,
        /// Whether it was an UPDATE.
        update: bool,
    },
    /// An owner has removed a member from its Send Group. The others owe the same.
    Removed {
        /// Who is gone.
        member: ClientId,
        /// Who removed it.
        by: ClientId,
    },
    /// An item was not taken in.
    Rejected {
        /// Whose item it claims to be.
        owner: ClientId,
        /// Its number.
        seq: u64,
        /// Why.
        reason: Rejected,
    },
    /// This client cannot follow the Send Group of `owner` until its leaf there is replaced.
    Lost {
        /// Whose Send Group.
        owner: ClientId,
    },
    /// An item waits for the PSK of an epoch that this client has not entered yet.
    Waiting {
        /// Whose item.
        owner: ClientId,
        /// Its number.
        seq: u64,
        /// Whose epoch.
        needs: ClientId,
        /// Which one.
        epoch: u64,
    },
}

/// One member's side of one DGroup.
pub struct Session<R> {
    records: R,
    crypto: Arc<RustCrypto>,
    identity: Identity,
    setup: Setup,
    id: DgroupId,
    me: Member,
    ciphersuite: Ciphersuite,
    record: Record,
    peers: Vec<Peer>,
    graph: Graph,
    groups: Vec<Option<SendGroup>>,
    keys: Space,
    psks: BTreeMap<Node, Secret>,
    outbox: BTreeMap<u64, Item>,
    waiting: Vec<Waiting<Item>>,
    /// Members whose records have to be written.
    touched: BTreeSet<Member>,
    /// Changes that are not stored yet, beside those of touched members and Send Groups.
    changes: Vec<Change>,
    poisoned: bool,
}

impl<R: Records> Session<R> {
    /// INIT: begins this client's part of a DGroup. Its first item, the KeyPackage by which the others add it, is in the outbox then.
    pub fn create(
        records: R,
        identity: Identity,
        setup: &Setup,
        policy: Policy,
        now_ms: u64,
    ) -> Result<Self, DimlsError> {
        let id = setup.id();
        if !records.read(&id, STATE, None, 1)?.is_empty() {
            return Err(DimlsError::Setup("this client has a session of it already; open that one".into()));
        }
        let record = Record {
            setup: setup.encode(),
            policy,
            next_own: 1,
            generation: 0,
            held: BTreeMap::new(),
            removals: Removals::default(),
            replaced_at: now_ms,
            unacknowledged_since: None,
            looked_at: now_ms,
            said_lost: BTreeSet::new(),
            asked_at: now_ms,
            messages: 0,
        };
        let members = setup.members().len();
        let peers = vec![Peer::new(now_ms); members];
        let graph = Graph::new(members);
        let mut session = Self::assemble(records, identity, setup.clone(), record, peers, graph)?;
        let own = SendGroup::found(&session.crypto, &session.identity, &session.send_group(session.me))?;
        session.groups[usize::from(session.me)] = Some(own);
        session.entered_own(false, &[])?;
        let package = session.new_key_package()?;
        session.push(package, Vec::new())?;
        session.touched.extend(0..members as Member);
        session.store()?;
        Ok(session)
    }

    /// Opens what was stored.
    pub fn open(records: R, identity: Identity, id: &DgroupId) -> Result<Self, DimlsError> {
        let all = |part| records.read(id, part, None, usize::MAX);
        let (mut record, mut rows) = (None, BTreeMap::new());
        for (key, value) in all(STATE)? {
            if key == SESSION {
                record = Some(record::get::<Record>(&value)?);
            } else {
                rows.insert(key, record::get::<PeerRow>(&value)?);
            }
        }
        let record = record.ok_or(DimlsError::Unknown)?;
        let setup = Setup::decode(&record.setup).map_err(|e| DimlsError::Damaged(e.to_string()))?;
        if rows.len() != setup.members().len() {
            return Err(DimlsError::Damaged("the record of a member is not there".into()));
        }
        let mut psks = BTreeMap::new();
        for (key, value) in all(PSKS)? {
            psks.insert(record::psk_node(&key)?, Secret::from_slice(&value));
        }
        let outbox = all(OUTBOX)?;
        let key_packages = all(KEY_PACKAGES)?;
        let mut stored_groups = Vec::new();
        for number in 0..setup.members().len() {
            stored_groups.push(all(SEND_GROUPS + number as u32)?);
        }

        let (peers, rows): (Vec<_>, Vec<_>) = rows.into_values().map(|row| (row.peer, row.row)).unzip();
        let graph = Graph::from_rows(rows, psks.keys().copied());
        let mut session = Self::assemble(records, identity, setup, record, peers, graph)?;
        for (number, stored) in stored_groups.into_iter().enumerate() {
            let group_id = session.send_group(number as Member);
            session.groups[number] = SendGroup::load(&session.crypto, &group_id, stored)?;
        }
        session.keys = Space::load(&session.crypto, key_packages);
        session.psks = psks;
        for (key, value) in outbox {
            let item = record::get_item(session.identity.client_id(), &key, &value)?;
            session.outbox.insert(item.seq, item);
        }
        Ok(session)
    }

    fn assemble(
        records: R,
        identity: Identity,
        setup: Setup,
        record: Record,
        peers: Vec<Peer>,
        graph: Graph,
    ) -> Result<Self, DimlsError> {
        record.policy.check()?;
        let me = setup.number(identity.client_id()).ok_or(DimlsError::NotMember)? as Member;
        let ciphersuite = identity.ciphersuite();
        if setup.ciphersuites().first() != Some(&u16::from(ciphersuite)) {
            return Err(DimlsError::Setup(format!(
                "its ciphersuite is {:#06x}, this client's is {:#06x}; use an identity with the former",
                setup.ciphersuites().first().copied().unwrap_or_default(),
                u16::from(ciphersuite)
            )));
        }
        let crypto = Arc::new(RustCrypto::default());
        let members = setup.members().len();
        Ok(Session {
            id: setup.id(),
            records,
            keys: Space::empty(&crypto),
            crypto,
            identity,
            me,
            ciphersuite,
            record,
            peers,
            graph,
            groups: (0..members).map(|_| None).collect(),
            psks: BTreeMap::new(),
            outbox: BTreeMap::new(),
            waiting: (0..members).map(|_| Waiting::new(WAITING_ITEMS, WAITING_BYTES)).collect(),
            touched: BTreeSet::new(),
            changes: Vec::new(),
            poisoned: false,
            setup,
        })
    }

    /// Stores everything that changed, in one transaction.
    fn store(&mut self) -> Result<(), DimlsError> {
        let mut changes = std::mem::take(&mut self.changes);
        changes.push(record::put(STATE, SESSION, &self.record)?);
        for member in std::mem::take(&mut self.touched) {
            let number = usize::from(member);
            let row =
                self.graph.row(member).ok_or_else(|| DimlsError::Damaged("a member is not there".into()))?;
            changes.push(record::put_peer(member, &self.peers[number], row)?);
            if let Some(group) = &mut self.groups[number] {
                changes.extend(group.space.changes(SEND_GROUPS + u32::from(member)));
            }
        }
        changes.extend(self.keys.changes(KEY_PACKAGES));
        self.records.apply(&self.id, &changes).inspect_err(|_| self.poisoned = true)?;
        Ok(())
    }

    /// Runs an operation: all of it is stored, or the session has to be opened again.
    fn operate<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, DimlsError>) -> Result<T, DimlsError> {
        if self.poisoned {
            return Err(DimlsError::Poisoned);
        }
        // What fails half-way must not be stored with the next operation.
        self.poisoned = true;
        let result = work(self)?;
        self.store()?;
        self.poisoned = false;
        Ok(result)
    }

    /// Refuses what is no reason to distrust the memory.
    fn check_sending(&self) -> Result<(), DimlsError> {
        if self.record.removals.by(self.me).is_some() {
            return Err(DimlsError::Removed);
        }
        if self.outbox.len() >= OUTBOX_ITEMS {
            return Err(DimlsError::OutboxFull { limit: OUTBOX_ITEMS, got: self.outbox.len() });
        }
        Ok(())
    }

    fn send_group(&self, member: Member) -> GroupId {
        self.id.send_group(self.client(member))
    }

    fn client(&self, member: Member) -> &ClientId {
        &self.setup.members()[usize::from(member)]
    }

    /// A member's number, if this is the key that it began with, or nothing of it has been seen yet. A wrong key is found out in the
    /// next epoch, and harms only the Send Group of the owner who vouched for it.
    fn known(&self, client: &ClientId, signature_key: &[u8]) -> Option<Member> {
        let number = self.setup.number(client)?;
        let expected = if number == usize::from(self.me) {
            self.identity.signer().public()
        } else {
            &self.peers[number].signature_key.0
        };
        (expected.is_empty() || expected == signature_key).then_some(number as Member)
    }

    /// Puts something at the end of the own stream.
    fn push(&mut self, message: Vec<u8>, welcome: Vec<u8>) -> Result<u64, DimlsError> {
        let seq = self.record.next_own;
        let owner = self.identity.client_id().clone();
        let item = Item { owner, seq, message: message.into(), welcome: welcome.into() };
        self.record.next_own += 1;
        self.changes.push(record::put_item(&item)?);
        self.outbox.insert(seq, item);
        Ok(seq)
    }

    /// A new last-resort KeyPackage of this client: the next generation. Returns the MLSMessage.
    fn new_key_package(&mut self) -> Result<Vec<u8>, DimlsError> {
        let failed = |e: &dyn std::fmt::Display| DimlsError::mls("making a KeyPackage", e);
        let bundle = KeyPackage::builder()
            .leaf_node_capabilities(capabilities(self.ciphersuite))
            .mark_as_last_resort()
            .build(self.ciphersuite, &self.keys.provider, self.identity.signer(), self.identity.credential())
            .map_err(|e| failed(&e))?;
        let reference = bundle.key_package().hash_ref(&*self.crypto).map_err(|e| failed(&e))?;
        let generation = self.record.held.last_key_value().map_or(0, |(newest, _)| newest + 1);
        self.record.generation = generation;
        self.record.held.insert(generation, record::HexBytes(reference.as_slice().to_vec()));
        let message = openmls::prelude::MlsMessageOut::from(bundle.into_key_package());
        message.to_bytes().map_err(|e| failed(&e))
    }

    fn message(&mut self, from: Member, seq: u64, epoch: u64, body: Vec<u8>) -> Result<Event, DimlsError> {
        self.record.messages += 1;
        let number = self.record.messages;
        let message = DgroupMessage { number, sender: self.client(from).clone(), seq, epoch, body };
        self.changes.push(record::put_message(&message)?);
        if let Some(old) = number.checked_sub(super::limits::MESSAGES_KEPT) {
            self.changes.push(record::delete(super::records::MESSAGES, old));
        }
        Ok(Event::Message(message))
    }
}

#[cfg(test)]
#[path = "owner_tests.rs"]
mod owner_tests;
