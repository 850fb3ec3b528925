//! Gateways that are hours apart and meet briefly, in simulated time: what arrives, what is dropped, and what readers are told.

use std::sync::OnceLock;

use openmls::prelude::{BasicCredential, Ciphersuite, CredentialWithKey, MlsGroup};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use service_kit::rng::Randomness;
use tempfile::TempDir;

use super::*;
use crate::mesh::{
    limits::{DROPPED_PATIENCE, ITEM_OVERHEAD_BYTES, PAGE_ITEMS},
    store::Bounds,
};

const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
const WIDE: Bounds = Bounds { stream_bytes: 1 << 30, total_bytes: 1 << 30 };
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const OWNERS: [&str; 2] = ["ann", "bob"];
const ITEMS: usize = 400;
/// A meeting that nothing ends before everything is told.
const LONG: usize = usize::MAX;

fn client(name: &'static str) -> ClientId {
    ClientId::new(name).unwrap()
}

fn setup() -> Setup {
    Setup::new([3; 16], OWNERS.map(client), [u16::from(SUITE)], 32).unwrap()
}

/// Real messages of both owners, made once.
fn items(owner: &'static str) -> &'static [Item] {
    static MADE: OnceLock<[Vec<Item>; 2]> = OnceLock::new();
    let made = MADE.get_or_init(|| OWNERS.map(make));
    &made[OWNERS.iter().position(|name| *name == owner).unwrap()]
}

fn make(owner: &'static str) -> Vec<Item> {
    let provider = OpenMlsRustCrypto::default();
    let signer = SignatureKeyPair::new(SUITE.signature_algorithm()).unwrap();
    let credential = CredentialWithKey {
        credential: BasicCredential::new(owner.into()).into(),
        signature_key: signer.public().into(),
    };
    let id = setup().id().send_group(&client(owner));
    let mut group = MlsGroup::builder()
        .with_group_id(openmls::prelude::GroupId::from_slice(id.as_bytes()))
        .ciphersuite(SUITE)
        .build(&provider, &signer, credential)
        .unwrap();
    let message = |seq: u64| Item {
        owner: client(owner),
        seq,
        message: group.create_message(&provider, &signer, &[0; 200]).unwrap().to_bytes().unwrap().into(),
        welcome: Bytes::new(),
    };
    (1..=ITEMS as u64).map(message).collect()
}

/// What so many items take up.
fn room_for(count: u64) -> u64 {
    count * (items("ann")[0].bytes() as u64 + ITEM_OVERHEAD_BYTES)
}

struct Gateway {
    dir: TempDir,
    bounds: Bounds,
    store: Arc<MeshStore>,
    /// By the gateway that is pulled from.
    pullers: HashMap<usize, Puller>,
}

impl Gateway {
    fn open(dir: &TempDir, bounds: Bounds) -> Arc<MeshStore> {
        MeshStore::open(dir.path(), bounds, Randomness::from_os().bytes()).unwrap()
    }

    fn new(bounds: Bounds) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Self::open(&dir, bounds);
        Self { dir, bounds, store, pullers: HashMap::new() }
    }

    /// Only what is on disk is left.
    fn restart(&mut self) {
        self.pullers.clear();
        let fresh = tempfile::tempdir().unwrap();
        // The file is opened by one at a time.
        self.store = Self::open(&fresh, self.bounds);
        self.store = Self::open(&self.dir, self.bounds);
    }

    fn stream(&self, owner: &'static str) -> Stream {
        self.store.stream(&setup().id(), &client(owner)).unwrap()
    }

    fn submit(&self, owner: &'static str, seq: usize) {
        self.store.create(&setup()).unwrap();
        let stored = self.store.submit(setup().id(), items(owner)[seq - 1].clone()).unwrap();
        assert!(matches!(stored, Stored::Kept { .. }), "{stored:?}");
    }

    /// What must hold at any time: every stream is whole from its first item on, and no bound is passed.
    fn check(&self) {
        assert!(self.store.bytes().unwrap() <= self.bounds.total_bytes);
        for owner in OWNERS {
            let stream = self.stream(owner);
            let kept =
                self.store.read(&setup().id(), &client(owner), stream.first, stream.last, ITEMS).unwrap();
            assert!(kept.iter().eq(&items(owner)[stream.first as usize - 1..stream.last as usize]));
            let bytes: u64 = kept.iter().map(|item| item.bytes() as u64 + ITEM_OVERHEAD_BYTES).sum();
            assert!(bytes <= self.bounds.stream_bytes || kept.len() == 1);
        }
    }
}

