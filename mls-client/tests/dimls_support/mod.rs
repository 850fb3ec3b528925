//! Members of a DGroup in simulated time, over links that a seed makes bad.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};

use group_log::ClientId;
use mls_client::{
    DEFAULT_CIPHERSUITE, Identity, Randomness, Store,
    dimls::{Event, Item, MemoryRecords, Policy, Session, Setup},
};

pub const MINUTE: u64 = 60_000;
pub const HOUR: u64 = 60 * MINUTE;

pub type Member = Session<MemoryRecords>;

pub fn client(number: usize) -> ClientId {
    ClientId::new(format!("member-{number:03}")).unwrap()
}

pub fn identity(number: usize) -> Identity {
    let mut store = Store::in_memory().unwrap();
    Identity::create(&mut store, client(number), DEFAULT_CIPHERSUITE).unwrap();
    Identity::load(&store).unwrap().unwrap()
}

/// The same identity for as long as the store lives.
pub struct Stores(Vec<Store>);

impl Stores {
    pub fn new(members: usize) -> Self {
        let make = |number| {
            let mut store = Store::in_memory().unwrap();
            Identity::create(&mut store, client(number), DEFAULT_CIPHERSUITE).unwrap();
            store
        };
        Stores((0..members).map(make).collect())
    }

    pub fn identity(&self, number: usize) -> Identity {
        Identity::load(&self.0[number]).unwrap().unwrap()
    }
}

pub fn setup(members: usize) -> Setup {
    Setup::new([1; 16], (0..members).map(client), [u16::from(DEFAULT_CIPHERSUITE)], 32).unwrap()
}

pub fn policy() -> Policy {
    Policy { acknowledge_after_ms: MINUTE, replace_every_ms: 6 * HOUR, offline_after_ms: 1000 * HOUR }
}

/// All members of one DGroup, and everything that was ever sent.
pub struct World {
    pub members: Vec<Member>,
    pub stores: Stores,
    pub sent: BTreeMap<(ClientId, u64), Item>,
    pub events: Vec<Vec<Event>>,
    pub now: u64,
}

impl World {
    pub fn new(size: usize, policy: Policy) -> World {
        let (setup, stores) = (setup(size), Stores::new(size));
        let begin = |number| {
            Session::create(MemoryRecords::default(), stores.identity(number), &setup, policy, 0).unwrap()
        };
        let members = (0..size).map(begin).collect();
        World { members, stores, sent: BTreeMap::new(), events: vec![Vec::new(); size], now: 0 }
    }

    /// A DGroup in which everybody has added everybody.
    pub fn ready(size: usize, policy: Policy) -> World {
        let mut world = World::new(size, policy);
        world.settle();
        for member in &world.members {
            assert!(member.view().peers.iter().all(|peer| peer.in_own_group && peer.entered.is_some()));
        }
        world
    }

    /// Takes what everybody has to send.
    pub fn collect(&mut self) -> Vec<Item> {
        let mut items = Vec::new();
        for member in &mut self.members {
            let new: Vec<Item> = member.outbox().cloned().collect();
            if let Some(last) = new.last() {
                member.confirmed(last.seq).unwrap();
            }
            items.extend(new);
        }
        for item in &items {
            self.sent.insert((item.owner.clone(), item.seq), item.clone());
        }
        items
    }

    pub fn give(&mut self, to: usize, item: &Item) {
        let told = self.members[to].receive(item.clone(), self.now).unwrap();
        self.events[to].extend(told);
    }

    pub fn tick(&mut self, who: usize) {
        let told = self.members[who].tick(self.now).unwrap();
        self.events[who].extend(told);
    }

    /// Delivers everything to everybody, and lets all do what their policies ask for, until nothing is left to do now.
    pub fn settle(&mut self) {
        self.settle_among(&(0..self.members.len()).collect::<Vec<_>>());
    }

    /// The same for some of them only.
    pub fn settle_among(&mut self, who: &[usize]) {
        loop {
            who.iter().for_each(|number| self.tick(*number));
            self.collect();
            let mut moved = false;
            for number in who {
                moved |= self.catch_up(*number);
            }
            if !moved && self.members.iter().all(|member| member.outbox().next().is_none()) {
                return;
            }
        }
    }

    /// Brings one member everything that it has not taken in. Returns whether anything was new.
    pub fn catch_up(&mut self, number: usize) -> bool {
        let mut queue: VecDeque<Item> = VecDeque::new();
        for (owner, seq) in self.members[number].cursor() {
            queue.extend(
                self.sent.range((owner.clone(), seq + 1)..=(owner, u64::MAX)).map(|(_, i)| i.clone()),
            );
        }
        let before = self.members[number].cursor();
        queue.iter().for_each(|item| self.give(number, item));
        self.members[number].cursor() != before
    }

    /// Lets time pass in steps of a minute, with everything delivered.
    pub fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.now = (self.now + MINUTE).min(end);
            self.settle();
        }
    }

    /// What a member has read, by sender and number.
    pub fn read(&self, number: usize) -> Vec<(ClientId, u64, Vec<u8>)> {
        let messages = self.members[number].messages(0, usize::MAX).unwrap();
        messages.into_iter().map(|m| (m.sender, m.seq, m.body)).collect()
    }

    /// Whether everybody among `who` has taken in everybody's latest update.
    pub fn all_taken_in(&self, who: &[usize]) -> bool {
        let pairs =
            who.iter().flat_map(|by| who.iter().map(move |of| (*by, *of))).filter(|(by, of)| by != of);
        pairs.into_iter().all(|(by, of)| {
            let update = self.members[of].own_update();
            self.members[by].taken(&client(by), &client(of)).unwrap_or(0) >= update
        })
    }
}

/// The seed of a test: from CONCORDAT_SEED, or the one given. Printed, so that a failure can be repeated.
pub fn randomness(default: u64) -> Randomness {
    let seed = std::env::var("CONCORDAT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(default);
    println!("CONCORDAT_SEED={seed}");
    Randomness::from_seed(seed)
}
