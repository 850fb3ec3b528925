//! A member of somebody else's Send Group has its keys, and can make messages in it that are valid in MLS. Nobody takes them in.

use openmls::prelude::LeafNodeParameters;

use super::*;
use crate::{dimls::records::MemoryRecords, identity::DEFAULT_CIPHERSUITE, store::Store};

type Member = Session<MemoryRecords>;

fn client(number: usize) -> ClientId {
    ClientId::new(format!("member-{number}")).unwrap()
}

/// Brings everything to everybody until nobody has anything to send.
fn settle(members: &mut [Member]) {
    loop {
        let mut items = Vec::new();
        for member in members.iter_mut() {
            member.tick(0).unwrap();
            items.extend(member.outbox().cloned());
            member.confirmed(u64::MAX).unwrap();
        }
        if items.is_empty() {
            return;
        }
        for item in &items {
            for member in members.iter_mut() {
                let told = member.receive(item.clone(), 0).unwrap();
                assert!(!told.iter().any(|event| matches!(event, Event::Rejected { .. })), "{told:?}");
            }
        }
    }
}

fn three() -> Vec<Member> {
    let setup = Setup::new([1; 16], (0..3).map(client), [u16::from(DEFAULT_CIPHERSUITE)], 32).unwrap();
    let begin = |number| {
        let mut store = Store::in_memory().unwrap();
        let identity = Identity::create(&mut store, client(number), DEFAULT_CIPHERSUITE).unwrap();
        Session::create(MemoryRecords::default(), identity, &setup, Policy::default(), 0).unwrap()
    };
    let mut members: Vec<Member> = (0..3).map(begin).collect();
    settle(&mut members);
    members
}

#[test]
fn what_another_member_makes_in_an_owners_send_group_is_refused_although_its_keys_are_right() {
    let mut members = three();
    // Member 1, in the Send Group of member 2: a message and a commit that OpenMLS would take from it.
    let seq = members[2].made() + 1;
    let (message, commit) = {
        let intruder = &mut members[1];
        let group = intruder.groups[2].as_mut().unwrap();
        let (provider, signer) = (&group.space.provider, intruder.identity.signer());
        let message = group.mls.create_message(provider, signer, b"as the owner").unwrap();
        let commit = group.mls.self_update(provider, signer, LeafNodeParameters::default()).unwrap();
        (message.to_bytes().unwrap(), commit.into_commit().to_bytes().unwrap())
    };
    let before = members[0].view();
    for forged in [message, commit] {
        let item = Item { owner: client(2), seq, message: forged.into(), welcome: bytes::Bytes::new() };
        let told = members[0].receive(item, 0).unwrap();
        assert!(matches!(told[..], [Event::Rejected { reason: Rejected::NotOwner(_), .. }]), "{told:?}");
    }
    assert_eq!(members[0].view(), before);
    // The owner's own comes at the same place, and is taken in.
    members[2].protect(b"from the owner").unwrap();
    let item = members[2].outbox().next().unwrap().clone();
    assert_eq!(item.seq, seq);
    let told = members[0].receive(item, 0).unwrap();
    assert!(matches!(&told[..], [Event::Message(m)] if m.body == b"from the owner"), "{told:?}");
}
