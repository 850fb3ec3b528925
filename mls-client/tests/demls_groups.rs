//! DeMLS groups at work: creating, joining, committing, forking, late messages.
#![allow(clippy::unwrap_used)] // A panic is the report.

mod demls_common;

use demls_common::*;
use mls_client::demls::{DemlsError, DmlsGroup, DmlsMessage, Processed};
use openmls::prelude::*;

#[test]
fn every_supported_ciphersuite_carries_a_group_through_its_life() {
    for suite in mls_client::demls::CIPHERSUITES {
        let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| Client::with_suite(name, suite));
        for policy in POLICIES {
            let mut groups = group_of(policy, &[&alice, &bob]);
            let (mut b, a) = (groups.pop().unwrap(), groups.pop().unwrap());
            assert!(agree(&[&a, &b]));

            let bundle = carol.key_package();
            let own = bob.commit(&mut b, &[bundle.key_package().clone()]);
            let a = alice.follow(a, &own.message).next;
            let mut c = carol.join(policy, own.welcome.as_ref().unwrap(), &bundle);
            let mut b = bob.settle(b, own).next;
            assert!(agree(&[&a, &b, &c]));

            let own = carol.commit(&mut c, &[]);
            let mut a = alice.follow(a, &own.message).next;
            b = bob.follow(b, &own.message).next;
            let mut c = carol.settle(c, own).next;
            assert!(agree(&[&a, &b, &c]));

            let message = a.send(&alice.crypto, &alice.signer, b"hello").unwrap();
            assert_eq!(bob.read(&mut b, &message), b"hello");
            assert_eq!(carol.read(&mut c, &message), b"hello");
        }
    }
}

#[test]
fn other_ciphersuites_are_refused_by_name() {
    let suite = Ciphersuite::MLS_256_DHKEMP384_AES256GCM_SHA384_P384;
    let client = Client::new("alice");
    let config = MlsGroupCreateConfig::builder().ciphersuite(suite).build();
    let created = DmlsGroup::create(
        &client.crypto,
        &client.signer,
        &config,
        GroupId::from_slice(GROUP_ID),
        client.credential.clone(),
    );
    assert!(matches!(created, Err(DemlsError::UnsupportedCiphersuite(refused)) if refused == suite));
}

#[test]
fn a_member_stands_on_both_sides_of_a_fork_and_reads_both() {
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(Client::new);
    for policy in POLICIES {
        let mut groups = group_of(policy, &[&alice, &bob, &carol]);
        let (c, mut b, mut a) = (groups.pop().unwrap(), groups.pop().unwrap(), groups.pop().unwrap());
        let left = alice.commit(&mut a, &[]);
        let right = bob.commit(&mut b, &[]);

        let first = carol.follow(c, &left.message);
        let second = carol.follow(reopened(&first.parent), &right.message);
        let (mut on_left, mut on_right) = (first.next, second.next);
        assert_eq!(second.parent.keys().unwrap().pprf().punctures(), 2);
        let mut a = alice.settle(a, left).next;
        let mut b = bob.settle(b, right).next;
        assert!(agree(&[&a, &on_left]) && agree(&[&b, &on_right]) && !agree(&[&a, &b]));

        let message = a.send(&alice.crypto, &alice.signer, b"left").unwrap();
        assert_eq!(carol.read(&mut on_left, &message), b"left");
        let message = b.send(&bob.crypto, &bob.signer, b"right").unwrap();
        assert_eq!(carol.read(&mut on_right, &message), b"right");

        // The left side wins: bob, who has settled on the right, gets there from the state that he has retained.
        let own = carol.commit(&mut on_left, &[]);
        let a = alice.follow(a, &own.message).next;
        assert!(agree(&[&a, &carol.settle(on_left, own).next]));
    }
}

#[test]
fn a_committer_whose_branch_lost_follows_the_winner_from_the_fork_point() {
    let [alice, bob] = ["alice", "bob"].map(Client::new);
    for policy in POLICIES {
        let mut groups = group_of(policy, &[&alice, &bob]);
        let (mut b, mut a) = (groups.pop().unwrap(), groups.pop().unwrap());
        let winner = alice.commit(&mut a, &[]);
        let loser = bob.commit(&mut b, &[]);
        let fork_point = bob.settle(b, loser).parent;
        let b = bob.follow(reopened(&fork_point), &winner.message).next;
        let a = alice.settle(a, winner).next;
        assert!(agree(&[&a, &b]));
    }
}

#[test]
fn late_messages_are_read_in_the_state_they_were_sent_in() {
    let [alice, bob] = ["alice", "bob"].map(Client::new);
    for policy in POLICIES {
        let mut groups = group_of(policy, &[&alice, &bob]);
        let (b, mut a) = (groups.pop().unwrap(), groups.pop().unwrap());
        let late = a.send(&alice.crypto, &alice.signer, b"late").unwrap();
        let own = alice.commit(&mut a, &[]);
        let merged = bob.follow(b, &own.message);
        let mut next = merged.next;
        let error = next.process(&bob.crypto, DmlsMessage::decode(&late).unwrap()).err().unwrap();
        assert!(matches!(error, DemlsError::WrongEpoch { .. }), "{error}");
        let mut retained = reopened(&merged.parent);
        assert_eq!(bob.read(&mut retained, &late), b"late");
        // Its key is gone with it.
        assert!(retained.process(&bob.crypto, DmlsMessage::decode(&late).unwrap()).is_err());
    }
}

#[test]
fn proposals_of_others_are_committed_updates_included() {
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(Client::new);
    for policy in POLICIES {
        let mut groups = group_of(policy, &[&alice, &bob, &carol]);
        let (mut c, mut b, mut a) = (groups.pop().unwrap(), groups.pop().unwrap(), groups.pop().unwrap());
        let update = b.propose_update(&bob.crypto, &bob.signer, LeafNodeParameters::default()).unwrap();
        let remove = b.propose_remove(&bob.crypto, &bob.signer, c.mls().own_leaf_index()).unwrap();
        for (client, group) in [(&alice, &mut a), (&carol, &mut c)] {
            for message in [&update, &remove] {
                match group.process(&client.crypto, DmlsMessage::decode(message).unwrap()).unwrap() {
                    Processed::Proposal(proposal) => group.accept_proposal(*proposal).unwrap(),
                    _ => panic!("expected a proposal"),
                }
            }
        }
        let own = alice.commit(&mut a, &[]);
        let b = bob.follow(b, &own.message).next;
        let mut removed = carol.follow(c, &own.message).next;
        let a = alice.settle(a, own).next;
        assert!(agree(&[&a, &b]));
        assert_eq!(a.members().count(), 2);
        assert!(!removed.is_active());
        assert!(matches!(removed.send(&carol.crypto, &carol.signer, b"?"), Err(DemlsError::Removed)));
    }
}
