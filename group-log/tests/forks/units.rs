//! Single parts of the fork rules: stored forms, following a log, modes, and the corners that the stories do not reach.

use group_log::{
    ChainHash, Content, GroupKind, StateId,
    fork::{
        Answer, BranchEntry, BranchRefusal, Candidate, Command, CommitFacts, FollowError, ForkState,
        ForkView, Item, Mark, MemoryFork, Mode, ModeMachine, ModeTimes, Recorded, Rejection, Report, Service,
        Signals, Transition,
    },
    limits::MAX_REPORT_ENTRIES,
};

use crate::sim::{
    acts::Act::*,
    explore::Random,
    world::{Budget, It, Kind, Rules, World, bits, gateway_id, group_id, member_name},
};

const PLENTY: Budget =
    Budget { commits: 9, apps: 9, nets: 9, crashes: 9, losses: 9, evictions: 9, moves: 9, releases: 9 };

/// A world with a canonical commit, a side branch that removed somebody, and another branch that waits for the close.
fn busy() -> World {
    let mut world = World::new(Rules::ALL, PLENTY);
    let removal = world.make(2, Kind::Remove(2));
    let canonical = world.make(0, Kind::AddZ);
    world.command(world.submission(canonical)).unwrap();
    world.report(2, 1 << removal).unwrap();
    world.clients[0].current = canonical as u8;
    let branch = world.make(0, Kind::Remove(2));
    world.clients[0].current = branch as u8;
    let message = world.make(0, Kind::App);
    world.report(0, 1 << branch | 1 << message).unwrap();
    assert!(world.collecting() && world.owed() == 2);
    world
}

#[test]
fn stored_forms_come_back_as_they_were() {
    let world = busy();
    let state = world.cluster.state();
    assert_eq!(ForkState::decode(&state.encode()).as_ref(), Ok(state));
    assert_eq!(ForkState::decode(&ForkState::default().encode()), Ok(ForkState::default()));
    let candidates = world.cluster.candidates().unwrap();
    assert_eq!(candidates.len(), 2);
    for candidate in candidates {
        assert_eq!(CommitFacts::decode(&candidate.facts.encode()).as_ref(), Ok(&candidate.facts));
        assert_eq!(Candidate::decode(&candidate.encode()), Ok(candidate));
    }
    for ent in &world.ents {
        if let Some(recorded) = world.cluster.verdict(&ent.id) {
            assert_eq!(Recorded::decode(&recorded.encode()), Ok(recorded));
        }
    }
}

#[test]
fn damaged_forms_are_refused_and_never_panic() {
    let whole = busy().cluster.state().encode();
    for cut in 0..whole.len() {
        assert!(ForkState::decode(&whole[..cut]).is_err());
    }
    assert!(ForkState::decode(&[whole.as_slice(), &[0]].concat()).is_err());
    let mut random = Random::new(1);
    for _ in 0..2000 {
        let mut bytes: Vec<u8> = (0..random.below(140)).map(|_| random.next() as u8).collect();
        if let Some(version) = bytes.first_mut() {
            *version = 1;
        }
        if let Ok(state) = ForkState::decode(&bytes) {
            assert_eq!(ForkState::decode(&state.encode()), Ok(state));
        }
        if let Ok(candidate) = Candidate::decode(&bytes) {
            assert_eq!(Candidate::decode(&candidate.encode()), Ok(candidate));
        }
        if let Ok(facts) = CommitFacts::decode(&bytes) {
            assert_eq!(CommitFacts::decode(&facts.encode()), Ok(facts));
        }
        if let Ok(recorded) = Recorded::decode(&bytes) {
            assert_eq!(Recorded::decode(&recorded.encode()), Ok(recorded));
        }
    }
}

/// A log with a commit and a side branch, and a follower that has the commit.
fn followed() -> (World, MemoryFork) {
    let mut world = World::new(Rules::ALL, PLENTY);
    let removal = world.make(2, Kind::Remove(2));
    let canonical = world.make(0, Kind::Noop);
    world.command(world.submission(canonical)).unwrap();
    world.report(2, 1 << removal).unwrap();
    let mut follower = MemoryFork::new();
    for (seq, index) in [(1, 0), (2, canonical)] {
        let entry = world.cluster.log_entry(seq, world.ents[index].entry.facts.clone()).unwrap();
        follower.follow(&group_id(), &entry).unwrap();
    }
    (world, follower)
}

