//! The fork rules in worlds of three gateways and four members: every world up to a bound, and random walks beyond it.
//!
//! `CONCORDAT_SEED` replays a walk, `CONCORDAT_WALKS` makes more of them, `CONCORDAT_WORLDS` searches further.
use crate::sim::{
    explore::{search, walk},
    world::{Budget, Rules},
};

fn from_env(name: &str, default: usize) -> usize {
    std::env::var(name).ok().map_or(default, |value| value.parse().expect("a number"))
}

#[test]
fn every_world_with_one_commit_and_a_split_keeps_every_promise() {
    let budget = Budget { commits: 1, nets: 2, ..Budget::default() };
    let found = search(Rules::ALL, budget, from_env("CONCORDAT_WORLDS", 120_000));
    println!(
        "{} worlds, {} steps, depth {}, exhausted: {}",
        found.worlds, found.steps, found.depth, found.exhausted
    );
    found.expect_none();
}

#[test]
fn every_world_with_two_commits_and_a_split_keeps_every_promise() {
    let budget = Budget { commits: 2, nets: 1, ..Budget::default() };
    let found = search(Rules::ALL, budget, from_env("CONCORDAT_WORLDS", 120_000));
    println!(
        "{} worlds, {} steps, depth {}, exhausted: {}",
        found.worlds, found.steps, found.depth, found.exhausted
    );
    found.expect_none();
}

#[test]
fn every_world_with_a_commit_a_split_and_a_gateway_that_lets_go_keeps_every_promise() {
    let budget = Budget { commits: 1, nets: 1, releases: 1, ..Budget::default() };
    let found = search(Rules::ALL, budget, from_env("CONCORDAT_WORLDS", 120_000));
    println!(
        "{} worlds, {} steps, depth {}, exhausted: {}",
        found.worlds, found.steps, found.depth, found.exhausted
    );
    found.expect_none();
}

/// From `CONCORDAT_SEED`, or from the clock.
fn seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    from_env("CONCORDAT_SEED", now.expect("the clock is past 1970").subsec_nanos() as usize) as u64
}

fn walks(name: &str, rules: Rules, budget: Budget) {
    let seed = seed();
    println!("replay with CONCORDAT_SEED={seed}");
    let walks = from_env("CONCORDAT_WALKS", 3000) as u64;
    let found = walk(rules, budget, seed, walks, 120);
    println!("{name}: {} walks, {} steps, {:?}", found.worlds, found.steps, found.seen);
    found.expect_none();
}

#[test]
fn random_walks_through_splits_keep_every_promise() {
    walks("splits", Rules::ALL, Budget { commits: 4, apps: 2, nets: 6, ..Budget::default() });
}

#[test]
fn random_walks_through_crashes_and_moves_keep_every_promise() {
    let budget = Budget { commits: 3, apps: 1, nets: 4, crashes: 2, moves: 3, ..Budget::default() };
    walks("crashes", Rules::ALL, budget);
}

#[test]
fn random_walks_through_losses_and_evictions_keep_every_promise() {
    let budget = Budget {
        commits: 3,
        apps: 1,
        nets: 4,
        crashes: 1,
        losses: 1,
        evictions: 2,
        moves: 2,
        ..Budget::default()
    };
    walks("losses", Rules::ALL, budget);
}

#[test]
fn random_walks_with_gateways_that_let_go_and_come_back_keep_every_promise() {
    let budget =
        Budget { commits: 3, apps: 1, nets: 4, crashes: 1, moves: 2, releases: 3, ..Budget::default() };
    walks("releases", Rules::ALL, budget);
}

#[test]
fn random_walks_with_releases_losses_and_evictions_keep_every_promise() {
    let budget =
        Budget { commits: 3, apps: 1, nets: 3, crashes: 1, losses: 1, evictions: 1, moves: 2, releases: 2 };
    walks("releases and losses", Rules::ALL, budget);
}

#[test]
fn random_walks_with_a_lying_gateway_keep_every_promise() {
    let budget = Budget { commits: 3, apps: 1, nets: 4, evictions: 1, releases: 1, ..Budget::default() };
    walks("lies", Rules { evil: true, ..Rules::ALL }, budget);
}
