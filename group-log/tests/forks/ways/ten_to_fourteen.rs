//! Ways 10 to 14: removals, adds, losing to nothing, governing, and claims.

use group_log::{
    Content, Create, Cursor, CursorError, Decision, GroupKind, Refusal, StateId, Submission, check_cursor,
    fork::{
        Answer, BranchEntry, BranchRefusal, Command, MemoryFork, Mode, ModeMachine, Recorded, Rejection,
        Report, Service, Signals,
    },
};

use super::{PLENTY, SPLIT, answer, breaks, story};
use crate::sim::{
    acts::Act::*,
    heal::{check, heal, is_outside},
    world::{It, Kind, Rules, TIMES, World, bits, gateway_id, group_id, member_name},
};

/// As `SPLIT`, but commit 1 removes member 1. Then the split ends.
fn removal_on_the_side() -> World {
    let mut acts =
        [&SPLIT[..], &[Net(7, 7), Heal(2), Report(2), DeliverReport(2), Pull(0), Consume(0)]].concat();
    acts[2] = Make(2, Kind::Remove(2));
    story(&acts)
}

#[test]
fn way_10_a_removal_on_a_losing_branch_comes_before_everything_else() {
    let mut world = removal_on_the_side();
    assert_eq!((world.owed(), world.members(world.head())), (2, 7));
    for kind in [Kind::Noop, Kind::AddZ, Kind::App, Kind::Remove(4)] {
        let other = world.make(0, kind);
        assert!(matches!(answer(&world, other), Answer::RemoveFirst { .. }), "{kind:?}");
    }
    world.clients[1].current = world.head();
    let by_the_removed = world.make(1, Kind::Noop);
    assert!(matches!(answer(&world, by_the_removed), Answer::RemoveFirst { .. }));
    let removal = world.make(0, Kind::Remove(2));
    world.command(world.submission(removal)).unwrap();
    assert_eq!((world.owed(), world.members(world.head())), (0, 5));
    // What was told to remove first was not remembered.
    world.clients[0].current = world.head();
    let after = world.make(0, Kind::Noop);
    assert!(matches!(answer(&world, after), Answer::Decided(Decision::Accepted(_))));
}

#[test]
fn way_10_members_who_removed_each_other_both_go_but_somebody_is_left() {
    let acts = [
        Net(0, 0),
        Fork(1),
        Make(1, Kind::Remove(4)),
        Accept(1, 1, 1),
        Fork(2),
        Make(2, Kind::Remove(2)),
        Accept(2, 2, 2),
        Net(1, 0),
        Make(0, Kind::Noop),
        Heal(0),
        Submit(0, 3),
        Deliver(3),
        Net(7, 7),
        Heal(1),
        Heal(2),
        Report(1),
        DeliverReport(1),
        Report(2),
        DeliverReport(2),
    ];
    let world = story(&acts);
    assert_eq!(world.owed(), 6);
    let healed = heal(&world, 0).unwrap();
    assert_eq!(healed.members(healed.head()), 1);
}

#[test]
fn way_11_who_was_added_by_somebody_since_removed_is_not_added_again() {
    let mut acts = [&SPLIT[..], &[Net(7, 7), Heal(2), Report(2), DeliverReport(2)]].concat();
    acts[2] = Make(2, Kind::AddZ);
    acts[4] = Make(0, Kind::Remove(4));
    let world = story(&acts);
    let healed = heal(&world, 0).unwrap();
    assert_eq!(healed.members(healed.head()), 3);
    breaks(Rules { author_adds: false, ..Rules::ALL }, &acts, "SECURITY");

    // An author who still belongs does add again.
    acts[4] = Make(0, Kind::Noop);
    let healed = heal(&story(&acts), 0).unwrap();
    assert_eq!(healed.members(healed.head()), 15);
}

