use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::raft::round_trips::RoundTrips;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const WINDOW: Duration = Duration::from_secs(5);
const SITES: [&str; 3] = ["a", "b", "c"];

fn rule() -> Rule {
    Rule::for_windows(WINDOW)
}

/// One voter at each of `a`, `b`, ..; node 1 leads, all have caught up.
fn world(trips: &[(NodeId, NodeId, u64)]) -> View {
    let mut round_trips = RoundTrips::default();
    trips.iter().for_each(|(a, b, trip)| round_trips.note(*a, *b, ms(*trip)));
    let member = |(id, site): (NodeId, &&str)| Member {
        id,
        site: (*site).to_owned(),
        votes: true,
        lag: Some(0),
        last_contact: Some(ms(10)),
        should_not_lead: false,
    };
    View {
        shard: 1,
        me: 1,
        members: (1..).zip(&SITES).map(member).collect(),
        round_trips,
        contact_within: ms(1000),
        preferred: None,
    }
}

/// Every two sites 30 ms apart.
fn even() -> View {
    world(&[(1, 2, 30), (1, 3, 30), (2, 3, 30)])
}

fn from(counts: &[(&str, u64)]) -> Counted {
    counts.iter().map(|(site, count)| ((*site).to_owned(), *count)).collect()
}

/// A shard that is really moved when the rule says so: each leader begins with nothing but the time of the last move.
struct Shard {
    view: View,
    course: Course,
    unmoved: Duration,
    moves: Vec<NodeId>,
}

impl Shard {
    fn new(view: View) -> Self {
        Self { view, course: Course::default(), unmoved: rule().rest, moves: Vec::new() }
    }

    fn window(&mut self, counted: Counted) -> Decision {
        self.unmoved += WINDOW;
        let decision = self.course.judge(&rule(), &self.view, counted, self.unmoved);
        if let Decision::Move { to, .. } = decision {
            assert!(self.unmoved >= rule().rest);
            self.view.me = to;
            (self.course, self.unmoved) = (Course::default(), Duration::ZERO);
            self.moves.push(to);
        }
        decision
    }
}

#[test]
fn a_leader_follows_the_submissions_after_as_many_windows_as_the_rule_says() {
    let mut shard = Shard::new(even());
    for _ in 1..rule().windows {
        assert_eq!(shard.window(from(&[("c", 100)])), Decision::Stay);
    }
    assert_eq!(shard.window(from(&[("c", 100)])), Decision::Move { to: 3, reason: Reason::Latency });
    for _ in 0..100 {
        assert_eq!(shard.window(from(&[("c", 100)])), Decision::Stay);
    }
    let outlook = shard.course.outlook().expect("windows were closed");
    assert_eq!((outlook.here, outlook.there[&1]), (ms(30), ms(60)));
}

#[test]
fn every_sequence_of_windows_moves_only_after_enough_of_them_in_a_row_and_a_rest() {
    // From a or from b in each of 14 windows: all 2^14 sequences.
    for sequence in 0..1_u32 << 14 {
        let mut shard = Shard::new(even());
        let (mut row, mut last) = (0, 0);
        for window in 0..14 {
            let site = (sequence >> window) & 1;
            row = if site == last { row + 1 } else { 1 };
            last = site;
            let at_home = shard.view.me == u64::from(site) + 1;
            let ripe = shard.unmoved + WINDOW >= rule().rest;
            // A new leader counts from its own first window.
            let seen = row.min(u32::try_from(shard.unmoved.as_secs() / 5).expect("few") + 1);
            let expected = !at_home && row >= rule().windows && ripe && seen >= rule().windows;
            let moved = shard.window(from(&[(SITES[site as usize], 100)])) != Decision::Stay;
            assert_eq!(moved, expected, "window {window} of sequence {sequence:b}");
        }
    }
}

#[test]
fn a_window_goes_on_until_enough_was_counted_and_nothing_moves_without_submissions() {
    let mut shard = Shard::new(even());
    let share = rule().submissions / 4;
    for window in 1..4 * rule().windows {
        assert_eq!(shard.window(from(&[("b", share)])), Decision::Stay, "window {window}");
    }
    assert_ne!(shard.window(from(&[("b", share)])), Decision::Stay);
    let mut idle = Shard::new(even());
    assert!((0..100).all(|_| idle.window(Counted::new()) == Decision::Stay));
    assert!((0..100).all(|_| idle.window(from(&[("", 1000), ("nowhere", 1000)])) == Decision::Stay));
}

#[test]
fn a_gain_that_is_small_in_itself_or_in_proportion_moves_nothing() {
    let near = world(&[(1, 2, 2), (1, 3, 2), (2, 3, 2)]);
    let mut shard = Shard::new(near);
    assert!((0..50).all(|_| shard.window(from(&[("b", 100)])) == Decision::Stay), "2 ms are not worth it");
    let (just, less) = (ms(20), ms(19));
    assert!(rule().pays(ms(100), ms(100) - just) && !rule().pays(ms(100), ms(100) - less));
    assert!(rule().pays(ms(6), ms(1)) && !rule().pays(ms(6), ms(2)) && !rule().pays(ms(1), ms(9)));
}

type Spoil = fn(&mut Member);