#[test]
fn a_follower_computes_the_same_and_notices_everything_else() {
    let (world, follower) = followed();
    let entry = world.cluster.log_entry(3, CommitFacts::default()).unwrap();
    let mut honest = follower.clone();
    honest.follow(&group_id(), &entry).unwrap();
    assert_eq!(honest.state().owed, world.cluster.state().owed);
    assert_eq!(honest.current(), world.cluster.current());

    let Item::Mark(Mark::Side { ids, .. }) = entry.item.clone() else { panic!("a side branch") };
    let nothing_owed = Item::Mark(Mark::Side { ids: ids.clone(), owed: Vec::new() });
    let mut altered = Vec::new();
    altered.push(group_log::fork::LogEntry { seq: 4, ..entry.clone() });
    altered.push(group_log::fork::LogEntry { chain: ChainHash([7; 32]), ..entry.clone() });
    altered.push(group_log::fork::LogEntry { state_id: StateId([7; 32]), ..entry.clone() });
    let chain = Mark::Side { ids: ids.clone(), owed: Vec::new() };
    let head = *follower.current().unwrap();
    let chain = chain.chain_hash(&head.chain, 3, head.epoch, &head.state_id);
    altered.push(group_log::fork::LogEntry { item: nothing_owed, chain, ..entry.clone() });
    for entry in altered {
        let error = follower.clone().follow(&group_id(), &entry).unwrap_err();
        assert!(matches!(error, FollowError::Chain(_)), "{error}");
    }
    let without = group_log::fork::LogEntry { bodies: Vec::new(), ..entry.clone() };
    let error = follower.clone().follow(&group_id(), &without).unwrap_err();
    assert_eq!(error, FollowError::MissingBody { seq: 3, id: ids[0] });
    let again = world.cluster.log_entry(2, CommitFacts::default()).unwrap();
    assert!(follower.clone().follow(&group_id(), &again).is_err());
}

#[test]
fn a_tree_takes_in_only_what_can_be_reported_and_drops_only_what_is_settled() {
    let mut world = World::new(Rules::ALL, PLENTY);
    let first = world.make(2, Kind::Noop);
    world.clients[2].current = first as u8;
    let second = world.make(2, Kind::Noop);
    world.insert(1, second);
    assert_eq!(world.gateways[1].tree_mask, 0, "its parent is not known here");
    world.insert(1, first);
    world.insert(1, second);
    assert_eq!(bits(world.gateways[1].tree_mask).collect::<Vec<_>>(), [first, second]);
    let entries = world.reportable(1);
    world.report(1, entries).unwrap();
    world.close(0).unwrap();
    world.step(Pull(1)).unwrap();
    world.prune(1);
    assert_eq!(world.gateways[1].tree.len(), 2, "recorded, but others may not have read it");
    for g in 0..3 {
        [Pull(g), Ack(g), DeliverAck(g)].iter().for_each(|act| world.step(*act).unwrap());
    }
    world.step(Pull(1)).unwrap();
    world.prune(1);
    assert!(world.gateways[1].tree.is_empty());
}

#[test]
fn a_branch_that_lost_does_not_keep_others_from_the_same_fork_point() {
    // A removal is owed. A branch that ignores it is in the way of another as long as it may win, and no longer.
    let mut world = World::new(Rules::ALL, PLENTY);
    let removal = world.make(2, Kind::Remove(2));
    let canonical = world.make(0, Kind::Noop);
    world.command(world.submission(canonical)).unwrap();
    world.report(2, 1 << removal).unwrap();
    world.clients[0].current = world.head();
    let ignoring = world.make(0, Kind::Noop);
    let obeying = world.make(0, Kind::Remove(2));
    world.step(Pull(1)).unwrap();
    world.insert(1, ignoring);
    let entry = (*world.ents[obeying].entry).clone();
    let refused = world.gateways[1].tree.admit(world.view_of(1), 1, &entry).unwrap();
    assert_eq!(refused, Err(BranchRefusal::NotALeaf { child: world.ents[ignoring].id }));
    world.report(1, 1 << ignoring).unwrap();
    world.close(0).unwrap();
    assert_eq!(world.head() as usize, canonical, "the branch lost to nothing");
    world.step(Pull(1)).unwrap();
    assert!(world.admits(1, obeying));
    let another = world.make(0, Kind::Noop);
    let entry = (*world.ents[another].entry).clone();
    let refused = world.gateways[1].tree.admit(world.view_of(1), 1, &entry).unwrap();
    assert!(matches!(refused, Err(BranchRefusal::RemoveFirst { .. })), "{refused:?}");
}

