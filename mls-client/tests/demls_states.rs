//! The states of a group on disk: shared, atomic, routed, measured.
#![allow(clippy::unwrap_used)] // A panic is the report.

mod demls_common;

use demls_common::*;
use mls_client::demls::{
    BranchStates, DmlsGroup, DmlsMessage, StateId,
    limits::MAX_PUNCTURE_BYTES,
    states::{
        MemoryRecords, Record, RecordChange, RecordName, Records, SqliteRecords, StateChange, StoreError,
    },
};
use openmls::prelude::*;

fn open(records: &MemoryRecords) -> BranchStates {
    BranchStates::open(records, GroupId::from_slice(GROUP_ID)).unwrap()
}

fn load(states: &BranchStates, records: &MemoryRecords, id: StateId) -> DmlsGroup {
    DmlsGroup::open(states.read(records, &id).unwrap()).unwrap()
}

#[test]
fn states_survive_a_restart_and_messages_find_theirs() {
    for policy in POLICIES {
        let [alice, bob, carol] = ["alice", "bob", "carol"].map(Client::new);
        let mut groups = group_of(policy, &[&alice, &bob, &carol]);
        let (mut c, mut b, mut a) = (groups.pop().unwrap(), groups.pop().unwrap(), groups.pop().unwrap());
        let (mut records, mut states) = (MemoryRecords::default(), open(&MemoryRecords::default()));
        states.store(&mut records, StateChange::new().put(state_id(0), None, c.state().unwrap())).unwrap();

        // A fork: carol follows both sides, from disk each time.
        let left = alice.commit(&mut a, &[]);
        let right = bob.commit(&mut b, &[]);
        for (number, own) in [(1, &left), (2, &right)] {
            let message = DmlsMessage::decode(&own.message).unwrap();
            let at = states.route(message.epoch()).unwrap();
            assert_eq!(at, state_id(0));
            let mut merged = carol.follow(load(&states, &records, at), &own.message);
            let change = StateChange::new().put(at, None, &merged.parent).put(
                state_id(number),
                Some(at),
                merged.next.state().unwrap(),
            );
            states.store(&mut records, change).unwrap();
            states = open(&records);
        }
        let mut a = alice.settle(a, left).next;
        let mut b = bob.settle(b, right).next;
        assert_eq!(states.ids().collect::<Vec<_>>(), [0, 1, 2].map(state_id));
        assert!(states.descends(&state_id(1), &state_id(0)) && !states.descends(&state_id(1), &state_id(2)));
        assert_eq!(states.read(&records, &state_id(0)).unwrap().keys().unwrap().pprf().punctures(), 2);

        for (client, group, number) in [(&alice, &mut a, 1), (&bob, &mut b, 2)] {
            let message = group.send(&client.crypto, &client.signer, b"content").unwrap();
            let at = states.route(DmlsMessage::decode(&message).unwrap().epoch()).unwrap();
            assert_eq!(at, state_id(number));
            let mut group = load(&states, &records, at);
            assert_eq!(carol.read(&mut group, &message), b"content");
            states.store(&mut records, StateChange::new().put(at, None, group.state().unwrap())).unwrap();
            // Stored: the key of the message is gone.
            states = open(&records);
            let mut again = load(&states, &records, at);
            assert!(again.process(&carol.crypto, DmlsMessage::decode(&message).unwrap()).is_err());
            assert_eq!(states.parent(&at), Some(state_id(0)));
        }

        // The fork point and the loser go; the winner stays as it was, and its chunks with it.
        let winner = records_of(&states, &records, state_id(1));
        states.store(&mut records, StateChange::new().delete(state_id(0)).delete(state_id(2))).unwrap();
        assert_eq!(open(&records).ids().collect::<Vec<_>>(), [state_id(1)]);
        assert_eq!(records_of(&open(&records), &records, state_id(1)), winner);
        assert!(agree(&[&load(&states, &records, state_id(1)), &a]));
        states.store(&mut records, StateChange::new().delete(state_id(1))).unwrap();
        assert_eq!(records.bytes(GROUP_ID), 0);
    }
}

/// A state as it is read back.
fn records_of(states: &BranchStates, records: &MemoryRecords, id: StateId) -> Vec<u8> {
    let state = states.read(records, &id).unwrap();
    let mut alone = MemoryRecords::default();
    let mut copy = open(&alone);
    copy.store(&mut alone, StateChange::new().put(id, None, &state)).unwrap();
    alone.all(GROUP_ID).unwrap().into_iter().flat_map(|record| record.body.to_vec()).collect()
}

/// Records whose next batch fails.
struct Failing(MemoryRecords);

impl Records for Failing {
    fn all(&self, group_id: &[u8]) -> Result<Vec<Record>, StoreError> {
        self.0.all(group_id)
    }

    fn get(
        &self,
        group_id: &[u8],
        name: RecordName,
    ) -> Result<Option<zeroize::Zeroizing<Vec<u8>>>, StoreError> {
        self.0.get(group_id, name)
    }

    fn apply(&mut self, _: &[u8], _: &[RecordChange]) -> Result<(), StoreError> {
        Err(StoreError::Backend("the disk is full".into()))
    }
}

