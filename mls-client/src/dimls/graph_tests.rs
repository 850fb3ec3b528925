//! The graph under random histories of honest owners, and its corners one by one.

use proptest::prelude::*;

use super::*;

fn set(members: &[Member]) -> BTreeSet<Member> {
    members.iter().copied().collect()
}

fn node(owner: Member, epoch: u64) -> Node {
    Node { owner, epoch }
}

#[test]
fn a_commit_waits_for_what_may_come_and_gives_up_what_cannot() {
    let mut graph = Graph::new(3);
    assert_eq!(graph.judge(0, &[node(1, 2)]), Verdict::Waits(node(1, 2)));
    graph.enter(node(1, 2), true, set(&[0, 1, 2]), &[]);
    assert_eq!(graph.judge(0, &[node(1, 2)]), Verdict::Ready);
    // The graph jumped from nothing to 2: epoch 1 was never entered.
    assert_eq!(graph.judge(0, &[node(1, 1)]), Verdict::Never(node(1, 1)));
    graph.leave(1);
    assert_eq!(graph.judge(0, &[node(1, 3)]), Verdict::Waits(node(1, 3)), "it may be added again");
    assert_eq!(graph.judge(0, &[node(1, 2)]), Verdict::Ready, "a PSK that is held stays usable");
}

#[test]
fn no_owner_takes_its_own_epochs_or_the_same_twice_or_older_ones() {
    let mut graph = Graph::new(3);
    for epoch in 1..=4 {
        graph.enter(node(1, epoch), true, set(&[0, 1, 2]), &[]);
    }
    graph.enter(node(0, 1), false, set(&[0, 1, 2]), &[node(1, 3)]);
    assert_eq!(graph.judge(0, &[node(0, 1)]), Verdict::Refused(node(0, 1)));
    assert_eq!(graph.judge(0, &[node(1, 4), node(1, 4)]), Verdict::Refused(node(1, 4)));
    assert_eq!(graph.judge(0, &[node(1, 3)]), Verdict::Refused(node(1, 3)));
    assert_eq!(graph.judge(0, &[node(7, 1)]), Verdict::Refused(node(7, 1)));
    assert_eq!(graph.judge(0, &[node(1, 4)]), Verdict::Ready);
    assert_eq!(graph.judge(2, &[node(1, 3)]), Verdict::Ready, "others have not taken it yet");
}

#[test]
fn only_what_everybody_in_the_group_can_have_is_taken() {
    let mut graph = Graph::new(3);
    graph.enter(node(0, 1), true, set(&[0, 1, 2]), &[]);
    graph.enter(node(1, 1), true, set(&[0, 1]), &[]);
    assert!(graph.importable(0, &set(&[0, 1, 2])).is_empty(), "member 2 is not in that epoch");
    assert_eq!(graph.importable(0, &set(&[0, 1])), [node(1, 1)]);
    graph.enter(node(1, 2), false, set(&[0, 1, 2]), &[]);
    assert_eq!(graph.importable(0, &set(&[0, 1, 2])), [node(1, 2)], "the newest epoch holds the update");
    graph.enter(node(0, 2), false, set(&[0, 1, 2]), &[node(1, 2)]);
    graph.enter(node(1, 3), false, set(&[0, 1, 2]), &[node(0, 1)]);
    assert!(graph.importable(0, &set(&[0, 1, 2])).is_empty(), "an acknowledgement is not acknowledged");
}

/// What an owner does next.
#[derive(Clone, Debug)]
enum Act {
    /// Commits, with or without a path, and takes all that it can.
    Commit(Member, bool),
    /// Takes in the next commit of another, if its PSKs are there.
    Receive(Member, Member),
}

fn acts(members: Member) -> impl Strategy<Value = Vec<Act>> {
    let commit = (0..members, any::<bool>()).prop_map(|(who, path)| Act::Commit(who, path));
    let receive = (0..members, 0..members).prop_map(|(who, from)| Act::Receive(who, from));
    proptest::collection::vec(prop_oneof![commit, receive.clone(), receive], 0..250)
}

struct World {
    /// Each member's commits: what was taken, and whether it brought a path. The first one begins epoch 1.
    made: Vec<Vec<(Vec<Node>, bool)>>,
    views: Vec<Graph>,
    everybody: BTreeSet<Member>,
}

impl World {
    fn new(members: Member) -> Self {
        let everybody: BTreeSet<Member> = (0..members).collect();
        let views = vec![Graph::new(usize::from(members)); usize::from(members)];
        World { made: vec![Vec::new(); usize::from(members)], views, everybody }
    }

    fn commit(&mut self, who: Member, path: bool) {
        let view = &mut self.views[usize::from(who)];
        let takes = view.importable(who, &self.everybody);
        assert_eq!(view.judge(who, &takes), Verdict::Ready);
        let made = &mut self.made[usize::from(who)];
        made.push((takes.clone(), path));
        view.enter(node(who, made.len() as u64), path, self.everybody.clone(), &takes);
    }

    fn receive(&mut self, who: Member, from: Member) -> bool {
        let view = &mut self.views[usize::from(who)];
        let epoch = view.entered(from).unwrap_or(0) + 1;
        let Some((takes, path)) = self.made[usize::from(from)].get(epoch as usize - 1) else { return false };
        if who == from {
            return false;
        }
        match view.judge(from, takes) {
            Verdict::Ready => view.enter(node(from, epoch), *path, self.everybody.clone(), takes),
            Verdict::Waits(_) => return false,
            other => panic!("an honest commit was {other:?}"),
        }
        for gone in view.deletable(&self.everybody, usize::MAX) {
            view.forget(gone);
        }
        true
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever the order of delivery: no cycle, nothing waits for ever, and no PSK was deleted that somebody still needed.
    #[test]
    fn honest_commits_never_deadlock_and_never_miss_a_deleted_psk(members in 2u16..6, acts in acts(5)) {
        let mut world = World::new(members);
        for act in acts {
            match act {
                Act::Commit(who, path) => world.commit(who % members, path),
                Act::Receive(who, from) => { world.receive(who % members, from % members); }
            }
        }
        // Everything is delivered in the end, member by member, as long as anything moves.
        while (0..members).any(|who| (0..members).any(|from| world.receive(who, from))) {}
        for (who, view) in (0..).zip(&world.views) {
            for (from, made) in (0..).zip(&world.made) {
                let entered = view.entered(from).unwrap_or(0);
                prop_assert_eq!(entered, made.len() as u64, "member {} waits for ever in group {}", who, from);
            }
        }
        // One round of acknowledgements, and everybody has everybody's last update.
        for who in 0..members {
            world.commit(who, false);
        }
        let view = |who: Member| &world.views[usize::from(who)];
        for by in 0..members {
            for of in (0..members).filter(|of| *of != by) {
                prop_assert!(view(by).taken(by, of).unwrap_or(0) >= view(by).updated(of));
            }
        }
    }
}
