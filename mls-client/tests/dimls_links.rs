//! A DGroup over bad links in simulated time: reordering, duplication, loss, partitions of hours, and whoever forges and replays.

#![allow(clippy::unwrap_used)] // A panic in a test is its report.

mod dimls_support;

use std::collections::BTreeSet;

use bytes::Bytes;
use dimls_support::{HOUR, MINUTE, World, client, policy, randomness};
use mls_client::{
    Randomness,
    dimls::{Event, Item, Policy, Rejected, limits::WAIT_MS},
};

const MEMBERS: usize = 5;

/// Links that lose a third of everything, bring some of it twice and all of it in any order, and are cut between two sides for hours.
struct Links {
    rng: Randomness,
    /// What is on its way: when it arrives, to whom.
    flying: Vec<(u64, usize, Item)>,
    /// One side of the cut, and when it ends.
    cut: Option<(BTreeSet<usize>, u64)>,
}

impl Links {
    fn send(&mut self, world: &World, from: usize, item: &Item) {
        for to in (0..MEMBERS).filter(|to| *to != from) {
            if self.rng.below(3) == 0 {
                continue;
            }
            for _ in 0..=self.rng.below(2) {
                self.flying.push((world.now + self.rng.below(20 * MINUTE), to, item.clone()));
            }
        }
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut.as_ref().is_some_and(|(side, _)| side.contains(&a) != side.contains(&b))
    }

    fn step(&mut self, world: &mut World) {
        if self.cut.as_ref().is_some_and(|(_, end)| *end <= world.now) {
            self.cut = None;
        }
        if self.cut.is_none() && self.rng.below(240) == 0 {
            let side = (0..MEMBERS).filter(|_| self.rng.below(2) == 0).collect();
            self.cut = Some((side, world.now + self.rng.below(8) * HOUR));
        }
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.flying).into_iter().partition(|(at, ..)| *at <= world.now);
        self.flying = later;
        for (_, to, item) in due {
            let from = (0..MEMBERS).find(|number| client(*number) == item.owner).unwrap();
            if !self.is_cut(from, to) {
                world.give(to, &item);
            }
        }
    }
}

#[test]
fn whatever_the_links_do_everything_is_taken_in_once_and_in_order_in_the_end() {
    let rng = randomness(6);
    for _ in 0..3 {
        let mut world = World::new(MEMBERS, Policy { acknowledge_after_ms: 10 * MINUTE, ..policy() });
        let mut links = Links { rng: rng.fork(), flying: Vec::new(), cut: None };
        let mut said = [0_u32; MEMBERS];
        while world.now < 30 * HOUR {
            world.now += MINUTE;
            for (number, said) in said.iter_mut().enumerate() {
                match links.rng.below(200) {
                    0 => drop(world.members[number].update(world.now).unwrap()),
                    1..4 if world.now > 15 * HOUR => {
                        world.members[number].protect(&said.to_be_bytes()).unwrap();
                        *said += 1;
                    }
                    _ => {}
                }
                world.tick(number);
            }
            for item in world.collect() {
                let from = (0..MEMBERS).find(|number| client(*number) == item.owner).unwrap();
                links.send(&world, from, &item);
            }
            // Now and then somebody asks for what it lacks.
            let asks = links.rng.below(MEMBERS as u64 * 4) as usize;
            if asks < MEMBERS && links.cut.is_none() {
                world.catch_up(asks);
            }
            links.step(&mut world);
        }
        world.settle();
        world.pass(20 * MINUTE);
        for member in &world.members {
            assert!(
                member.view().peers.iter().all(|p| p.taken.unwrap_or(0) >= p.updated),
                "{:#?}",
                member.view()
            );
        }
        assert!(world.all_taken_in(&(0..MEMBERS).collect::<Vec<_>>()));
        for number in 0..MEMBERS {
            let bad =
                |e: &&Event| matches!(e, Event::Rejected { .. } | Event::Lost { .. } | Event::Removed { .. });
            assert_eq!(world.events[number].iter().find(bad), None);
            let read = world.read(number);
            for (from, said) in said.iter().enumerate().filter(|(from, _)| *from != number) {
                let heard: Vec<_> = read
                    .iter()
                    .filter(|(who, ..)| *who == client(from))
                    .map(|(_, _, body)| body.clone())
                    .collect();
                // Those who were added before it was said read everything, once, in the order it was said.
                let all: Vec<_> = (0..*said).map(|n| n.to_be_bytes().to_vec()).collect();
                assert!(all.ends_with(&heard), "{heard:?}");
                assert_eq!(heard.len(), all.len(), "everybody was in everybody's group by then");
            }
        }
    }
}