#[test]
fn way_12_a_branch_can_lose_to_nothing_and_a_winner_is_never_cut_short() {
    // A branch that ignores what is owed loses to the head itself; who stood on it goes back.
    let mut world = removal_on_the_side();
    world.clients[2].current = world.head();
    world.clients[2].held |= 1 << world.head();
    let ignoring = world.make(2, Kind::Noop);
    world.clients[2].pending |= 1 << ignoring;
    world.insert(2, ignoring);
    world.accepted |= 1 << ignoring;
    world.clients[2].current = ignoring as u8;
    world.clients[2].held |= 1 << ignoring;
    world.report(2, 1 << ignoring).unwrap();
    assert!(world.collecting());
    world.close(0).unwrap();
    assert_eq!(world.log.last(), Some(&It::Side(1 << ignoring)));
    assert_eq!(world.head(), 2, "nothing won");
    check(&world).unwrap();
    let again = answer(&world, ignoring);
    assert!(matches!(again, Answer::OnSide { late: false, .. }), "{again:?}");

    // Who knows that a branch has lost is not drawn back onto it by a gateway that lags behind.
    let mut world = story(&SPLIT);
    world.step(Make(2, Kind::Noop)).unwrap();
    world.insert(2, 3);
    world.report(2, 1 << 1).unwrap();
    world.consume(1, world.log.len()).unwrap();
    world.clients[1].at = 2;
    world.step(Learn(1, 3)).unwrap();
    assert_eq!(world.clients[1].current, 2);

    // Of a branch of three either all become canonical or none.
    let acts = [
        Net(3, 1),
        Fork(2),
        Make(2, Kind::Noop),
        Accept(2, 2, 1),
        Make(2, Kind::Noop),
        Accept(2, 2, 2),
        Make(2, Kind::App),
        Accept(2, 2, 3),
        Make(2, Kind::Noop),
        Accept(2, 2, 4),
        Net(7, 7),
        Heal(2),
        Report(2),
        DeliverReport(2),
        Close(0),
    ];
    let world = story(&acts);
    assert_eq!(world.log, [It::Commit(1), It::Commit(2), It::App(3), It::Commit(4)]);
}

#[test]
fn way_13_a_group_is_what_it_was_created_as_and_is_not_governed_while_branches_come_together() {
    let mut world = World::new(Rules::ALL, PLENTY);
    let by_creator = |content| Command::Submit {
        submission: Submission {
            group_id: group_id(),
            author: member_name(0),
            epoch: 0,
            parent_state_id: None,
            content,
        },
        facts: Default::default(),
    };
    let Content::Create(create) = world.ents[0].entry.content.clone() else { panic!("a create") };
    for kind in [GroupKind::Mls, GroupKind::Dimls] {
        let other = Content::Create(Create { kind, ..create.clone() });
        let switched = world.command(by_creator(other)).unwrap();
        assert!(matches!(switched, Answer::Decided(Decision::Refused(Refusal::GroupExists { .. }))));
    }
    assert_eq!(world.cluster.current().unwrap().kind, GroupKind::Demls);

    let acts = [
        Net(3, 1),
        Fork(2),
        Make(2, Kind::Noop),
        Accept(2, 2, 1),
        Net(7, 7),
        Heal(2),
        Report(2),
        DeliverReport(2),
    ];
    acts.iter().for_each(|act| world.step(*act).unwrap());
    let close = by_creator(Content::Close);
    let policy = by_creator(Content::PolicyChange { policy: Default::default(), turns: None });
    for command in [&close, &policy] {
        assert_eq!(world.clone().command(command.clone()).unwrap(), Answer::Retry);
    }
    world.step(Close(0)).unwrap();
    let Command::Submit { submission, facts } = close else { unreachable!() };
    let close = Command::Submit { submission: Submission { epoch: 1, ..submission }, facts };
    let closed = MemoryFork::clone(&world.cluster).apply(&close);
    assert!(matches!(closed, Answer::Decided(Decision::Accepted(_))), "{closed:?}");

    // An mls group never gets beyond unavailable.
    let mut machine = ModeMachine::new(GroupKind::Mls, 0);
    let cut_off = Signals {
        now_ms: u64::MAX,
        quorum: false,
        outcome_unknown: true,
        view_covers_promise: true,
        unrecorded: false,
    };
    machine.observe(&cut_off, &TIMES);
    assert_eq!((machine.mode(), machine.service()), (Mode::Suspect, Service::Unavailable));
}