/// What a reader at this gateway is told after a cursor: items, and up to where they are gone.
fn read(gateway: &Gateway, owner: &'static str, after: u64) -> (Option<u64>, Vec<u64>) {
    let stream = gateway.stream(owner);
    let gone = (after + 1 < stream.first).then(|| stream.first - 1);
    let from = after.max(gone.unwrap_or_default()) + 1;
    let kept = gateway.store.read(&setup().id(), &client(owner), from, stream.last, ITEMS).unwrap();
    (gone, kept.iter().map(|item| item.seq).collect())
}

struct World {
    gateways: Vec<Gateway>,
    now: Duration,
}

impl World {
    fn new(bounds: impl IntoIterator<Item = Bounds>) -> Self {
        Self { gateways: bounds.into_iter().map(Gateway::new).collect(), now: Duration::ZERO }
    }

    /// Both pull from one another until so many items were handed out each way, or everything was told.
    fn meet(&mut self, a: usize, b: usize, most: usize) {
        self.pull(a, b, most);
        self.pull(b, a, most);
        self.gateways.iter().for_each(Gateway::check);
    }

    /// What the link of gateway `to` does while it is connected to `from`.
    fn pull(&mut self, to: usize, from: usize, most: usize) {
        let (now, other) = (self.now, Arc::clone(&self.gateways[from].store));
        let store = Arc::clone(&self.gateways[to].store);
        let puller =
            self.gateways[to].pullers.entry(from).or_insert_with(|| Puller::new(store, DROPPED_PATIENCE));
        let mut left = most;
        let due = puller.due().is_some_and(|due| due <= now);
        if due {
            let wanted = puller.overdue(now).unwrap();
            if !fetch(puller, &other, &wanted, &mut left) {
                return;
            }
        }
        loop {
            let (known, after) = puller.known();
            let after = if known == other.storage_id().as_slice() { after } else { 0 };
            if after == *other.marks().borrow() {
                return;
            }
            let changes = other.changes(after, 3).unwrap();
            let told = Told {
                storage_id: Bytes::copy_from_slice(&other.storage_id()),
                mark: changes.mark,
                items: other
                    .recent(after, changes.mark)
                    .into_iter()
                    .map(|(id, item)| (id, item.into()))
                    .collect(),
                setups: changes.setups,
                streams: changes.streams.into_iter().map(|s| (s.dgroup, s.owner, s.stream)).collect(),
            };
            let wanted = puller.news(&told, now).unwrap();
            if !fetch(puller, &other, &wanted, &mut left) {
                return;
            }
            puller.taken_in(told);
        }
    }
}

/// Returns whether everything came before the link broke.
fn fetch(puller: &mut Puller, other: &MeshStore, wanted: &[Wanted], left: &mut usize) -> bool {
    for Wanted { dgroup, owner, from, to } in wanted {
        let mut next = *from;
        while next <= *to {
            let page = other.read(dgroup, owner, next, *to, PAGE_ITEMS.min(*left)).unwrap();
            let Some(last) = page.last() else { break };
            next = last.seq + 1;
            *left -= page.len();
            let checked: Vec<_> =
                page.into_iter().map(|item| puller.check(*dgroup, item.into()).unwrap()).collect();
            puller.keep(&checked).unwrap();
            if *left == 0 {
                return false;
            }
        }
    }
    true
}

