//! A split network in memory, on the shipping fork rules: one cluster's log, several gateways with their trees, views and modes, and
//! clients with real MLS at each of them. Time is a counter; nothing happens by itself.

mod check;
mod facts;
mod read;
mod serve;
mod sites;
mod transport;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use concordat_proto::log::v1 as pb;
use group_log::{ClientId, EntryId, GroupId, StateId, fork::MemoryFork};
use mls_client::Randomness;
use tokio::sync::Notify;

pub(crate) use self::transport::NetTransport;
use self::{facts::Facts, sites::Site};

/// The network and everything in it. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Net {
    world: Arc<Mutex<World>>,
    pub(crate) changed: Arc<Notify>,
    pub(crate) rng: Randomness,
}

pub(crate) struct World {
    pub(super) rng: Randomness,
    pub(super) now_ms: u64,
    /// Which sites reach one another: those with the same number.
    pub(super) component: Vec<u8>,
    /// The component that reaches the quorum.
    pub(super) quorum: Option<u8>,
    /// How many of a hundred relayed messages are delayed, and how many come twice.
    pub(super) disorder: u64,
    pub(super) lost: BTreeSet<usize>,
    pub(super) groups: BTreeMap<GroupId, Group>,
    pub(super) key_packages: HashMap<ClientId, Vec<pb::KeyPackage>>,
    pub(super) claims: HashMap<(ClientId, Bytes), pb::KeyPackage>,
    pub(super) inboxes: HashMap<ClientId, Vec<pb::PendingWelcome>>,
    pub(super) positions: u64,
    /// Gateways claim that this client is owed a removal.
    pub(super) claimed: Option<ClientId>,
    /// Gateways do not follow what they order: an answer is lost before anybody hears of it.
    pub(super) deaf: bool,
    /// Welcomes are handed out on branches, too.
    pub(super) welcomes_on_branches: bool,
}

/// One group: what the cluster holds, and each site's part.
pub(crate) struct Group {
    pub(super) cluster: MemoryFork,
    pub(super) facts: Facts,
    pub(super) sites: Vec<Site>,
    /// Everything that was ever accepted, on a branch or by the quorum: the state it was made in, and whether it is a commit.
    pub(super) accepted: BTreeMap<EntryId, (StateId, bool)>,
    /// Those on branches whose authors were told so.
    pub(super) answered: BTreeSet<EntryId>,
}

impl Net {
    /// As many sites, all connected and with a quorum.
    pub(crate) fn new(sites: usize, rng: Randomness) -> Net {
        let world = World {
            rng: rng.fork(),
            now_ms: 0,
            component: vec![0; sites],
            quorum: Some(0),
            disorder: 0,
            lost: BTreeSet::new(),
            groups: BTreeMap::new(),
            key_packages: HashMap::new(),
            claims: HashMap::new(),
            inboxes: HashMap::new(),
            positions: 0,
            claimed: None,
            deaf: false,
            welcomes_on_branches: false,
        };
        Net { world: Arc::new(Mutex::new(world)), changed: Arc::default(), rng }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Changes the world, and lets subscribers know.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_waiters();
        result
    }

    /// Welcomes of branch commits are delivered before the log has them.
    pub(crate) fn welcome_on_branches(&self) {
        self.change(|world| world.welcomes_on_branches = true);
    }

    /// Gateways lie from now on: this client is owed a removal, they say.
    pub(crate) fn claim_owed(&self, client: &ClientId) {
        self.change(|world| world.claimed = Some(client.clone()));
    }

    /// From now on (or no longer) the log goes on without any gateway hearing of it.
    pub(crate) fn deafen(&self, deaf: bool) {
        self.change(|world| world.deaf = deaf);
    }

    /// Relayed messages are delayed and doubled from now on, so many of a hundred.
    pub(crate) fn disorder(&self, percent: u64) {
        self.change(|world| world.disorder = percent);
    }

    /// Cuts the network: sites with the same number reach one another, and the component `quorum`, if any, reaches the quorum. Time
    /// passes until every gateway has noticed.
    pub(crate) fn split(&self, component: &[u8], quorum: Option<u8>) {
        self.change(|world| {
            world.component = component.to_vec();
            world.quorum = quorum;
            for _ in 0..4 {
                world.tick(1000);
            }
        });
    }

    /// Everything is connected again, but nothing was said yet.
    pub(crate) fn connect(&self) {
        self.change(|world| {
            world.component.iter_mut().for_each(|site| *site = 0);
            world.quorum = Some(0);
        });
    }

    /// Time passes: relays, views, modes, reports, acknowledgements.
    pub(crate) fn pass(&self, rounds: usize) {
        self.change(|world| (0..rounds).for_each(|_| world.tick(250)));
    }

    /// Everything is connected again, and gateways do all they have to.
    pub(crate) fn heal(&self) {
        self.connect();
        self.change(|world| world.disorder = 0);
        self.pass(24);
    }

    /// A gateway is lost with its disk.
    pub(crate) fn lose(&self, site: usize) {
        self.change(|world| {
            world.lost.insert(site);
        });
    }

    /// A lost gateway is not waited for any longer.
    pub(crate) fn evict_lost(&self) {
        self.change(World::evict_lost);
    }

    pub(crate) fn is_lost(&self, site: usize) -> bool {
        self.lock().lost.contains(&site)
    }

    pub(crate) fn is_forked(&self, site: usize, group: &GroupId) -> bool {
        let world = self.lock();
        world.groups.get(group).is_some_and(|g| g.sites[site].mode() == group_log::fork::Mode::Forked)
    }
}
