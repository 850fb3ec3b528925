//! Searching worlds: every one up to a bound, or long random walks.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    mem::discriminant,
};

use super::{
    acts::Act,
    heal::check,
    world::{Budget, It, Kind, Rules, Seat, World, show},
};

/// What a search found out.
#[derive(Default, Debug)]
pub struct Found {
    pub worlds: usize,
    pub steps: u64,
    pub depth: usize,
    /// Every world within the budget was visited.
    pub exhausted: bool,
    /// Walks in which this happened.
    pub seen: BTreeMap<&'static str, u64>,
    pub violation: Option<Violation>,
}

#[derive(Debug)]
pub struct Violation {
    pub error: String,
    pub trace: Vec<Act>,
    pub world: String,
}

impl Found {
    pub fn expect_none(&self) {
        if let Some(Violation { error, trace, world }) = &self.violation {
            panic!("{error}\ntrace {trace:?}\n{world}");
        }
    }

    /// The violation, for searches that switch a rule off.
    pub fn expect(&self, kinds: &[&str]) {
        let Some(Violation { error, trace, .. }) = &self.violation else {
            panic!("nothing was found in {} worlds, down to depth {}", self.worlds, self.depth)
        };
        println!("{error}\nafter {trace:?}");
        assert!(kinds.iter().any(|kind| error.starts_with(kind)), "expected one of {kinds:?}, got {error}");
    }
}

fn fingerprint(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

/// Breadth first, at most so many worlds.
pub fn search(rules: Rules, budget: Budget, most: usize) -> Found {
    let first = World::new(rules, budget);
    let mut found = Found::default();
    let mut seen = HashSet::from([fingerprint(&first)]);
    let mut trail: Vec<(usize, Option<Act>)> = vec![(0, None)];
    let mut queue = VecDeque::from([(first, 0usize, 0usize)]);
    while let Some((world, id, depth)) = queue.pop_front() {
        found.depth = depth;
        for act in world.acts(false) {
            found.steps += 1;
            let mut next = world.clone();
            let stepped = next.step(act);
            if stepped.is_ok() && !seen.insert(fingerprint(&next)) {
                continue;
            }
            trail.push((id, Some(act)));
            if let Err(error) = stepped.and_then(|()| check(&next)) {
                let violation = Violation { error, trace: trace(&trail), world: show(&next) };
                return Found { worlds: seen.len(), violation: Some(violation), ..found };
            }
            queue.push_back((next, trail.len() - 1, depth + 1));
        }
        if seen.len() >= most {
            return Found { worlds: seen.len(), ..found };
        }
    }
    Found { worlds: seen.len(), exhausted: true, ..found }
}

fn trace(trail: &[(usize, Option<Act>)]) -> Vec<Act> {
    let mut acts = Vec::new();
    let mut at = trail.len() - 1;
    while let (before, Some(act)) = trail[at] {
        acts.push(act);
        at = before;
    }
    acts.reverse();
    acts
}

/// So many walks of so many steps, each with a seed of its own.
pub fn walk(rules: Rules, budget: Budget, seed: u64, walks: u64, length: usize) -> Found {
    let mut found = Found::default();
    for walk in 0..walks {
        let mut random = Random::new(seed.wrapping_add(walk));
        let mut world = World::new(rules, budget);
        let mut trace = Vec::new();
        for step in 0..length {
            let acts = world.acts(true);
            if acts.is_empty() {
                break;
            }
            let act = choose(&acts, &mut random);
            trace.push(act);
            found.steps += 1;
            let checked = world.step(act).and_then(|()| match step % 6 == 5 || step + 1 == length {
                true => check(&world),
                false => Ok(()),
            });
            if let Err(error) = checked {
                let error = format!("{error} (walk {walk}: CONCORDAT_SEED={})", seed.wrapping_add(walk));
                found.violation = Some(Violation { error, trace, world: show(&world) });
                return found;
            }
        }
        found.worlds += 1;
        note(&world, &mut found.seen);
    }
    found
}

/// Kinds of acts first, so that the rare ones are not drowned by dozens of networks.
fn choose(acts: &[Act], random: &mut Random) -> Act {
    let rare = [
        Act::Net(0, 0),
        Act::Move(0, 0),
        Act::Crash(0),
        Act::Lose(0),
        Act::Evict(0),
        Act::Release(0),
        Act::DeliverRegister(0),
    ]
    .map(|act| discriminant(&act));
    let mut kinds = Vec::new();
    for act in acts {
        let kind = discriminant(act);
        if !kinds.contains(&kind) {
            kinds.extend(std::iter::repeat_n(kind, if rare.contains(&kind) { 1 } else { 4 }));
        }
    }
    let kind = kinds[random.below(kinds.len())];
    let of_kind: Vec<_> = acts.iter().filter(|act| discriminant(*act) == kind).collect();
    *of_kind[random.below(of_kind.len())]
}

fn note(world: &World, seen: &mut BTreeMap<&'static str, u64>) {
    let commits = world.log.iter().filter(|item| matches!(item, It::Commit(_))).count();
    let adopted =
        world.log.iter().any(|item| matches!(item, It::Commit(index) if world.accepted >> index & 1 == 1));
    let stable = world.log.iter().any(|item| matches!(item, It::Stable(_)));
    let removed = world.ents.iter().any(|ent| matches!(ent.kind, Kind::Remove(_)));
    let happened = [
        ("side branches", world.side() != 0),
        ("late entries", world.late() != 0),
        ("several canonical commits", commits > 1),
        ("adopted branches", adopted),
        ("stable positions", stable),
        ("removals", removed),
        ("removals owed", world.owed() != 0),
        ("evictions", world.evicted != 0),
        ("gateways that let go", world.cluster.state().departures > u64::from(world.evicted.count_ones())),
        ("gateways that came back", world.gateways.iter().any(|g| matches!(g.seat, Seat::In(1..)))),
    ];
    for (name, happened) in happened {
        *seen.entry(name).or_default() += u64::from(happened);
    }
}

/// xorshift64*: small, and the same everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        (0..5).for_each(|_| {
            random.next();
        });
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        ((self.next() >> 20) % bound as u64) as usize
    }
}
