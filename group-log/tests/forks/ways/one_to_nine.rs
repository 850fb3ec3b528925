//! Ways 1 to 9: retention, unknown outcomes, waiting, acknowledging, losing gateways and branches.

use group_log::{
    Decision, GroupKind,
    fork::{Answer, BranchEntry, BranchRefusal, Mode, ModeMachine, Signals},
};

use super::{SPLIT, answer, breaks, play, story};
use crate::sim::{
    acts::Act::*,
    heal::{check, heal},
    world::{It, Kind, Rules, TIMES, World, bit},
};

#[test]
fn way_01_the_majority_side_keeps_the_fork_point_without_being_told() {
    let acts = [&SPLIT[..], &[Consume(1)]].concat();
    let world = story(&acts);
    assert_eq!(world.head(), 2);
    breaks(Rules { keep: false, ..Rules::ALL }, &acts, "UNREADABLE");
}

#[test]
fn way_02_a_branch_can_not_make_a_committer_drop_a_commit_of_unknown_outcome() {
    let acts = [
        Make(0, Kind::Noop),
        Submit(0, 1),
        Net(0, 7),
        Fork(0),
        Fork(1),
        Make(1, Kind::Noop),
        Accept(1, 1, 2),
        RelayEntry(1, 0, 2),
        Learn(0, 2),
        Deliver(1),
    ];
    let world = story(&acts);
    assert_eq!(world.head(), 1);
    breaks(Rules { keep_pending: false, ..Rules::ALL }, &acts, "LOCKOUT");
}

#[test]
fn way_03_a_delayed_commit_waits_while_branches_are_brought_together() {
    let acts = [
        Make(0, Kind::Noop),
        Submit(0, 1),
        Net(3, 1),
        Fork(2),
        Make(2, Kind::Noop),
        Accept(2, 2, 2),
        Net(7, 7),
        Heal(2),
        Report(2),
        DeliverReport(2),
    ];
    let mut world = story(&acts);
    assert_eq!(answer(&world, 1), Answer::Retry);
    world.step(Deliver(1)).unwrap();
    assert_eq!(world.log, [], "nothing was appended at the fork point");
    world.step(Close(0)).unwrap();
    assert_eq!(world.log, [It::Commit(2)]);
    let lost = answer(&world, 1);
    assert!(matches!(lost, Answer::Decided(Decision::Superseded { winner_seq: 2 })), "{lost:?}");
    check(&world).unwrap();
}

#[test]
fn way_04_every_registered_gateway_is_waited_for_also_one_that_is_not_known_to_have_forked() {
    let acts = [
        Net(0, 0),
        Fork(1),
        Make(1, Kind::Noop),
        Accept(1, 1, 1),
        Fork(2),
        Make(2, Kind::Noop),
        Accept(2, 2, 2),
        Net(3, 1),
        Heal(1),
        Report(1),
        DeliverReport(1),
        Heal(0),
        Report(0),
    ];
    let mut world = story(&acts);
    assert!(!world.all_reported(), "gateway 2 may hold a branch, too");
    // The deadline passes, and everybody in reach acknowledges: still nothing may be deleted.
    let later = [Close(0), Pull(0), Pull(1), Ack(0), DeliverAck(0), Ack(1), DeliverAck(1)];
    later.iter().for_each(|act| world.step(*act).unwrap());
    assert_eq!(world.log, [It::Commit(1)]);
    assert_eq!(world.cluster.state().stable, 1);
    let back = [Net(7, 7), Heal(2), Report(2), DeliverReport(2)];
    back.iter().for_each(|act| world.step(*act).unwrap());
    assert_eq!(world.log[1], It::Side(1 << 2), "late, but not too late: everybody can still read it");
    check(&world).unwrap();
}

#[test]
fn way_05_permission_to_delete_comes_in_the_log_and_can_not_overtake_it() {
    let mut acts = vec![Make(0, Kind::Noop), Submit(0, 1), Deliver(1)];
    for gateway in 0..3 {
        acts.extend([Pull(gateway), Ack(gateway), DeliverAck(gateway)]);
    }
    acts.push(Pull(1));
    let world = story(&acts);
    assert_eq!(world.log, [It::Commit(1), It::Stable(1)]);
    breaks(Rules { in_order: false, ..Rules::ALL }, &acts, "LOCKOUT");
}

