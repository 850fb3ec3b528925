//! A small world: one DeMLS group, three members and one that may be added, three gateways, and the cluster as one log.
//!
//! The cluster's rules, the gateways' branch trees, promises and modes, and their copies of the log are the shipping code. What the
//! world adds is the network, crashes and clients. Entries are numbered, and sets of them are bit masks, so that worlds are small
//! and comparable.

use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
    rc::Rc,
};

use bytes::Bytes;
use group_log::{
    ClientId, Content, Create, EntryId, GroupId, GroupKind, Policy, Submission,
    fork::{
        BranchEntry, BranchTree, Command, CommitFacts, GatewayId, LeafId, MemoryFork, Mode, ModeMachine,
        ModeTimes, Recorded,
    },
    hash::create_state_id,
};

use super::gateways::signals;

/// A set of entries, or of members.
pub type Mask = u32;
/// The member that is not there from the beginning.
pub const Z: usize = 3;
/// No state: not (or no longer) in the group.
pub const OUT: u8 = 255;
/// In simulations suspicion takes one tick, and an answer from the quorum is trusted at once.
pub const TIMES: ModeTimes = ModeTimes { suspect_ms: 1, steady_ms: 0 };

pub fn bit(mask: Mask, index: usize) -> bool {
    mask >> index & 1 == 1
}

pub fn bits(mask: Mask) -> impl Iterator<Item = usize> {
    (0..32).filter(move |index| bit(mask, *index))
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// A commit that changes no membership.
    Noop,
    /// A commit that removes these members.
    Remove(u8),
    /// A commit that adds Z.
    AddZ,
    /// An application message.
    App,
}

/// An entry that somebody made. Number 0 is the state of the create.
#[derive(Clone)]
pub struct Ent {
    pub kind: Kind,
    pub parent: u8,
    pub author: u8,
    pub id: EntryId,
    pub entry: Rc<BranchEntry>,
}

/// An item of the canonical log after the create, in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum It {
    Commit(u8),
    App(u8),
    Side(Mask),
    Late(Mask),
    /// Items that everybody has read.
    Stable(u8),
}

/// What a gateway knows about its registration.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Seat {
    /// The cluster does not count on it, as far as it knows: it does not fork.
    Out,
    /// Registered, with this number.
    In(u8),
    /// About to let go of the registration with this number: it does not fork, and first hears that it is gone.
    Leaving(u8),
}

#[derive(Clone)]
pub struct Gateway {
    /// 0 runs, 1 crashed, 2 lost with its disk.
    pub down: u8,
    pub machine: ModeMachine,
    /// Items of the log it has read; durably; and promised not to fork below.
    pub view: u8,
    pub durable: u8,
    pub promised: u8,
    pub tree: Rc<BranchTree>,
    pub tree_mask: Mask,
    pub seat: Seat,
    /// Departures that it has heard of.
    pub heard: u8,
}

impl Gateway {
    pub fn up(&self) -> bool {
        self.down == 0
    }

    pub fn forked(&self) -> bool {
        self.machine.mode() == Mode::Forked
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Client {
    /// Its gateway; 3 is nowhere.
    pub at: u8,
    /// The state it stands on.
    pub current: u8,
    /// States it keeps.
    pub held: Mask,
    /// Its own commits that it has merged states for.
    pub pending: Mask,
    /// Items of the log it has read.
    pub position: u8,
    /// Entries it has processed.
    pub read: Mask,
}

/// What may still happen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Budget {
    pub commits: u8,
    pub apps: u8,
    pub nets: u8,
    pub crashes: u8,
    pub losses: u8,
    pub evictions: u8,
    pub moves: u8,
    pub releases: u8,
}

/// Rules of clients and of gateways' habits that can be switched off, to see that the world notices.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Clients keep states by default.
    pub keep: bool,
    /// Clients never drop a pending commit because a branch said "superseded".
    pub keep_pending: bool,
    /// Clients delete only when they have followed the log up to `Stable`.
    pub in_order: bool,
    /// Clients upload what their gateway lacks.
    pub upload: bool,
    /// Only the author of an Add that lost adds again.
    pub author_adds: bool,
    /// A gateway acknowledges only with nothing unreported.
    pub report_before_ack: bool,
    /// What was acknowledged was durable before.
    pub durable_view: bool,
    /// A gateway accepts nothing below its promise.
    pub promise: bool,
    /// A gateway keeps losing branches.
    pub keep_losers: bool,
    /// Operators evict gateways that do not come back.
    pub evict: bool,
    /// A gateway lets go of a group only while it is ordered and holds no branch of it.
    pub release_empty: bool,
    /// A gateway that lets go of a group does not fork from before the cluster hears of it.
    pub leave_first: bool,
    /// What gateways send names the registration that it belongs to.
    pub numbers: bool,
    /// One gateway and one member lie.
    pub evil: bool,
}

impl Rules {
    pub const ALL: Rules = Rules {
        keep: true,
        keep_pending: true,
        in_order: true,
        upload: true,
        author_adds: true,
        report_before_ack: true,
        durable_view: true,
        promise: true,
        keep_losers: true,
        evict: true,
        release_empty: true,
        leave_first: true,
        numbers: true,
        evil: false,
    };
}

