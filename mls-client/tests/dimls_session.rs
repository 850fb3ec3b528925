//! A DGroup over links that work: what its members can do, and what a crash leaves.

#![allow(clippy::unwrap_used)] // A panic in a test is its report.

mod dimls_support;

use dimls_support::{HOUR, MINUTE, World, client, policy};
use mls_client::dimls::{Event, Policy, Session};

#[test]
fn messages_reach_everybody_and_updates_are_taken_in_by_all() {
    let mut world = World::ready(4, policy());
    world.members[0].protect(b"hello").unwrap();
    world.members[3].protect(b"hello, too").unwrap();
    world.settle();
    let said = [(client(0), b"hello".to_vec()), (client(3), b"hello, too".to_vec())];
    for number in 1..3 {
        let mut read: Vec<_> = world.read(number).into_iter().map(|(who, _, body)| (who, body)).collect();
        read.sort();
        assert_eq!(read, said);
    }
    let now = world.now;
    world.members[2].update(now).unwrap();
    world.settle();
    assert!(!world.all_taken_in(&[0, 1, 2, 3]), "nobody acknowledges before its time");
    world.pass(2 * MINUTE);
    assert!(world.all_taken_in(&[0, 1, 2, 3]));
    // An acknowledgement is not acknowledged: nothing more happens until the next full replacement.
    let epochs: Vec<u64> = world.members.iter().map(|m| m.view().epoch).collect();
    world.pass(HOUR);
    assert_eq!(world.members.iter().map(|m| m.view().epoch).collect::<Vec<_>>(), epochs);
    world.members[1].protect(b"still here").unwrap();
    world.settle();
    assert_eq!(world.read(2).last().unwrap().2, b"still here");
}

#[test]
fn a_full_replacement_gives_everybody_a_new_leaf_and_nobody_is_left_behind() {
    let mut world = World::ready(4, policy());
    let now = world.now;
    for number in 0..4 {
        world.members[number].update(now).unwrap();
    }
    world.settle();
    for number in 0..4 {
        world.members[number].replace(now).unwrap();
        world.settle();
    }
    for number in 0..4 {
        world.members[number].protect(format!("from {number}").as_bytes()).unwrap();
    }
    world.settle();
    for number in 0..4 {
        assert_eq!(world.read(number).len(), 3);
        let bad =
            |e: &&Event| matches!(e, Event::Rejected { .. } | Event::Lost { .. } | Event::Removed { .. });
        assert_eq!(world.events[number].iter().find(bad), None);
    }
    world.pass(3 * MINUTE);
    assert!(world.all_taken_in(&[0, 1, 2, 3]));
}

#[test]
fn the_policy_keeps_a_quiet_group_fresh_for_days() {
    let mut world = World::ready(3, Policy { offline_after_ms: 20 * HOUR, ..policy() });
    world.pass(49 * HOUR);
    for member in &world.members {
        let view = member.view();
        assert_eq!(view.members.len(), 3, "whoever keeps to the policy is not taken for offline");
        assert!(member.own_update() > 0);
        assert!(view.peers.iter().all(|peer| !peer.lost && peer.waiting == 0));
    }
    assert!(world.all_taken_in(&[0, 1, 2]));
}

#[test]
fn a_silent_member_is_removed_by_all_and_reads_nothing_afterwards() {
    let mut world = World::ready(4, Policy { offline_after_ms: 20 * HOUR, ..policy() });
    let present = [0, 1, 2];
    while world.now < 31 * HOUR {
        world.now += 30 * MINUTE;
        world.settle_among(&present);
    }
    for number in present {
        let view = world.members[number].view();
        assert_eq!(view.members, [client(0), client(1), client(2)]);
        assert!(view.peers.iter().all(|peer| peer.in_own_group == (peer.client != client(3))));
        world.members[number].protect(b"not for member 3").unwrap();
    }
    world.settle_among(&present);
    assert!(world.all_taken_in(&present));
    // It comes back, and learns that it is out.
    world.catch_up(3);
    assert!(world.members[3].view().removed_by.is_some());
    assert!(world.read(3).is_empty());
    assert!(world.members[3].protect(b"x").is_err());
    for number in present {
        assert_eq!(world.read(number).len(), 2);
    }
}

#[test]
fn a_session_opened_again_is_the_same_and_goes_on() {
    let mut world = World::ready(3, policy());
    world.members[0].protect(b"one").unwrap();
    world.members[1].update(world.now).unwrap();
    world.settle();
    for number in 0..3 {
        let (view, id) = (world.members[number].view(), world.members[number].id());
        let records = world.members[number].records().clone();
        let opened = Session::open(records, world.stores.identity(number), &id).unwrap();
        assert_eq!(opened.view(), view);
        world.members[number] = opened;
    }
    world.pass(7 * HOUR);
    world.members[2].protect(b"two").unwrap();
    world.settle();
    assert_eq!(world.read(1).len(), 2);
    assert!(world.all_taken_in(&[0, 1, 2]));
}

#[test]
fn what_was_made_and_not_confirmed_is_sent_again_as_the_same_bytes_after_a_crash() {
    let mut world = World::ready(2, policy());
    world.members[0].protect(b"one").unwrap();
    world.members[0].update(world.now).unwrap();
    let made: Vec<_> = world.members[0].outbox().cloned().collect();
    let records = world.members[0].records().clone();
    let id = world.members[0].id();
    let opened = Session::open(records, world.stores.identity(0), &id).unwrap();
    assert_eq!(opened.outbox().cloned().collect::<Vec<_>>(), made);
    world.members[0] = opened;
    world.settle();
    assert_eq!(world.read(1).len(), 1);
}
