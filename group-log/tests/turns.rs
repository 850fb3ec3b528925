//! Turns: every sequence of commits, waits and changes of the order up to a depth, against a naive oracle; and what must hold for all
//! of them.

#![allow(clippy::unwrap_used, reason = "a panic is the report")]

mod support;

use group_log::{
    Content, Decision, GroupKind, Head, Limits, MemoryLog, Offer, Policy, Refusal, Submission, Turn, Turns,
    limits::{MAX_TURN_MEMBERS, MAX_TURN_MS, MIN_TURN_MS, TURNS_AHEAD},
};
use proptest::{collection::vec, prelude::*};
use support::{client, commit, create, create_as, policy, seeded, submission};

const TURN_MS: u32 = 100;
const CLIENTS: [&str; 3] = ["ann", "bob", "cyn"];

fn turns(order: &[&str]) -> Content {
    let order = order.iter().map(|name| client(name)).collect();
    Content::PolicyChange { policy: Policy::default(), turns: Some(Turns { turn_ms: TURN_MS, order }) }
}

fn offer(at_ms: u64) -> Offer {
    Offer { at_ms, members_only: false }
}

/// What can happen next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A client commits; with `members_only`, to add or remove somebody.
    Commit { by: usize, members_only: bool },
    /// The leader's clock moves on, or back where a leader with another clock takes over.
    Wait(i64),
    /// The members take turns in this order from now on; nothing: no more.
    Order(&'static [&'static str]),
}

/// Whose turn it is, told in the simplest way: time passes in single milliseconds.
#[derive(Clone, Default)]
struct Oracle {
    order: Vec<&'static str>,
    at: usize,
    left: i64,
    /// How far the clock is behind the latest time seen: while it is, no time passes.
    behind: i64,
}

impl Oracle {
    fn set(&mut self, order: &'static [&'static str]) {
        (self.order, self.at, self.left, self.behind) = (order.to_vec(), 0, i64::from(TURN_MS), 0);
    }

    fn wait(&mut self, ms: i64) {
        for _ in 0..ms.max(0) {
            if self.behind > 0 {
                self.behind -= 1;
                continue;
            }
            self.left -= 1;
            if self.left == 0 {
                (self.at, self.left) = ((self.at + 1) % self.order.len().max(1), i64::from(TURN_MS));
            }
        }
    }

    fn may_commit(&self, by: &str, members_only: bool) -> bool {
        self.order.is_empty() || members_only || self.order[self.at] == by
    }

    fn committed(&mut self, members_only: bool) {
        if !members_only && !self.order.is_empty() {
            (self.at, self.left) = ((self.at + 1) % self.order.len(), i64::from(TURN_MS));
        }
    }
}

struct World {
    log: MemoryLog,
    oracle: Oracle,
    now: u64,
    commits: u32,
}

impl World {
    fn new() -> World {
        let mut log = MemoryLog::new();
        log.apply(&submission("g", "ann", 0, create("info")));
        World { log, oracle: Oracle::default(), now: 1000, commits: 0 }
    }

    fn head(&self) -> Head {
        *self.log.current().unwrap()
    }

