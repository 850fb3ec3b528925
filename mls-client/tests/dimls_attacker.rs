//! What a copy of one member's state is good for, and what ends it.

#![allow(clippy::unwrap_used)] // A panic in a test is its report.

mod dimls_support;

use dimls_support::{MINUTE, Member, World, client, policy};
use mls_client::dimls::{Policy, Session};

const NEVER: u64 = 1_000_000_000_000;

/// Everything that is stored of a member, in the hands of somebody who also sees everything that is sent.
fn copy(world: &World, number: usize) -> Member {
    let records = world.members[number].records().clone();
    Session::open(records, world.stores.identity(number), &world.members[number].id()).unwrap()
}

/// Gives the attacker everything that was ever sent.
fn feed(world: &World, attacker: &mut Member) {
    for (owner, seq) in attacker.cursor() {
        for (_, item) in world.sent.range((owner.clone(), seq + 1)..=(owner.clone(), u64::MAX)) {
            let _ = attacker.receive(item.clone(), world.now);
        }
    }
}

fn reads(attacker: &Member, text: &[u8]) -> bool {
    attacker.messages(0, usize::MAX).unwrap().iter().any(|message| message.body == text)
}

fn quiet() -> Policy {
    Policy { acknowledge_after_ms: NEVER, replace_every_ms: NEVER, offline_after_ms: 3 * NEVER }
}

#[test]
fn a_copy_reads_on_until_the_next_round_and_nothing_afterwards() {
    let mut world = World::ready(3, quiet());
    world.members[0].protect(b"before").unwrap();
    world.settle();
    let (before, mut attacker) = (world.read(1).len(), copy(&world, 1));
    assert_eq!(before, 1, "what was read before is in the state: only messages to come are at stake");

    // Member 0 updates its own keys: that does not help, since the leaf of member 1 in its group is the old one.
    world.members[0].update(world.now).unwrap();
    world.members[0].protect(b"after an update of 0").unwrap();
    world.settle();
    feed(&world, &mut attacker);
    assert!(reads(&attacker, b"after an update of 0"), "a copy of epoch k opens what follows from it");

    // Member 1 updates. From now on its own Send Group is closed to the copy, but that of 0 is not yet.
    world.members[1].update(world.now).unwrap();
    world.settle();
    world.members[2].protect(b"2 has not acknowledged").unwrap();
    world.settle();
    feed(&world, &mut attacker);
    assert!(reads(&attacker, b"2 has not acknowledged"));

    // An acknowledgement takes the new PSK in: that alone shuts the copy out of the Send Group of 0.
    world.members[0].acknowledge(world.now).unwrap().unwrap();
    world.members[0].protect(b"acknowledged").unwrap();
    world.settle();
    feed(&world, &mut attacker);
    assert!(world.read(1).iter().any(|(.., body)| body == b"acknowledged"));
    assert!(!reads(&attacker, b"acknowledged"));

    // A full round closes all of them, and gives member 1 leaves that were never in the copy.
    for number in [0, 2, 1] {
        world.members[number].replace(world.now).unwrap();
        world.settle();
    }
    for number in 0..3 {
        world.members[number].protect(format!("healed {number}").as_bytes()).unwrap();
    }
    world.settle();
    feed(&world, &mut attacker);
    for number in [0, 2] {
        let text = format!("healed {number}").into_bytes();
        assert!(world.read(1).contains(&(client(number), last(&world, number), text.clone())));
        assert!(!reads(&attacker, &text));
    }
}

fn last(world: &World, number: usize) -> u64 {
    world.sent.keys().filter(|(owner, _)| *owner == client(number)).map(|(_, seq)| *seq).max().unwrap()
}

#[test]
fn old_leaf_keys_and_psks_are_gone_when_everybody_has_moved_on() {
    let mut world = World::ready(3, policy());
    let size = |world: &World| world.members[0].records().bytes();
    for _ in 0..10 {
        for number in 0..3 {
            world.members[number].replace(world.now).unwrap();
            world.settle();
        }
        world.pass(2 * MINUTE);
    }
    let grown = size(&world);
    for _ in 0..12 {
        for number in 0..3 {
            world.members[number].replace(world.now).unwrap();
            world.settle();
        }
        world.pass(2 * MINUTE);
    }
    assert!(size(&world) < grown + grown / 10, "{grown} bytes, then {}", size(&world));
    // A copy made now opens nothing of the past.
    let mut attacker = copy(&world, 1);
    let old: Vec<_> = world.sent.values().filter(|item| item.owner == client(0)).cloned().collect();
    for mut item in old {
        item.seq = last(&world, 0) + 1;
        let _ = attacker.receive(item, world.now);
    }
    assert!(attacker.messages(0, usize::MAX).unwrap().is_empty());
}