#[test]
fn way_14_claims_decide_nothing() {
    let mut world = World::new(Rules::ALL, PLENTY);
    world.step(Make(0, Kind::Noop)).unwrap();
    let claimed = StateId([0xff; 32]);

    // A claimed state can not wedge the head: ids are computed, and what follows from nothing known is refused.
    let Command::Submit { submission, facts } = world.submission(1) else { unreachable!() };
    let parent_state_id = Some(claimed);
    let lie = Command::Submit { submission: Submission { parent_state_id, ..submission }, facts };
    let refused = world.command(lie).unwrap();
    assert!(matches!(refused, Answer::Decided(Decision::Refused(Refusal::WrongState { .. }))), "{refused:?}");
    let forged = BranchEntry { parent: claimed, ..(*world.ents[1].entry).clone() };
    let report = |entries| Command::Report(Report { gateway: gateway_id(2), entries, complete: true });
    let refused = world.command(report(vec![forged.clone()])).unwrap();
    assert_eq!(refused, Answer::Rejected(Rejection::Gap { entry: forged.id(), parent: claimed }));

    // The id of a message is not a state: nothing can follow it.
    world.step(Make(0, Kind::App)).unwrap();
    world.step(Submit(0, 2)).unwrap();
    world.step(Deliver(2)).unwrap();
    let on_message = BranchEntry { parent: world.ents[2].id.as_state(), ..forged };
    let refused = world.command(report(vec![on_message.clone()])).unwrap();
    assert!(matches!(refused, Answer::Rejected(Rejection::Gap { .. })), "{refused:?}");
    let Command::Submit { submission, facts } = world.submission(1) else { unreachable!() };
    let parent_state_id = Some(on_message.parent);
    let lie = Command::Submit { submission: Submission { parent_state_id, ..submission }, facts };
    let refused = world.command(lie).unwrap();
    assert!(matches!(refused, Answer::Decided(Decision::Refused(Refusal::WrongState { .. }))), "{refused:?}");

    // Nobody creates or closes a group on a branch.
    let root = world.ents[0].entry.parent;
    for content in [Content::Close, world.ents[0].entry.content.clone()] {
        let entry = BranchEntry { parent: root, author: member_name(0), content, facts: Default::default() };
        let refused = world.command(report(vec![entry.clone()])).unwrap();
        assert!(matches!(refused, Answer::Rejected(Rejection::Impossible { .. })), "{refused:?}");
        let refused = world.gateways[0].tree.admit(world.view_of(0), 1, &entry).unwrap();
        assert!(matches!(refused, Err(BranchRefusal::Impossible(_))), "{refused:?}");
    }

    // An acknowledgement of what is not there is refused.
    let ahead =
        world.command(Command::Ack { gateway: gateway_id(2), registration: 0, position: 99 }).unwrap();
    assert_eq!(ahead, Answer::Rejected(Rejection::PositionAhead { head_seq: 2, got: 99 }));

    // A place on a branch is never a place in the canonical log, whatever the numbers are.
    let head = *world.cluster.current().unwrap();
    let cursor = Cursor::Branch { fork: root, state: root, n: 1 };
    assert_eq!(
        check_cursor(&*world.cluster, &head, &cursor).unwrap(),
        Err(CursorError::OtherChain { fork: root })
    );
}

#[test]
fn way_14_grinding_commits_does_not_make_a_branch_win() {
    // Member 1 and member 2 each commit on a branch of their own. Whatever bytes member 2 tries, each nonce has made its choice
    // between the two members already.
    let winner = |tries: usize, nonce: u8| {
        let mut world = World::new(Rules::ALL, PLENTY);
        for _ in 0..tries {
            world.make(2, Kind::Noop);
        }
        let first = world.make(1, Kind::Noop);
        let second = world.make(2, Kind::Noop);
        world.report(1, 1 << first).unwrap();
        world.report(2, 1 << second).unwrap();
        world.close(nonce).unwrap();
        usize::from(world.head()) == second
    };
    let wins: Vec<bool> = (0..16).map(|nonce| winner(0, nonce)).collect();
    assert!(wins.contains(&true) && wins.contains(&false));
    for tries in 1..6 {
        assert_eq!((0..16).map(|nonce| winner(tries, nonce)).collect::<Vec<_>>(), wins);
    }
}

#[test]
fn more_members_on_a_branch_weigh_more_than_more_commits() {
    let mut world = World::new(Rules::ALL, PLENTY);
    let mut path = Vec::new();
    for _ in 0..3 {
        path.push(world.make(2, Kind::Noop));
        world.clients[2].current = *path.last().unwrap() as u8;
    }
    let first = world.make(0, Kind::Noop);
    world.clients[1].current = first as u8;
    let second = world.make(1, Kind::Noop);
    world.report(2, path.iter().map(|index| 1 << index).sum()).unwrap();
    world.report(0, 1 << first | 1 << second).unwrap();
    for nonce in 0..8 {
        let mut world = world.clone();
        world.close(nonce).unwrap();
        assert_eq!(usize::from(world.head()), second, "two members against one");
        let losers = bits(world.side()).collect::<Vec<_>>();
        assert_eq!(losers, path);
        assert!(
            losers.iter().all(|index| matches!(
                world.cluster.verdict(&world.ents[*index].id),
                Some(Recorded::Dead(_))
            ))
        );
    }
    assert!(is_outside(&world, 3));
}