    fn submit(&mut self, author: &str, content: Content, members_only: bool) -> (Submission, Decision) {
        let submission = submission("g", author, self.head().epoch, content);
        let offer = Offer { at_ms: self.now, members_only };
        let asked = self.log.admit_offer(&submission, offer, &Limits::REPLICATED);
        let decision = self.log.apply_offer(&submission, offer);
        assert_eq!(asked, decision, "asking and applying must agree");
        (submission, decision)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Wait(ms) => {
                self.now = self.now.saturating_add_signed(ms);
                self.oracle.wait(ms);
            }
            Step::Order(order) => {
                let content = if order.is_empty() { policy(self.commits % 60) } else { turns(order) };
                // The same order again in the same epoch is the entry that is there already.
                let before = self.head().seq;
                self.submit("ann", content, false);
                if self.head().seq > before {
                    self.oracle.set(order);
                }
            }
            Step::Commit { by, members_only } => self.commit(CLIENTS[by], members_only),
        }
    }

    fn commit(&mut self, by: &'static str, members_only: bool) {
        self.commits += 1;
        let expected = self.oracle.may_commit(by, members_only);
        let (submission, decision) = self.submit(by, commit(&format!("{by} {}", self.commits)), members_only);
        match decision {
            Decision::Accepted(accepted) => {
                assert!(expected, "{by} was not to commit");
                self.oracle.committed(members_only);
                // The same bytes again, whosever turn it is: the same answer.
                self.now += 7 * u64::from(TURN_MS);
                let again = self.log.apply_offer(&submission, offer(self.now));
                assert_eq!(again, Decision::Accepted(accepted));
                self.now -= 7 * u64::from(TURN_MS);
            }
            Decision::Refused(Refusal::NotYourTurn { holder, left_ms, retry_after_ms }) => {
                assert!(!expected, "{by} was to commit");
                assert_eq!(holder as usize, self.oracle.at);
                assert_eq!(left_ms, self.oracle.left as u64);
                // At the clock's own pace, and not while it is behind.
                if self.oracle.behind == 0 {
                    let place = self.oracle.order.iter().position(|name| *name == by);
                    let own_at = |ms: u64| {
                        let mut later = self.oracle.clone();
                        later.wait(ms as i64);
                        place == Some(later.at)
                    };
                    assert!(retry_after_ms >= left_ms && !own_at(retry_after_ms - 1));
                    assert_eq!(own_at(retry_after_ms), place.is_some(), "the time of its own turn");
                }
            }
            other => panic!("{by} got {other:?}"),
        }
    }
}

#[test]
fn every_sequence_of_commits_waits_and_orders_agrees_with_the_oracle() {
    let mut alphabet = vec![
        Step::Wait(1),
        Step::Wait(99),
        Step::Wait(100),
        Step::Wait(450),
        Step::Order(&[]),
        Step::Order(&["ann", "bob", "cyn"]),
        Step::Order(&["cyn", "ann"]),
    ];
    alphabet.extend((0..3).map(|by| Step::Commit { by, members_only: false }));
    alphabet.push(Step::Commit { by: 2, members_only: true });
    let depth = 5;
    let mut count = 0u64;
    for first in [&["bob", "ann", "cyn"][..], &["ann"][..]] {
        // Every number in base `alphabet.len()` with `depth` digits is a sequence.
        for number in 0..alphabet.len().pow(depth) {
            let mut world = World::new();
            world.step(Step::Order(first));
            let mut rest = number;
            for _ in 0..depth {
                world.step(alphabet[rest % alphabet.len()]);
                rest /= alphabet.len();
            }
            count += 1;
        }
    }
    println!("{count} sequences");
    assert!(count > 300_000);
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3usize, prop::bool::weighted(0.2)).prop_map(|(by, members_only)| Step::Commit { by, members_only }),
        3 => (0..350i64).prop_map(Step::Wait),
        1 => prop_oneof![
            Just(Step::Order(&[])),
            Just(Step::Order(&["cyn", "bob"])),
            Just(Step::Order(&["bob", "cyn", "ann"])),
        ],
    ]
}

