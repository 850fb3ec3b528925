//! Way 15: gateways that let go of a group. Nobody may wait for them, and nothing that they said before may count when they are back.

use group_log::{
    Decision,
    fork::{Answer, Command, Registration, Rejection},
};

use super::{PLENTY, SPLIT, breaks, play, story};
use crate::sim::{
    acts::Act::{self, *},
    world::{It, Kind, Rules, Seat, World, gateway_id},
};

/// Gateway 2 lets go of the group, and hears that the cluster has heard.
const LETS_GO: [Act; 3] = [Release(2), DeliverRelease(2), Release(2)];

/// Everything that the gateways 0 and 1 have read is acknowledged.
const THE_OTHERS_ACKNOWLEDGE: [Act; 6] = [Pull(0), Ack(0), DeliverAck(0), Pull(1), Ack(1), DeliverAck(1)];

/// A commit of member 0, with this number.
const fn ordered(index: u8) -> [Act; 3] {
    [Make(0, Kind::Noop), Submit(0, index), Deliver(index)]
}

/// Gateway 2 is cut off and accepts a commit of member 2, with this number.
const fn branch(index: u8) -> [Act; 4] {
    [Net(3, 1), Fork(2), Make(2, Kind::Noop), Accept(2, 2, index)]
}

fn number_of(world: &World, gateway: usize) -> Option<u64> {
    world.cluster.state().gateways.get(&gateway_id(gateway)).map(|registration| registration.number)
}

#[test]
fn a_gateway_that_let_go_is_not_waited_for_and_comes_back_with_another_number() {
    let acts = [&LETS_GO[..], &ordered(1), &THE_OTHERS_ACKNOWLEDGE].concat();
    let mut world = story(&acts);
    assert_eq!(world.log, [It::Commit(1), It::Stable(1)]);
    assert_eq!((world.gateways[2].seat, number_of(&world, 2)), (Seat::Out, None));
    // It forgot everything, its promise, too; so it does not fork before it has registered again.
    world.step(Net(3, 1)).unwrap();
    world.step(Fork(2)).unwrap();
    assert!(!world.gateways[2].forked());

    for act in [Net(7, 7), Heal(2), Pull(2), Register(2)] {
        world.step(act).unwrap();
    }
    assert_eq!(number_of(&world, 2), Some(1));
    let Registration { acknowledged, .. } = world.cluster.state().gateways[&gateway_id(2)];
    assert_eq!(acknowledged, world.cluster.state().stable, "it starts at the stable position");
    world.step(Net(3, 1)).unwrap();
    world.step(Fork(2)).unwrap();
    assert!(world.gateways[2].forked());
}

#[test]
fn a_gateway_that_something_waits_for_is_not_let_go() {
    let release = |gateway, registration| Command::Release { gateway: gateway_id(gateway), registration };
    let mut world = World::new(Rules::ALL, PLENTY);
    let commit = world.make(0, Kind::Noop);
    world.command(world.submission(commit)).unwrap();
    let before = world.cluster.clone();
    let refused = world.command(release(2, 0)).unwrap();
    assert_eq!(refused, Answer::Rejected(Rejection::NotAcknowledged { head_seq: 2, got: 1 }));
    assert_eq!(world.cluster, before);
    for act in [Pull(2), Ack(2), DeliverAck(2)] {
        world.step(act).unwrap();
    }

    // The close of a collection waits for everybody who is registered.
    world.clients[0].current = commit as u8;
    let branch = world.make(0, Kind::Noop);
    world.report(0, 1 << branch).unwrap();
    assert_eq!(world.command(release(2, 0)).unwrap(), Answer::Retry);
    world.close(0).unwrap();
    let refused = world.command(release(2, 0)).unwrap();
    assert_eq!(refused, Answer::Rejected(Rejection::NotAcknowledged { head_seq: 3, got: 2 }));
    for act in [Pull(2), Ack(2), DeliverAck(2)] {
        world.step(act).unwrap();
    }
    // That others still have something to acknowledge is their affair.
    assert_eq!(world.command(release(2, 0)).unwrap(), Answer::Gateways { stable: 1 });
    assert_eq!(number_of(&world, 2), None);
    assert_eq!(world.log.last(), Some(&It::Commit(branch as u8)), "nothing became stable by it");

    // Whoever is not registered, or is again, is not let go.
    for (gateway, registration) in [(2, 0), (7, 0), (1, 5)] {
        let before = world.cluster.clone();
        let passed_over = world.command(release(gateway, registration)).unwrap();
        assert_eq!(passed_over, Answer::Gateways { stable: 1 });
        assert_eq!(world.cluster, before);
    }
}