#[test]
fn only_a_voter_that_is_there_willing_and_caught_up_takes_over() {
    let spoils: [Spoil; 6] = [
        |m| m.votes = false,
        |m| m.lag = Some(rule().max_lag + 1),
        |m| m.lag = None,
        |m| m.last_contact = Some(ms(1001)),
        |m| m.last_contact = None,
        |m| m.should_not_lead = true,
    ];
    for spoil in spoils {
        for preferred in [None, Some("b".to_owned())] {
            let mut view = View { preferred, ..even() };
            spoil(&mut view.members[1]);
            let mut shard = Shard::new(view);
            for _ in 0..50 {
                shard.window(from(&[("b", 100)]));
            }
            assert!(!shard.moves.contains(&2), "{:?}", shard.view.members[1]);
        }
    }
}

#[test]
fn a_voter_that_lags_for_a_moment_takes_over_when_it_has_caught_up() {
    let mut shard = Shard::new(even());
    for _ in 0..rule().windows - 1 {
        shard.window(from(&[("b", 100)]));
    }
    shard.view.members[1].lag = Some(rule().max_lag + 1);
    assert_eq!(shard.window(from(&[("b", 100)])), Decision::Stay);
    shard.view.members[1].lag = Some(0);
    assert_eq!(shard.window(from(&[("b", 100)])), Decision::Move { to: 2, reason: Reason::Latency });
}

#[test]
fn the_preferred_site_wins_over_the_measured_one_and_needs_no_submissions() {
    let mut shard = Shard::new(View { preferred: Some("b".into()), ..even() });
    for _ in 1..rule().windows {
        assert_eq!(shard.window(Counted::new()), Decision::Stay);
    }
    assert_eq!(shard.window(Counted::new()), Decision::Move { to: 2, reason: Reason::Preferred });
    assert!((0..50).all(|_| shard.window(from(&[("c", 100)])) == Decision::Stay), "c would be faster");
    // While nobody there can lead, the others are where it pays; then it is home again.
    shard.view.members[1].last_contact = None;
    shard.view.me = 1;
    for _ in 0..20 {
        shard.window(from(&[("c", 100)]));
    }
    assert_eq!(shard.view.me, 3);
    shard.view.members[1].last_contact = Some(ms(1));
    for _ in 0..20 {
        shard.window(from(&[("c", 100)]));
    }
    assert_eq!(shard.moves, [2, 3, 2]);
}

#[test]
fn shards_take_turns_among_voters_that_are_equally_good() {
    let led = |shard| {
        let mut view = View { shard, preferred: Some("b".into()), ..even() };
        view.members.push(Member { id: 4, ..view.members[1].clone() });
        let mut shard = Shard::new(view);
        for _ in 0..20 {
            shard.window(Counted::new());
        }
        shard.moves
    };
    assert_eq!([led(0), led(1), led(2)], [[2], [4], [2]]);
}

#[test]
fn before_anything_was_measured_the_name_of_the_site_decides() {
    let mut shard = Shard::new(world(&[]));
    for _ in 0..20 {
        shard.window(from(&[("c", 90), ("a", 10)]));
    }
    assert_eq!(shard.moves, [3]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Two sites share the load, each between 45 and 55 % of it, window by window in any order: whatever the distances, nothing moves.
    #[test]
    fn sites_that_share_the_load_equally_never_make_a_leader_move(
        (between, further) in (1_u64..300, 0_u64..300),
        shares in proptest::collection::vec(450_u64..=550, 1..200),
    ) {
        // The third site is no nearer to both than they are to one another, or it were the better place for good.
        let third = between + further;
        let mut shard = Shard::new(world(&[(1, 2, between), (1, 3, third), (2, 3, third)]));
        for share in &shares {
            shard.window(from(&[("a", *share), ("b", 1000 - share)]));
        }
        prop_assert!(shard.moves.is_empty(), "{:?}", shard.moves);
    }

    /// Loads that change sides sooner than the rule needs windows, with any noise in how much each window counts.
    #[test]
    fn loads_that_alternate_never_make_a_leader_move(
        runs in proptest::collection::vec((1_u32..6, 100_u64..5000), 2..60),
    ) {
        let mut shard = Shard::new(even());
        for (number, (windows, count)) in runs.iter().enumerate() {
            for _ in 0..*windows {
                shard.window(from(&[(SITES[number % 2], *count)]));
            }
        }
        prop_assert!(shard.moves.is_empty(), "{:?}", shard.moves);
    }

    /// Any loads over any distances: a leader that has moved rests, and each move pays by what the window that decided it counted.
    #[test]
    fn every_move_pays_and_is_followed_by_a_rest(
        trips in proptest::array::uniform3(0_u64..400),
        loads in proptest::collection::vec(proptest::array::uniform3(0_u64..300), 1..120),
    ) {
        let mut shard = Shard::new(world(&[(1, 2, trips[0]), (1, 3, trips[1]), (2, 3, trips[2])]));
        let mut open = BTreeMap::<String, u64>::new();
        for load in &loads {
            let counted = from(&[("a", load[0]), ("b", load[1]), ("c", load[2])]);
            for (site, count) in &counted {
                *open.entry(site.clone()).or_default() += count;
            }
            let before = shard.view.clone();
            match shard.window(counted) {
                Decision::Move { to, .. } => {
                    let outlook = before.outlook(&open).expect("it was judged");
                    prop_assert!(rule().pays(outlook.here, outlook.there[&to]), "{outlook:?}");
                    open.clear();
                }
                Decision::Stay if open.values().sum::<u64>() >= rule().submissions => open.clear(),
                Decision::Stay => {}
            }
        }
        prop_assert!(shard.moves.len() <= 1 + loads.len() / rule().windows as usize);
    }
}