#[test]
fn a_merge_that_cannot_be_stored_burns_nothing() {
    let (alice, bob) = (Client::new("alice"), Client::new("bob"));
    let mut groups = group_of(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY, &[&alice, &bob]);
    let (mut b, mut a) = (groups.pop().unwrap(), groups.pop().unwrap());
    let mut records = MemoryRecords::default();
    let mut states = open(&records);
    states.store(&mut records, StateChange::new().put(state_id(0), None, b.state().unwrap())).unwrap();
    let own = alice.commit(&mut a, &[]);
    let mut merged = bob.follow(b, &own.message);
    let mut failing = Failing(records);
    let change = StateChange::new().put(state_id(0), None, &merged.parent).put(
        state_id(1),
        Some(state_id(0)),
        merged.next.state().unwrap(),
    );
    assert!(states.store(&mut failing, change).is_err());
    assert!(!states.contains(&state_id(1)));
    let records = failing.0;
    for states in [states, open(&records)] {
        let next = bob.follow(load(&states, &records, state_id(0)), &own.message).next;
        assert!(agree(&[&next, &own.next]));
    }
}

#[test]
fn a_change_within_a_transaction_of_the_caller_stands_or_falls_with_it() {
    let alice = Client::new("alice");
    let mut a = alice.create(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY);
    let mut db = rusqlite::Connection::open_in_memory().unwrap();
    SqliteRecords::create_table(&db).unwrap();
    let group_id = GroupId::from_slice(GROUP_ID);
    let mut states = BranchStates::open(&SqliteRecords::new(&db), group_id.clone()).unwrap();
    for committed in [false, true] {
        let transaction = db.transaction().unwrap();
        let change = StateChange::new().put(state_id(0), None, a.state().unwrap());
        let prepared = states.prepare(change).unwrap();
        SqliteRecords::new(&transaction).apply(GROUP_ID, prepared.records()).unwrap();
        if committed {
            transaction.commit().unwrap();
            states.apply(prepared);
        } else {
            transaction.rollback().unwrap();
        }
        let stored = BranchStates::open(&SqliteRecords::new(&db), group_id.clone()).unwrap();
        assert_eq!((stored.contains(&state_id(0)), states.contains(&state_id(0))), (committed, committed));
    }
    let group = DmlsGroup::open(states.read(&SqliteRecords::new(&db), &state_id(0)).unwrap()).unwrap();
    assert!(agree(&[&group, &a]));
}

/// Bytes on disk for one member: a state alone, and what each further retained state adds.
struct Sizes {
    first: usize,
    added: Vec<usize>,
    pprf: usize,
}

fn measure(members: usize) -> Sizes {
    let policy = PURE_CIPHERTEXT_WIRE_FORMAT_POLICY;
    let (alice, bob) = (Client::new("alice"), Client::new("bob"));
    let others: Vec<_> = (2..members).map(|number| Client::new(&format!("member {number}"))).collect();
    let mut a = alice.create(policy);
    let bundle = bob.key_package();
    let mut added = vec![bundle.key_package().clone()];
    added.extend(others.iter().map(|client| client.key_package().key_package().clone()));
    let own = alice.commit(&mut a, &added);
    let mut b = bob.join(policy, own.welcome.as_ref().unwrap(), &bundle);
    a = alice.settle(a, own).next;

    let mut records = MemoryRecords::default();
    let mut states = open(&records);
    states.store(&mut records, StateChange::new().put(state_id(0), None, b.state().unwrap())).unwrap();
    let first = records.bytes(GROUP_ID);
    let (mut bytes, mut grown) = (first, Vec::new());
    for number in 1..=4 {
        let own = alice.commit(&mut a, &[]);
        let mut merged = bob.follow(b, &own.message);
        a = alice.settle(a, own).next;
        let change = StateChange::new().put(state_id(number - 1), None, &merged.parent).put(
            state_id(number),
            Some(state_id(number - 1)),
            merged.next.state().unwrap(),
        );
        states.store(&mut records, change).unwrap();
        b = merged.next;
        grown.push(records.bytes(GROUP_ID) - bytes);
        bytes = records.bytes(GROUP_ID);
    }
    let parent = states.read(&records, &state_id(0)).unwrap();
    Sizes { first, added: grown, pprf: parent.keys().unwrap().pprf().encode().len() }
}

#[test]
fn retained_states_cost_their_puncture_and_little_more() {
    // (members, most bytes of one state alone, most bytes that a further retained state adds, its puncture included)
    let bounds = [(3, 6_000, 13_500), (16, 15_000, 15_000), (64, 48_000, 17_500), (256, 176_000, 27_000)];
    for (members, first, added) in bounds {
        let sizes = measure(members);
        println!("{members} members: {} bytes, then {:?} each", sizes.first, sizes.added);
        assert!(sizes.pprf <= MAX_PUNCTURE_BYTES);
        assert!(sizes.first <= first, "{members} members: {} bytes", sizes.first);
        assert!(sizes.added.iter().all(|bytes| *bytes <= added), "{members} members: {:?}", sizes.added);
    }
}