#[test]
fn way_06_an_acknowledgement_says_that_nothing_unreported_is_left_and_nothing_old_will_follow() {
    // With an unreported branch there is no acknowledgement.
    let mut acts = [&SPLIT[..], &[Net(7, 7), Heal(2), Pull(0), Pull(1), Pull(2)]].concat();
    let world = story(&acts);
    assert!(world.has_unrecorded(2) && !world.may_ack(2) && world.may_ack(0));
    for gateway in 0..3 {
        acts.extend([Ack(gateway), DeliverAck(gateway)]);
    }
    breaks(Rules { report_before_ack: false, ..Rules::ALL }, &acts, "LATE");

    // A relayed child of a loser counts as unreported, too, until it is in the log itself.
    let acts = [
        &SPLIT[..],
        &[Make(2, Kind::App), Accept(2, 2, 3), Net(7, 7), RelayEntry(2, 1, 1), RelayEntry(2, 1, 3), Lose(2)],
        &[Pull(1), Heal(1), Report(1)],
    ]
    .concat();
    let mut world = play(Rules::ALL, &acts).unwrap();
    world.report(1, 1 << 1).unwrap();
    world.step(Pull(1)).unwrap();
    assert_eq!(world.log[1], It::Side(1 << 1));
    assert!(!world.may_ack(1), "the child is not recorded yet");
    world.report(1, 1 << 3).unwrap();
    assert_eq!(world.log[2], It::Side(1 << 3));
    world.step(Pull(1)).unwrap();
    assert!(world.may_ack(1));

    // Nothing is accepted below the promise, nor on top of what has lost.
    let mut world = play(Rules::ALL, &[&SPLIT[..], &[Ack(0), Net(0, 0), Fork(0)]].concat()).unwrap();
    let entry = (*world.ents[1].entry).clone();
    let refused = |world: &World, entry: &BranchEntry| {
        let gateway = &world.gateways[0];
        gateway.tree.admit(world.view_of(0), u64::from(gateway.promised) + 1, entry).unwrap().unwrap_err()
    };
    let old = refused(&world, &entry);
    assert!(matches!(old, BranchRefusal::BelowPromise { promised: 1, got: 0 }), "{old}");
    world.report(2, 1 << 1).unwrap();
    world.gateways[0].view = world.log.len() as u8;
    world.clients[2].current = 1;
    let child = world.make(2, Kind::App);
    let on_loser = refused(&world, &world.ents[child].entry);
    assert!(matches!(on_loser, BranchRefusal::DeadBranch { seq: 3 }), "{on_loser}");

    // A gateway whose disk does not hold the view that it promised never forks.
    let mut machine = ModeMachine::new(GroupKind::Demls, 0);
    let forgot = Signals {
        now_ms: 1000,
        quorum: false,
        outcome_unknown: false,
        view_covers_promise: false,
        unrecorded: false,
    };
    assert_eq!(machine.observe(&forgot, &TIMES), None);
    assert_eq!(machine.mode(), Mode::Suspect);
    let remembers = Signals { view_covers_promise: true, ..forgot };
    machine.observe(&remembers, &TIMES);
    assert_eq!(machine.mode(), Mode::Forked);
}

#[test]
fn way_07_a_lost_gateway_blocks_nobody_once_it_is_evicted() {
    let acts = [Lose(2), Make(0, Kind::Noop), Submit(0, 1), Deliver(1)];
    story(&acts);
    breaks(Rules { evict: false, ..Rules::ALL }, &acts, "RETENTION");

    // Should it come back after all, what it brings is late, and nobody waits for it.
    let acts = [
        &SPLIT[..],
        &[
            Evict(2),
            Pull(1),
            Ack(0),
            DeliverAck(0),
            Ack(1),
            DeliverAck(1),
            Net(7, 7),
            Heal(2),
            Report(2),
            DeliverReport(2),
        ],
    ]
    .concat();
    let world = story(&acts);
    assert_eq!(world.log, [It::Commit(2), It::Stable(1), It::Late(1 << 1)]);
}

#[test]
fn way_08_members_bring_back_a_branch_that_was_destroyed_with_its_gateway() {
    let acts = [&SPLIT[..], &[Lose(2)]].concat();
    let world = story(&acts);
    let healed = heal(&world, 0).unwrap();
    assert!(bit(healed.side(), 1));
    breaks(Rules { upload: false, ..Rules::ALL }, &acts, "LOST");
}

#[test]
fn way_09_of_two_branches_that_meet_without_a_quorum_both_are_kept() {
    let acts = [
        Net(0, 0),
        Fork(0),
        Make(0, Kind::Noop),
        Accept(0, 0, 1),
        Fork(1),
        Make(1, Kind::Noop),
        Accept(1, 1, 2),
        Net(0, 1),
        RelayEntry(0, 1, 1),
        RelayEntry(1, 0, 2),
    ];
    let world = story(&acts);
    assert_eq!((world.gateways[0].tree_mask, world.gateways[1].tree_mask), (0b110, 0b110));
    // Neither needs its author to bring it back.
    let without_authors = Rules { upload: false, ..Rules::ALL };
    play(without_authors, &acts).and_then(|world| check(&world)).unwrap();
    breaks(Rules { keep_losers: false, ..without_authors }, &acts, "LOST");
}