#[test]
fn what_follows_a_loser_is_lost_at_once_and_late_once_the_loser_may_be_forgotten() {
    let mut world = World::new(Rules::ALL, PLENTY);
    let removal = world.make(2, Kind::Remove(2));
    let canonical = world.make(0, Kind::Noop);
    world.command(world.submission(canonical)).unwrap();
    world.report(2, 1 << removal).unwrap();
    world.clients[0].current = world.head();
    let loser = world.make(0, Kind::Noop);
    world.report(1, 1 << loser).unwrap();
    world.close(0).unwrap();
    world.clients[0].current = loser as u8;
    let [child, later] = [world.make(0, Kind::App), world.make(0, Kind::Noop)];

    world.report(1, 1 << child).unwrap();
    assert_eq!(world.log.last(), Some(&It::Side(1 << child)));
    assert!(!world.collecting(), "nothing that could win was reported");
    // The head has not moved, so only the position of the loser's own entry says that it may be forgotten.
    for g in 0..3 {
        [Pull(g), Ack(g), DeliverAck(g)].iter().for_each(|act| world.step(*act).unwrap());
    }
    assert_eq!(world.head() as usize, canonical);
    world.report(1, 1 << later).unwrap();
    assert_eq!(world.log.last(), Some(&It::Late(1 << later)));
}

#[test]
fn reports_have_bounds_and_leave_nothing_behind_when_they_are_refused() {
    let mut world = World::new(Rules::ALL, PLENTY);
    let entry = |n: usize| BranchEntry {
        parent: world.ents[0].entry.parent,
        author: member_name(0),
        content: Content::Application { message: n.to_string().into_bytes().into() },
        facts: CommitFacts::default(),
    };
    let entries: Vec<_> = (0..=MAX_REPORT_ENTRIES).map(entry).collect();
    let before = world.cluster.clone();
    let report = |entries| Command::Report(Report { gateway: gateway_id(0), entries, complete: true });
    let refused = world.command(report(entries)).unwrap();
    assert!(matches!(refused, Answer::Rejected(Rejection::TooMany { limit: 1024, got: 1025 })));
    assert_eq!(world.cluster, before);
}

#[test]
fn modes_follow_the_quorum_with_hysteresis() {
    let times = ModeTimes { suspect_ms: 1000, steady_ms: 100 };
    let mut machine = ModeMachine::new(GroupKind::Demls, 0);
    let see = |machine: &mut ModeMachine, now_ms, quorum, unrecorded| {
        let signals =
            Signals { now_ms, quorum, outcome_unknown: false, view_covers_promise: true, unrecorded };
        machine.observe(&signals, &times)
    };
    let went = |from, to| Some(Transition { from, to });
    assert_eq!(see(&mut machine, 0, true, false), None);
    assert_eq!(machine.next_ms(&times), Some(100));
    assert_eq!(see(&mut machine, 100, true, false), went(Mode::Suspect, Mode::Ordered));
    assert_eq!(machine.service(), Service::Order);
    assert_eq!(see(&mut machine, 200, false, false), went(Mode::Ordered, Mode::Suspect));
    assert_eq!(machine.service(), Service::Wait);
    assert_eq!(machine.next_ms(&times), Some(1200));
    // A link that flaps is not trusted, and does not start the suspicion again.
    assert_eq!(see(&mut machine, 700, true, false), None);
    assert_eq!(see(&mut machine, 750, false, false), None);
    assert_eq!(see(&mut machine, 1199, false, false), None);
    assert_eq!(see(&mut machine, 1200, false, false), went(Mode::Suspect, Mode::Forked));
    assert_eq!(machine.service(), Service::Branch);
    assert_eq!(see(&mut machine, 1300, true, true), None);
    assert_eq!(see(&mut machine, 1400, true, true), went(Mode::Forked, Mode::Reconciling));
    assert_eq!(machine.service(), Service::Wait);
    assert_eq!(see(&mut machine, 1500, true, false), went(Mode::Reconciling, Mode::Ordered));
}