proptest! {
    #![proptest_config(seeded(400))]

    #[test]
    fn any_longer_history_agrees_with_the_oracle(steps in vec(step(), 1..80)) {
        let mut world = World::new();
        world.step(Step::Order(&["ann", "bob", "cyn"]));
        for step in steps {
            world.step(step);
        }
    }

    #[test]
    fn a_commit_in_every_turn_keeps_everybody_waiting_no_longer_than_a_round(
        waits in vec(0..100u64, 1..60), absent in 0..4usize,
    ) {
        let mut world = World::new();
        world.step(Step::Order(&["ann", "bob", "cyn"]));
        let mut last = [world.now; 3];
        for wait in waits {
            world.step(Step::Wait(wait as i64));
            for by in (0..3).filter(|by| *by != absent) {
                let before = world.head().epoch;
                world.step(Step::Commit { by, members_only: false });
                if world.head().epoch > before {
                    prop_assert!(world.now - last[by] <= 3 * u64::from(TURN_MS) + 100);
                    last[by] = world.now;
                }
            }
        }
    }

    #[test]
    fn a_clock_that_jumps_never_breaks_the_log(jumps in vec((any::<u64>(), 0..3usize), 1..40)) {
        let mut world = World::new();
        world.step(Step::Order(&["ann", "bob", "cyn"]));
        for (n, (at_ms, by)) in jumps.into_iter().enumerate() {
            let head = world.head();
            let made = submission("g", CLIENTS[by], head.epoch, commit(&n.to_string()));
            let decision = world.log.apply_offer(&made, offer(at_ms));
            let turn = head.turn.unwrap().at(at_ms);
            let is_holder = turn.index as usize == by;
            prop_assert_eq!(matches!(decision, Decision::Accepted(_)), is_holder);
            let after = world.head();
            prop_assert_eq!(after.epoch, head.epoch + u64::from(is_holder));
            prop_assert!(after.turn.unwrap().since_ms >= head.turn.unwrap().since_ms);
            prop_assert_eq!(Head::decode(&after.encode()), Ok(after));
        }
    }

    #[test]
    fn a_head_with_a_turn_comes_back_as_it_was(
        turn_ms in MIN_TURN_MS..=MAX_TURN_MS, members in 1..=MAX_TURN_MEMBERS as u32, index in any::<u32>(), since_ms in 0..1u64 << 62,
    ) {
        let mut world = World::new();
        world.step(Step::Order(&["ann"]));
        let turn = Turn { turn_ms, members, index: index % members, since_ms };
        let head = Head { turn: Some(turn), ..world.head() };
        prop_assert_eq!(Head::decode(&head.encode()), Ok(head));
        let encoded = head.encode();
        for cut in 0..encoded.len() {
            prop_assert!(Head::decode(&encoded[..cut]).is_err());
        }
    }
}

#[test]
fn an_absent_members_turn_expires() {
    let mut world = World::new();
    world.step(Step::Order(&["ann", "bob"]));
    let late = world.submit("bob", commit("b"), false).1;
    let expected = Refusal::NotYourTurn { holder: 0, left_ms: 100, retry_after_ms: 100 };
    assert_eq!(late, Decision::Refused(expected));
    world.step(Step::Wait(99));
    assert!(matches!(world.submit("bob", commit("b"), false).1, Decision::Refused(_)));
    world.step(Step::Wait(1));
    assert!(matches!(world.submit("bob", commit("b"), false).1, Decision::Accepted(_)), "the same bytes");
}

#[test]
fn whoever_waits_is_told_the_time_of_its_own_turn_as_far_as_is_looked_ahead() {
    let order: Vec<_> = (0..MAX_TURN_MEMBERS).map(|n| client(&n.to_string())).collect();
    let content =
        Content::PolicyChange { policy: Policy::default(), turns: Some(Turns { turn_ms: TURN_MS, order }) };
    let mut world = World::new();
    world.submit("ann", content, false);
    world.now += 10;
    let mut told = |author: &str| match world.submit(author, commit(author), false).1 {
        Decision::Refused(Refusal::NotYourTurn { holder: 0, left_ms: 90, retry_after_ms }) => retry_after_ms,
        other => panic!("{other:?}"),
    };
    assert_eq!(told("1"), 90);
    assert_eq!(told("2"), 190);
    assert_eq!(told(&TURNS_AHEAD.to_string()), 90 + u64::from(TURNS_AHEAD - 1) * 100);
    let further = 90 + u64::from(TURNS_AHEAD) * 100;
    assert_eq!(told(&(TURNS_AHEAD + 1).to_string()), further);
    assert_eq!(told(&(MAX_TURN_MEMBERS - 1).to_string()), further, "it asks again then");
    assert_eq!(told("nobody"), further);
}