#[derive(Clone)]
pub struct World {
    pub rules: Rules,
    pub ents: Vec<Ent>,
    pub cluster: Rc<MemoryFork>,
    /// The log as a follower has it after so many items.
    pub views: Rc<Vec<Rc<MemoryFork>>>,
    pub log: Vec<It>,
    pub gateways: [Gateway; 3],
    pub clients: [Client; 4],
    /// Gateways that reach the quorum, and links between gateways.
    pub quorum: u8,
    pub links: u8,
    /// On the way to the cluster: submissions, reports, acknowledgements (items) of a registration.
    pub submitted: Mask,
    pub reporting: [Mask; 3],
    pub acking: [u8; 3],
    pub acking_as: [u8; 3],
    /// The last registration (items, departures) and the last release (of this registration) that were sent. They may arrive again at
    /// any time.
    pub registering: [Option<(u8, u8)>; 3],
    pub releasing: [Option<u8>; 3],
    /// Entries that were accepted, on a branch or by the cluster.
    pub accepted: Mask,
    pub evicted: u8,
    pub budget: Budget,
}

pub type Checked = Result<(), String>;

pub fn group_id() -> GroupId {
    GroupId::new(&b"group"[..]).unwrap()
}

pub fn gateway_id(gateway: usize) -> GatewayId {
    GatewayId([gateway as u8 + 1; 16])
}

pub fn member_name(member: usize) -> ClientId {
    ClientId::new(vec![b'a' + member as u8]).unwrap()
}

impl World {
    /// Three members at three gateways, all connected.
    pub fn new(rules: Rules, budget: Budget) -> World {
        let info = Bytes::from_static(b"info");
        let root = create_state_id(&group_id(), 0, &info);
        let create = Content::Create(Create {
            kind: GroupKind::Demls,
            policy: Policy { past_epochs: 64, ..Policy::default() },
            group_info: info,
        });
        let facts = CommitFacts {
            adds: (0..3).map(|member| LeafId::new(&root, member)).collect(),
            ..Default::default()
        };
        let entry = BranchEntry {
            parent: root,
            author: member_name(0),
            content: create.clone(),
            facts: facts.clone(),
        };
        let first =
            Ent { kind: Kind::Noop, parent: OUT, author: OUT, id: root.into(), entry: Rc::new(entry) };

        let mut machine = ModeMachine::new(GroupKind::Demls, 0);
        machine.observe(&signals(true, false), &TIMES);
        let gateway = Gateway {
            down: 0,
            machine,
            view: 0,
            durable: 0,
            promised: 0,
            tree: Default::default(),
            tree_mask: 0,
            seat: Seat::In(0),
            heard: 0,
        };
        let client = |at| Client { at, current: 0, held: 1, pending: 0, position: 0, read: 0 };
        let outside = Client { current: OUT, held: 0, ..client(0) };
        let mut world = World {
            rules,
            ents: vec![first],
            cluster: Default::default(),
            views: Default::default(),
            log: Vec::new(),
            gateways: [gateway.clone(), gateway.clone(), gateway],
            clients: [client(0), client(1), client(2), outside],
            quorum: 7,
            links: 7,
            submitted: 0,
            reporting: [0; 3],
            acking: [0; 3],
            acking_as: [0; 3],
            registering: [Some((0, 0)); 3],
            releasing: [None; 3],
            accepted: 0,
            evicted: 0,
            budget,
        };
        let submission = Submission {
            group_id: group_id(),
            author: member_name(0),
            epoch: 0,
            parent_state_id: None,
            content: create,
        };
        world.command(Command::Submit { submission, facts }).unwrap();
        for gateway in 0..3 {
            let register = Command::Register { gateway: gateway_id(gateway), position: 1, departures: 0 };
            world.command(register).unwrap();
        }
        world
    }
}

impl Hash for World {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        for Ent { kind, parent, author, .. } in &self.ents {
            (kind, parent, author).hash(hasher);
        }
        self.log.hash(hasher);
        let state = self.cluster.state();
        (self.owed(), state.collecting.is_some(), state.stable, state.departures).hash(hasher);
        for gateway in 0..3 {
            (self.registration(gateway), self.acked(gateway), self.reported_by(gateway)).hash(hasher);
            let Gateway { down, view, durable, promised, tree_mask, machine, seat, heard, .. } =
                &self.gateways[gateway];
            (down, view, durable, promised, tree_mask, machine.mode(), seat, heard).hash(hasher);
        }
        if self.collecting() {
            for ent in &self.ents[1..] {
                let candidate =
                    group_log::fork::ForkView::candidate(&*self.cluster, &ent.id).expect("in memory");
                candidate.map(|candidate| candidate.ordinal).hash(hasher);
            }
        }
        (self.clients, self.quorum, self.links, self.submitted, self.reporting, self.acking).hash(hasher);
        (self.acking_as, self.registering, self.releasing).hash(hasher);
        (self.accepted, self.evicted, self.budget).hash(hasher);
    }
}

/// For messages: what the log and every actor look like.
pub fn show(world: &World) -> String {
    let ents: Vec<_> =
        world.ents.iter().enumerate().skip(1).map(|(i, e)| (i, e.kind, e.parent, e.author)).collect();
    let verdicts: BTreeMap<usize, Option<Recorded>> =
        (1..world.ents.len()).map(|index| (index, world.cluster.verdict(&world.ents[index].id))).collect();
    let gateways: Vec<_> = (0..3)
        .map(|g| {
            let Gateway { down, view, durable, promised, tree_mask, machine, seat, .. } = &world.gateways[g];
            (down, machine.mode(), view, durable, promised, format!("{tree_mask:b}"), seat)
        })
        .collect();
    format!(
        "entries (number, kind, parent, author) {ents:?}\nlog {:?}\nverdicts {verdicts:?}\ngateways {gateways:?}\nclients {:?}",
        world.log, world.clients
    )
}