#[test]
fn way_15_a_release_that_arrives_again_does_not_end_the_next_registration() {
    let comes_back = [Pull(2), Register(2), DeliverRelease(2)];
    let acts = [&LETS_GO[..], &comes_back, &branch(1), &ordered(2), &THE_OTHERS_ACKNOWLEDGE].concat();
    let world = story(&acts);
    assert_eq!(number_of(&world, 2), Some(1));
    assert_eq!(world.log, [It::Commit(2)], "nothing is stable without gateway 2");
    breaks(Rules { numbers: false, ..Rules::ALL }, &acts, "LATE");
}

#[test]
fn way_15_an_acknowledgement_of_an_earlier_registration_does_not_count() {
    // When it comes back, gateway 2 has read less than it had, and does not know what it promised.
    let acts = [
        &ordered(1)[..],
        &[Pull(2), Ack(2), DeliverAck(2)],
        &LETS_GO,
        &[Register(2), DeliverAck(2)],
        &branch(2),
        &THE_OTHERS_ACKNOWLEDGE,
    ]
    .concat();
    let world = story(&acts);
    assert_eq!(world.log, [It::Commit(1)]);
    breaks(Rules { numbers: false, ..Rules::ALL }, &acts, "LATE");
}

#[test]
fn way_15_a_registration_that_arrives_again_does_not_bring_back_who_let_go() {
    let acts = [&LETS_GO[..], &[Move(2, 0), DeliverRegister(2)], &ordered(1)].concat();
    let world = story(&acts);
    assert_eq!(number_of(&world, 2), None);
    breaks(Rules { numbers: false, ..Rules::ALL }, &acts, "RETENTION");
}

#[test]
fn way_15_a_gateway_does_not_fork_from_before_the_cluster_hears_that_it_lets_go() {
    let acts =
        [&[Release(2)][..], &branch(1), &[DeliverRelease(2)], &ordered(2), &THE_OTHERS_ACKNOWLEDGE].concat();
    let world = play(Rules::ALL, &acts[..3]).unwrap();
    assert_eq!(world.gateways[2].seat, Seat::Leaving(0));
    assert!(!world.gateways[2].forked());
    breaks(Rules { leave_first: false, ..Rules::ALL }, &acts, "LATE");
}

#[test]
fn way_15_a_gateway_does_not_let_go_while_it_holds_a_branch() {
    let acts =
        [&branch(1)[..], &[Net(7, 7), Heal(2)], &LETS_GO, &ordered(2), &THE_OTHERS_ACKNOWLEDGE].concat();
    let world = play(Rules::ALL, &acts[..6]).unwrap();
    assert!(!world.would_release(2));
    breaks(Rules { release_empty: false, ..Rules::ALL }, &acts, "LATE");
}

#[test]
fn a_gateway_that_was_evicted_registers_again_with_another_number() {
    let acts = [&SPLIT[..], &[Evict(2), Net(7, 7), Heal(2), Pull(2), Register(2)]].concat();
    let mut world = story(&acts);
    assert_eq!((number_of(&world, 2), world.gateways[2].seat), (Some(1), Seat::In(1)));
    // What it had acknowledged before does not count.
    let before = world.cluster.clone();
    let old = Command::Ack { gateway: gateway_id(2), registration: 0, position: 2 };
    assert_eq!(world.command(old).unwrap(), Answer::Rejected(Rejection::NotRegistered));
    assert_eq!(world.cluster, before);
}

#[test]
fn everybody_whose_acknowledgement_is_missing_holds_stable_back() {
    let held_back_by = |world: &World| {
        let head = world.cluster.current().unwrap();
        let log = &world.cluster;
        let epoch_after = |seq| {
            let record = group_log::View::record(&**log, seq).expect("in memory");
            Ok::<_, std::convert::Infallible>(record.expect("it is there").epoch_after)
        };
        world.cluster.state().holding_back(head.epoch, epoch_after).expect("in memory")
    };
    let mut world = World::new(Rules::ALL, PLENTY);
    assert_eq!(held_back_by(&world), []);
    for index in 1..3 {
        ordered(index).iter().for_each(|act| world.step(*act).unwrap());
        world.clients[0].current = index;
        world.clients[0].held |= 1 << index;
        [Pull(index), Ack(index), DeliverAck(index)].iter().for_each(|act| world.step(*act).unwrap());
    }
    // 1 has acknowledged the first commit, 2 both, 0 nothing.
    assert_eq!(held_back_by(&world), [gateway_id(0), gateway_id(1)]);
    for g in 0..2 {
        [Pull(g), Ack(g), DeliverAck(g)].iter().for_each(|act| world.step(*act).unwrap());
    }
    assert_eq!(held_back_by(&world), []);
    // A side branch is waited for, too.
    let side = world.make(1, Kind::Noop);
    world.report(1, 1 << side).unwrap();
    assert_eq!(held_back_by(&world), (0..3).map(gateway_id).collect::<Vec<_>>());
    let message = world.make(0, Kind::App);
    let answer = world.command(world.submission(message)).unwrap();
    assert!(matches!(answer, Answer::Decided(Decision::Accepted(_))), "{answer:?}");
}