#[test]
fn a_moment_without_a_quorum_while_branches_are_brought_together_is_only_suspected() {
    let times = ModeTimes { suspect_ms: 1000, steady_ms: 100 };
    let mut machine = ModeMachine::new(GroupKind::Demls, 0);
    let see = |machine: &mut ModeMachine, now_ms, quorum| {
        let signals =
            Signals { now_ms, quorum, outcome_unknown: false, view_covers_promise: true, unrecorded: true };
        machine.observe(&signals, &times)
    };
    let went = |from, to| Some(Transition { from, to });
    assert_eq!(see(&mut machine, 1000, false), went(Mode::Suspect, Mode::Forked));
    assert_eq!(see(&mut machine, 2000, true), None);
    assert_eq!(see(&mut machine, 2100, true), went(Mode::Forked, Mode::Reconciling));
    assert_eq!(see(&mut machine, 2200, false), went(Mode::Reconciling, Mode::Suspect));
    assert_eq!(machine.service(), Service::Wait);
    assert_eq!(see(&mut machine, 2300, true), None);
    assert_eq!(see(&mut machine, 2400, true), went(Mode::Suspect, Mode::Reconciling));
    // Lost for longer, the group goes on: as long after the loss as the first time.
    assert_eq!(see(&mut machine, 2500, false), went(Mode::Reconciling, Mode::Suspect));
    assert_eq!(machine.next_ms(&times), Some(3500));
    assert_eq!(see(&mut machine, 3499, false), None);
    assert_eq!(see(&mut machine, 3500, false), went(Mode::Suspect, Mode::Forked));
}

#[test]
fn an_unknown_outcome_alone_brings_a_fork_no_nearer() {
    let times = ModeTimes { suspect_ms: 1000, steady_ms: 0 };
    let mut machine = ModeMachine::new(GroupKind::Demls, 0);
    let mut see = |now_ms, quorum, outcome_unknown| {
        let signals =
            Signals { now_ms, quorum, outcome_unknown, view_covers_promise: true, unrecorded: false };
        machine.observe(&signals, &times);
        (machine.mode(), machine.next_ms(&times))
    };
    assert_eq!(see(0, true, false).0, Mode::Ordered);
    assert_eq!(see(100, true, true).0, Mode::Suspect);
    assert_eq!(see(900, true, true).0, Mode::Suspect);
    // An election may have begun only now.
    assert_eq!(see(950, false, true), (Mode::Suspect, Some(1950)));
    assert_eq!(see(1949, false, true).0, Mode::Suspect);
    assert_eq!(see(1950, false, true).0, Mode::Forked);
}

#[test]
fn a_gateway_acknowledges_only_outside_forked_mode_with_nothing_unreported() {
    let signals = |now_ms, quorum, unrecorded| Signals {
        now_ms,
        quorum,
        outcome_unknown: false,
        view_covers_promise: true,
        unrecorded,
    };
    let times = ModeTimes { suspect_ms: 10, steady_ms: 0 };
    let mut machine = ModeMachine::new(GroupKind::Demls, 0);
    machine.observe(&signals(10, false, false), &times);
    assert_eq!(machine.mode(), Mode::Forked);
    assert!(!machine.may_acknowledge(&signals(10, true, false)));
    machine.observe(&signals(11, true, true), &times);
    assert_eq!(machine.mode(), Mode::Reconciling);
    assert!(!machine.may_acknowledge(&signals(11, true, true)));
    assert!(machine.may_acknowledge(&signals(12, true, false)));
}
