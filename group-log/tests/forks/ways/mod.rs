//! The fourteen ways in which earlier rules broke, each played once more, and a fifteenth that would have been one. Where a habit of clients or gateways can be switched off,
//! the same story must go wrong without it: that shows that the story is the one that matters.

mod one_to_nine;
mod releases;
mod ten_to_fourteen;

use group_log::fork::Answer;

use crate::sim::{
    acts::Act::{self, *},
    heal::check,
    world::{Budget, Kind, Rules, World},
};

const PLENTY: Budget =
    Budget { commits: 9, apps: 9, nets: 9, crashes: 9, losses: 9, evictions: 9, moves: 9, releases: 9 };

fn play(rules: Rules, acts: &[Act]) -> Result<World, String> {
    let mut world = World::new(rules, PLENTY);
    acts.iter().try_for_each(|act| world.step(*act))?;
    Ok(world)
}

/// Plays with every rule, checks the end, and gives the world after the story.
fn story(acts: &[Act]) -> World {
    let world = play(Rules::ALL, acts).unwrap();
    check(&world).unwrap();
    world
}

/// The same story must break when a rule is switched off.
fn breaks(rules: Rules, acts: &[Act], kind: &str) {
    let error = play(rules, acts).and_then(|world| check(&world)).unwrap_err();
    assert!(error.starts_with(kind), "expected {kind}, got {error}");
}

fn answer(world: &World, index: usize) -> Answer {
    world.clone().command(world.submission(index)).unwrap()
}

/// Gateway 2 is cut off and accepts commit 1 of member 2; the others order commit 2 of member 0.
const SPLIT: [Act; 10] = [
    Net(3, 1),
    Fork(2),
    Make(2, Kind::Noop),
    Accept(2, 2, 1),
    Make(0, Kind::Noop),
    Submit(0, 2),
    Deliver(2),
    Pull(0),
    Consume(0),
    RelayLog(0, 1),
];