fn randomness(default: u64) -> Randomness {
    let seed = std::env::var("CONCORDAT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(default);
    println!("CONCORDAT_SEED={seed}");
    Randomness::from_seed(seed)
}

#[test]
fn hours_of_items_on_both_sides_cross_a_third_gateway_in_brief_meetings_and_through_restarts() {
    let rng = randomness(41);
    for _ in 0..3 {
        // Left and right never meet; the third goes to and fro between them.
        let mut world = World::new([WIDE; 3]);
        let (left, right, courier) = (0, 1, 2);
        let mut said = [0, 0];
        while world.now < 12 * HOUR {
            world.now += MINUTE;
            for (side, owner) in [(left, 0), (right, 1)] {
                if said[owner] < ITEMS && rng.below(3) == 0 {
                    said[owner] += 1;
                    world.gateways[side].submit(OWNERS[owner], said[owner]);
                }
            }
            if rng.below(40) == 0 {
                let side = [left, right][rng.below(2) as usize];
                // Some break in the middle of what they bring.
                world.meet(side, courier, 1 + rng.below(50) as usize);
            }
            if rng.below(120) == 0 {
                world.gateways[rng.below(3) as usize].restart();
            }
        }
        for side in [left, right, left, right] {
            world.meet(side, courier, LONG);
        }
        for (owner, said) in OWNERS.into_iter().zip(said) {
            assert!(said > 100);
            let all: Vec<u64> = (1..=said as u64).collect();
            for gateway in &world.gateways {
                assert_eq!(read(gateway, owner, 0), (None, all.clone()), "everything, once and in order");
            }
        }
    }
}

#[test]
fn a_courier_with_little_room_keeps_the_newest_and_whoever_reads_behind_it_is_told_what_is_gone() {
    let bounds = Bounds { stream_bytes: room_for(20), total_bytes: room_for(30) };
    let mut world = World::new([WIDE, WIDE, bounds]);
    for seq in 1..=200 {
        world.now += MINUTE;
        world.gateways[0].submit("ann", seq);
        if seq % 40 == 0 {
            world.meet(0, 2, LONG);
            assert_eq!(world.gateways[2].stream("ann"), Stream { first: seq as u64 - 19, last: seq as u64 });
        }
    }
    // The other stream is the smaller one: it is the largest that gives.
    for seq in 1..=15 {
        world.gateways[1].submit("bob", seq);
    }
    world.meet(1, 2, LONG);
    assert_eq!(read(&world.gateways[2], "bob", 0), (None, (1..=15).collect()));
    let Stream { first, last: 200 } = world.gateways[2].stream("ann") else { panic!("the newest stays") };
    assert!((185..=187).contains(&first), "{first}");
    // Whoever has nothing of a stream begins where that is possible, and says so.
    let (gone, rest) = read(&world.gateways[1], "ann", 0);
    assert_eq!((gone, rest.first(), rest.last()), (Some(180), Some(&181), Some(&200)));
    assert_eq!(
        read(&world.gateways[1], "ann", 190),
        (None, (191..=200).collect()),
        "who has read so far misses nothing"
    );
    // Where it was submitted nothing is missing.
    assert_eq!(read(&world.gateways[0], "ann", 0).0, None);
}

/// Right has the beginning, and the courier has dropped what comes next.
fn behind() -> World {
    let bounds = Bounds { stream_bytes: room_for(20), ..WIDE };
    let mut world = World::new([WIDE, WIDE, bounds]);
    (1..=50).for_each(|seq| world.gateways[0].submit("ann", seq));
    world.meet(0, 1, LONG);
    (51..=200).for_each(|seq| world.gateways[0].submit("ann", seq));
    world.meet(0, 2, LONG);
    world.now += HOUR;
    world.meet(1, 2, LONG);
    assert_eq!(world.gateways[1].stream("ann"), Stream { first: 1, last: 50 }, "a third may have them");
    world
}

#[test]
fn what_one_has_dropped_is_waited_for_an_hour_and_a_third_that_comes_in_time_brings_it() {
    let mut world = behind();
    world.now += DROPPED_PATIENCE - MINUTE;
    world.meet(1, 2, LONG);
    assert_eq!(world.gateways[1].stream("ann").last, 50);
    world.meet(0, 1, LONG);
    world.now += 10 * HOUR;
    world.meet(1, 2, LONG);
    assert_eq!(read(&world.gateways[1], "ann", 0), (None, (1..=200).collect()), "nothing is missing");
}

#[test]
fn what_nobody_brings_within_the_hour_is_given_up_and_said_and_a_restart_begins_the_hour_anew() {
    let mut world = behind();
    world.now += DROPPED_PATIENCE / 2;
    world.gateways[1].restart();
    world.meet(1, 2, LONG);
    world.now += DROPPED_PATIENCE - MINUTE;
    world.meet(1, 2, LONG);
    assert_eq!(world.gateways[1].stream("ann").last, 50);
    world.now += MINUTE;
    // Nothing has changed at the courier: the clock alone is the reason.
    world.meet(1, 2, LONG);
    assert_eq!(read(&world.gateways[1], "ann", 50), (Some(180), (181..=200).collect()));
    // It stays like that, also where the items would be: the stream has gone on without them.
    world.gateways[1].restart();
    world.meet(0, 1, LONG);
    assert_eq!(world.gateways[1].stream("ann").last, 200);
}

#[test]
fn whatever_the_bounds_and_meetings_streams_stay_whole_and_every_gap_is_said() {
    let rng = randomness(42);
    for _ in 0..4 {
        let room = |rng: &Randomness| Bounds {
            stream_bytes: room_for(3 + rng.below(60)),
            total_bytes: room_for(70 + rng.below(60)),
        };
        let mut world = World::new([WIDE, room(&rng), room(&rng), room(&rng)]);
        let mut said = [0, 0];
        // Where a reader of each stream is at each gateway, and what it was told.
        let mut cursors = [[0_u64; 2]; 4];
        while world.now < 24 * HOUR {
            world.now += 5 * MINUTE;
            for (owner, said) in said.iter_mut().enumerate() {
                if *said < ITEMS && rng.below(2) == 0 {
                    *said += 1;
                    world.gateways[0].submit(OWNERS[owner], *said);
                }
            }
            if rng.below(3) == 0 {
                let (a, b) = (rng.below(4) as usize, rng.below(4) as usize);
                if a != b {
                    world.meet(a, b, 1 + rng.below(80) as usize);
                }
            }
            if rng.below(50) == 0 {
                world.gateways[rng.below(4) as usize].restart();
            }
            for (number, gateway) in world.gateways.iter().enumerate().filter(|_| rng.below(9) == 0) {
                for (owner, name) in OWNERS.into_iter().enumerate() {
                    let cursor = &mut cursors[number][owner];
                    let (gone, came) = read(gateway, name, *cursor);
                    let begin = gone.unwrap_or(*cursor);
                    assert!(begin >= *cursor);
                    let whole: Vec<u64> = (begin + 1..=begin + came.len() as u64).collect();
                    assert_eq!(came, whole, "what is not there is said, and nothing else is missing");
                    *cursor = begin + came.len() as u64;
                }
            }
        }
        world.now += 2 * HOUR;
        for _ in 0..2 {
            (1..4).for_each(|number| world.meet(0, number, LONG));
            world.now += 2 * HOUR;
        }
        for (owner, said) in OWNERS.into_iter().zip(said) {
            for gateway in &world.gateways {
                assert_eq!(gateway.stream(owner).last, said as u64, "the newest is everywhere");
            }
        }
    }
}