#[test]
fn members_are_added_and_removed_out_of_turn_and_the_turn_stays() {
    let mut world = World::new();
    world.step(Step::Order(&["ann", "bob"]));
    let turn = world.head().turn;
    assert!(matches!(world.submit("bob", commit("add cyn"), true).1, Decision::Accepted(_)));
    assert_eq!(world.head().turn, turn);
    assert!(matches!(world.submit("ann", commit("a"), false).1, Decision::Accepted(_)));
}

#[test]
fn whoever_stands_outside_the_order_only_adds_and_removes() {
    let mut world = World::new();
    world.step(Step::Order(&["ann", "bob"]));
    for wait in [0, 100, 100, 100] {
        world.step(Step::Wait(wait));
        assert!(matches!(world.submit("cyn", commit("c"), false).1, Decision::Refused(_)));
    }
    assert!(matches!(world.submit("cyn", commit("c"), true).1, Decision::Accepted(_)));
}

#[test]
fn orders_that_cannot_be_are_refused_with_their_bounds() {
    let log = &mut World::new().log;
    let mut refusal = |turn_ms, order: Vec<_>| {
        let content =
            Content::PolicyChange { policy: Policy::default(), turns: Some(Turns { turn_ms, order }) };
        match log.apply(&submission("g", "ann", 0, content)) {
            Decision::Refused(refusal) => refusal.to_string(),
            other => panic!("{other:?}"),
        }
    };
    let ann = || client("ann");
    assert_eq!(refusal(9, vec![ann()]), "policy.turns.turn_ms must be 10 to 86400000, got 9");
    assert_eq!(
        refusal(MAX_TURN_MS + 1, vec![ann()]),
        "policy.turns.turn_ms must be 10 to 86400000, got 86400001"
    );
    assert_eq!(refusal(100, vec![]), "policy.turns.order must be 1 to 1024, got 0");
    let many = (0..=MAX_TURN_MEMBERS).map(|n| client(&n.to_string())).collect();
    assert_eq!(refusal(100, many), "policy.turns.order must be 1 to 1024, got 1025");
    assert!(refusal(100, vec![ann(), client("bob"), ann()]).contains("each client once"));
}

#[test]
fn groups_that_may_be_split_take_no_turns() {
    for kind in [GroupKind::Demls, GroupKind::Dimls] {
        let mut log = MemoryLog::new();
        log.apply(&submission("g", "ann", 0, create_as(kind, Policy::default(), "info")));
        let decision = log.apply(&submission("g", "ann", 0, turns(&["ann"])));
        assert!(matches!(decision, Decision::Refused(Refusal::Malformed { .. })), "{decision:?}");
    }
}

#[test]
fn every_part_of_an_order_counts_for_the_hashes() {
    let variants = [
        (100, vec!["ann", "bob"]),
        (101, vec!["ann", "bob"]),
        (100, vec!["bob", "ann"]),
        (100, vec!["annbob"]),
        (100, vec!["ann"]),
    ];
    let mut seen = std::collections::BTreeSet::new();
    let mut contents: Vec<Content> = variants
        .into_iter()
        .map(|(turn_ms, order)| {
            let order = order.into_iter().map(client).collect();
            Content::PolicyChange { policy: Policy::default(), turns: Some(Turns { turn_ms, order }) }
        })
        .collect();
    contents.push(Content::PolicyChange { policy: Policy::default(), turns: None });
    for content in contents {
        let mut world = World::new();
        assert!(matches!(world.submit("ann", content, false).1, Decision::Accepted(_)));
        let entry = world.log.entry(2).unwrap();
        assert!(seen.insert(entry.chain), "two different orders have one chain hash");
    }
}