#[test]
fn forged_and_replayed_items_change_nothing_and_do_not_take_the_place_of_the_real_ones() {
    let rng = randomness(7);
    let mut world = World::ready(3, policy());
    let now = world.now;
    world.members[1].protect(b"real").unwrap();
    world.members[1].update(now).unwrap();
    world.members[2].protect(b"from 2").unwrap();
    let real = world.collect();
    let mine: Vec<Item> = real.iter().filter(|item| item.owner == client(1)).cloned().collect();
    let foreign = real.iter().find(|item| item.owner == client(2)).unwrap().clone();
    let old: Vec<Item> = world.sent.values().filter(|item| item.owner == client(1)).cloned().collect();

    for item in &mine {
        let before = world.members[0].view();
        let forge = |message: Bytes| Item { message, ..item.clone() };
        let mut forgeries: Vec<Item> = Vec::new();
        for _ in 0..60 {
            let mut bytes = item.message.to_vec();
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << rng.below(8);
            forgeries.push(forge(bytes.into()));
        }
        forgeries.push(forge(foreign.message.clone()));
        forgeries.push(forge(Bytes::new()));
        // Old messages of the same owner at a new place.
        forgeries
            .extend(old.iter().filter(|o| o.seq < item.seq).map(|o| Item { seq: item.seq, ..o.clone() }));
        for forgery in forgeries {
            let told = world.members[0].receive(forgery, now).unwrap();
            assert!(matches!(told[..], [Event::Rejected { .. }]), "{told:?}");
        }
        assert_eq!(world.members[0].view(), before);
        // The real one is taken in all the same, once.
        world.give(0, item);
        world.give(0, item);
    }
    assert_eq!(world.read(0), [(client(1), mine[0].seq, b"real".to_vec())]);
    let stranger = Item { owner: client(9), ..mine[0].clone() };
    let told = world.members[0].receive(stranger, now).unwrap();
    assert!(matches!(told[..], [Event::Rejected { reason: Rejected::Stranger, .. }]));
    world.settle();
    world.pass(10 * MINUTE);
    assert!(world.all_taken_in(&[0, 1, 2]));
}

#[test]
fn a_member_of_somebody_elses_send_group_cannot_write_in_it() {
    let mut world = World::ready(3, policy());
    // What 1 makes in its own group, under the name of 2: the group id gives it away, whoever the author claims to be.
    world.members[1].update(world.now).unwrap();
    let item = world.collect().remove(0);
    let seq = world.members[0].cursor().iter().find(|(who, _)| *who == client(2)).unwrap().1 + 1;
    let told = world.members[0].receive(Item { owner: client(2), seq, ..item }, world.now).unwrap();
    assert!(matches!(told[..], [Event::Rejected { reason: Rejected::ForeignGroup, .. }]), "{told:?}");
}

#[test]
fn a_psk_that_never_comes_holds_up_one_send_group_for_a_day_and_no_other() {
    let mut world = World::ready(3, Policy { replace_every_ms: 100 * HOUR, ..policy() });
    // Member 2 updates, member 1 acknowledges it; member 0 gets the acknowledgement and never the update.
    world.members[2].update(world.now).unwrap();
    let update = world.collect();
    update.iter().for_each(|item| world.give(1, item));
    world.now += MINUTE;
    world.members[1].acknowledge(world.now).unwrap().unwrap();
    world.members[1].protect(b"behind it").unwrap();
    for item in world.collect() {
        world.give(0, &item);
    }
    assert!(matches!(world.events[0].last(), Some(Event::Waiting { .. })));
    assert!(world.read(0).is_empty());
    world.now += WAIT_MS;
    world.tick(0);
    assert!(world.events[0].contains(&Event::Lost { owner: client(1) }), "{:?}", world.events[0]);
    // Once its owner replaces the leaf, it is back.
    for item in &update {
        world.give(0, item);
    }
    world.members[0].update(world.now).unwrap();
    world.settle();
    world.members[1].replace(world.now).unwrap();
    world.settle();
    world.members[1].protect(b"read again").unwrap();
    world.settle();
    assert_eq!(world.read(0).last().unwrap().2, b"read again");
    assert!(!world.members[0].view().peers[0].lost);
}

#[test]
fn a_reader_whose_items_were_dropped_comes_back_with_the_next_replacement() {
    let mut world = World::ready(3, policy());
    for _ in 0..3 {
        world.members[1].update(world.now).unwrap();
    }
    let items = world.collect();
    let last = items.last().unwrap();
    let told = world.members[0].skip(&client(1), last.seq, world.now).unwrap();
    assert_eq!(told, [Event::Lost { owner: client(1) }]);
    items.iter().for_each(|item| world.give(2, item));
    world.settle();
    world.pass(13 * HOUR);
    world.members[1].protect(b"hello again").unwrap();
    world.settle();
    assert_eq!(world.read(0).last().unwrap().2, b"hello again");
    assert!(world.all_taken_in(&[0, 1, 2]));
}

#[test]
fn whoever_has_lost_one_send_group_is_back_in_minutes_and_not_dragged_out_of_the_others() {
    let rng = randomness(8);
    for _ in 0..5 {
        // Leaves are replaced once in a week: that is not what brings anybody back.
        let mut world = World::ready(5, Policy { replace_every_ms: 168 * HOUR, ..policy() });
        let (reader, owner) = (rng.below(5) as usize, rng.below(5) as usize);
        if reader == owner {
            continue;
        }
        world.members[owner].update(world.now).unwrap();
        world.collect();
        let newest = world.sent.range((client(owner), 0)..=(client(owner), u64::MAX)).last().unwrap().0.1;
        let told = world.members[reader].skip(&client(owner), newest, world.now).unwrap();
        assert_eq!(told, [Event::Lost { owner: client(owner) }]);
        // All others go on, and take one another in all the time.
        for _ in 0..15 {
            for number in (0..5).filter(|_| rng.below(2) == 0) {
                world.members[number].update(world.now).unwrap();
            }
            world.pass(MINUTE);
        }
        world.pass(5 * MINUTE);
        for member in &world.members {
            assert!(member.view().peers.iter().all(|peer| !peer.lost), "{:#?}", member.view());
        }
        assert!(world.all_taken_in(&[0, 1, 2, 3, 4]));
        for number in 0..5 {
            world.members[number].protect(b"all hear it").unwrap();
        }
        world.settle();
        assert_eq!(world.read(reader).len(), 4);
    }
}
