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
    ClientId, Commit, Content, Create, EntryId, GroupId, GroupKind, Policy, StateId, Submission,
    fork::{
        Answer, BranchEntry, BranchTree, Command, CommitFacts, GatewayId, Item, LeafId, Mark, MemoryFork,
        Mode, ModeMachine, ModeTimes, Recorded, Report, Signals,
    },
    hash::create_state_id,
};

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
        evil: false,
    };
}

#[derive(Clone)]
pub struct World {
    pub rules: Rules,
    pub ents: Vec<Ent>,
    pub cluster: Rc<MemoryFork>,
    /// The log as a follower has it after so many items.
    views: Rc<Vec<Rc<MemoryFork>>>,
    pub log: Vec<It>,
    pub gateways: [Gateway; 3],
    pub clients: [Client; 4],
    /// Gateways that reach the quorum, and links between gateways.
    pub quorum: u8,
    pub links: u8,
    /// On the way to the cluster: submissions, reports, acknowledgements (items).
    pub submitted: Mask,
    pub reporting: [Mask; 3],
    pub acking: [u8; 3],
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

fn signals(quorum: bool, unrecorded: bool) -> Signals {
    Signals { now_ms: 0, quorum, outcome_unknown: false, view_covers_promise: true, unrecorded }
}

impl World {
    /// Three members at three gateways, all connected.
    pub fn new(rules: Rules, budget: Budget) -> World {
        let info = Bytes::from_static(b"info");
        let root = create_state_id(&group_id(), 0, &info);
        let create = Content::Create(Create {
            kind: GroupKind::Demls,
            policy: Policy { past_epochs: 64 },
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
            world.command(Command::Register { gateway: gateway_id(gateway), position: 1 }).unwrap();
        }
        world
    }

    // ---- entries

    pub fn state(&self, index: u8) -> StateId {
        self.ents[index as usize].id.as_state()
    }

    pub fn is_commit(&self, index: usize) -> bool {
        self.ents[index].kind != Kind::App
    }

    pub fn parent(&self, index: usize) -> u8 {
        self.ents[index].parent
    }

    /// Members of a state.
    pub fn members(&self, state: u8) -> u8 {
        if state == 0 {
            return 7;
        }
        let Ent { kind, parent, .. } = self.ents[state as usize];
        match kind {
            Kind::Remove(who) => self.members(parent) & !who,
            Kind::AddZ => self.members(parent) | 8,
            Kind::Noop | Kind::App => self.members(parent),
        }
    }

    pub fn is_ancestor(&self, ancestor: u8, mut state: u8) -> bool {
        loop {
            if state == ancestor {
                return true;
            }
            if state == 0 || state == OUT {
                return false;
            }
            state = self.parent(state as usize);
        }
    }

    fn epoch(&self, state: u8) -> u64 {
        if state == 0 { 0 } else { 1 + self.epoch(self.parent(state as usize)) }
    }

    /// The leaf of a member in a state where it is one.
    fn leaf(&self, member: usize, mut state: u8) -> Option<LeafId> {
        if member < Z {
            return Some(LeafId::new(&self.state(0), member as u32));
        }
        while state != 0 && state != OUT {
            if self.ents[state as usize].kind == Kind::AddZ {
                return Some(LeafId::new(&self.state(state), Z as u32));
            }
            state = self.parent(state as usize);
        }
        None
    }

    /// The members behind leaves.
    pub fn owed(&self) -> u8 {
        let owed = &self.cluster.state().owed;
        (0..3)
            .filter(|member| owed.contains(&LeafId::new(&self.state(0), *member)))
            .map(|member| 1 << member)
            .sum()
    }

    /// A new entry by a member in its current state.
    pub fn make(&mut self, member: usize, kind: Kind) -> usize {
        let index = self.ents.len();
        let parent = self.clients[member].current;
        let message = Bytes::from(format!("{index} {kind:?} by {member}"));
        let content = match kind {
            Kind::App => Content::Application { message },
            _ => Content::Commit(Commit {
                message,
                welcome: Bytes::new(),
                group_info: Bytes::new(),
                recipients: Vec::new(),
            }),
        };
        let mut entry = BranchEntry {
            parent: self.state(parent),
            author: member_name(member),
            content,
            facts: CommitFacts::default(),
        };
        let id = entry.id();
        if kind != Kind::App {
            let removes = match kind {
                Kind::Remove(who) => bits(who.into()).filter_map(|m| self.leaf(m, parent)).collect(),
                _ => Vec::new(),
            };
            let adds = match kind {
                Kind::AddZ => vec![LeafId::new(&id.as_state(), Z as u32)],
                _ => Vec::new(),
            };
            entry.facts = CommitFacts { author: self.leaf(member, parent), removes, adds };
        }
        self.ents.push(Ent { kind, parent, author: member as u8, id, entry: Rc::new(entry) });
        index
    }

    fn index_of(&self, id: &EntryId) -> usize {
        self.ents.iter().position(|ent| ent.id == *id).expect("the log holds only what was made")
    }

    fn mask_of<'i>(&self, ids: impl IntoIterator<Item = &'i EntryId>) -> Mask {
        ids.into_iter().map(|id| 1 << self.index_of(id)).sum()
    }

    // ---- the log

    pub fn head(&self) -> u8 {
        self.head_at(self.log.len())
    }

    /// The head after so many items.
    pub fn head_at(&self, items: usize) -> u8 {
        let commit = |item: &It| if let It::Commit(index) = item { Some(*index) } else { None };
        self.log[..items].iter().rev().find_map(commit).unwrap_or(0)
    }

    /// Entries that the first items record.
    pub fn recorded_at(&self, items: usize) -> Mask {
        self.log[..items].iter().fold(0, |mask, item| match item {
            It::Commit(index) | It::App(index) => mask | 1 << index,
            It::Side(ids) | It::Late(ids) => mask | ids,
            It::Stable(_) => mask,
        })
    }

    pub fn recorded(&self) -> Mask {
        self.recorded_at(self.log.len())
    }

    /// Entries that the first items put aside.
    pub fn dead_at(&self, items: usize) -> Mask {
        self.log[..items].iter().fold(0, |mask, item| match item {
            It::Side(ids) | It::Late(ids) => mask | ids,
            _ => mask,
        })
    }

    pub fn side(&self) -> Mask {
        self.log.iter().fold(0, |mask, item| if let It::Side(ids) = item { mask | ids } else { mask })
    }

    pub fn late(&self) -> Mask {
        self.log.iter().fold(0, |mask, item| if let It::Late(ids) = item { mask | ids } else { mask })
    }

    pub fn view_of(&self, gateway: usize) -> &MemoryFork {
        &self.views[self.gateways[gateway].view as usize]
    }

    pub fn collecting(&self) -> bool {
        self.cluster.state().collecting.is_some()
    }

    pub fn reported_by(&self, gateway: usize) -> bool {
        let collecting = self.cluster.state().collecting.as_ref();
        collecting.is_some_and(|collecting| collecting.reported.contains(&gateway_id(gateway)))
    }

    pub fn registered(&self, gateway: usize) -> bool {
        self.cluster.state().gateways.contains_key(&gateway_id(gateway))
    }

    /// Items that a registered gateway has acknowledged.
    pub fn acked(&self, gateway: usize) -> u8 {
        self.cluster.state().gateways.get(&gateway_id(gateway)).map_or(0, |seq| (*seq - 1) as u8)
    }

    // ---- commands

    /// Gives a command to the cluster, and checks everything that must hold about what it appends.
    pub fn command(&mut self, command: Command) -> Result<Answer, String> {
        let before = self.cluster.current().map_or(0, |head| head.seq);
        let answer = Rc::make_mut(&mut self.cluster).apply(&command);
        let after = self.cluster.current().map_or(0, |head| head.seq);
        for seq in before + 1..=after {
            self.follow(seq)?;
        }
        let follower = self.views.last().expect("the create is there");
        let (ours, theirs) = (self.cluster.state(), follower.state());
        let same = (&ours.owed, ours.members, ours.stable, ours.stable_epoch, &ours.pending_marks)
            == (&theirs.owed, theirs.members, theirs.stable, theirs.stable_epoch, &theirs.pending_marks);
        if !same
            || self.cluster.current() != follower.current()
            || self.cluster.members() != follower.members()
        {
            return Err(format!("FOLLOWER: the log says something else: {ours:?} {theirs:?}"));
        }
        if let Some(ent) =
            self.ents[1..].iter().find(|ent| self.cluster.verdict(&ent.id) != follower.verdict(&ent.id))
        {
            return Err(format!("FOLLOWER: another verdict about {:?}", ent.id));
        }
        Ok(answer)
    }

    fn follow(&mut self, seq: u64) -> Checked {
        let (_, record, item) = self.cluster.items(seq).next().expect("it was just appended");
        let id = record.id;
        let item = match item {
            Item::Content(Content::Create(_)) => None,
            Item::Content(Content::Commit(_)) => Some(It::Commit(self.index_of(&id) as u8)),
            Item::Content(_) => Some(It::App(self.index_of(&id) as u8)),
            Item::Mark(Mark::Side { ids, .. }) => Some(It::Side(self.mask_of(ids))),
            Item::Mark(Mark::Late { ids }) => Some(It::Late(self.mask_of(ids))),
            Item::Mark(Mark::Stable { position }) => Some(It::Stable((*position - 1) as u8)),
        };
        let new: Mask = match item {
            Some(It::Commit(index) | It::App(index)) => 1 << index,
            Some(It::Side(ids) | It::Late(ids)) => ids,
            _ => 0,
        };
        if new & self.recorded() != 0 {
            return Err(format!("TWICE: {:b} is recorded again", new & self.recorded()));
        }
        if let Some(It::Commit(index)) = item
            && self.parent(index as usize) != self.head()
        {
            return Err(format!("ORDER: commit {index} does not follow head {}", self.head()));
        }
        let facts = match item {
            None => self.ents[0].entry.facts.clone(),
            Some(It::Commit(index)) => self.ents[index as usize].entry.facts.clone(),
            _ => CommitFacts::default(),
        };
        let entry = self.cluster.log_entry(seq, facts).expect("it was just appended");
        let mut view = self.views.last().map_or_else(MemoryFork::new, |view| (**view).clone());
        view.follow(&group_id(), &entry).map_err(|error| format!("FOLLOWER: {error}"))?;
        Rc::make_mut(&mut self.views).push(Rc::new(view));
        self.log.extend(item);
        Ok(())
    }

    pub fn submission(&self, index: usize) -> Command {
        let Ent { parent, entry, .. } = &self.ents[index];
        let submission = Submission {
            group_id: group_id(),
            author: entry.author.clone(),
            epoch: self.epoch(*parent),
            parent_state_id: Some(entry.parent),
            content: entry.content.clone(),
        };
        Command::Submit { submission, facts: entry.facts.clone() }
    }

    pub fn report(&mut self, gateway: usize, entries: Mask) -> Checked {
        let entries = bits(entries).map(|index| (*self.ents[index].entry).clone()).collect();
        let report = Report { gateway: gateway_id(gateway), entries, complete: true };
        match self.command(Command::Report(report))? {
            Answer::Reported { .. } => Ok(()),
            other => Err(format!("REPORT: not taken in: {other:?}")),
        }
    }

    // ---- gateways

    /// Entries that a gateway would report now, by the shipping code.
    pub fn reportable(&self, gateway: usize) -> Mask {
        let view = self.view_of(gateway);
        let reports = self.gateways[gateway].tree.reports(view, gateway_id(gateway)).expect("in memory");
        self.mask_of(
            reports.iter().flat_map(|report| &report.entries).map(BranchEntry::id).collect::<Vec<_>>().iter(),
        )
    }

    pub fn has_unrecorded(&self, gateway: usize) -> bool {
        let view = self.view_of(gateway);
        !self.gateways[gateway].tree.unrecorded(view).expect("in memory").is_empty()
    }

    /// A gateway takes in an entry, if it knows what the entry follows.
    pub fn insert(&mut self, gateway: usize, index: usize) {
        let entry = (*self.ents[index].entry).clone();
        let view = self.views[self.gateways[gateway].view as usize].clone();
        let gateway = &mut self.gateways[gateway];
        if Rc::make_mut(&mut gateway.tree).insert(&*view, entry).expect("in memory") == Ok(true) {
            gateway.tree_mask |= 1 << index;
        }
    }

    pub fn would_insert(&self, gateway: usize, index: usize) -> bool {
        let mut tree = (*self.gateways[gateway].tree).clone();
        let entry = (*self.ents[index].entry).clone();
        tree.insert(self.view_of(gateway), entry).expect("in memory") == Ok(true)
    }

    /// A gateway drops what is settled.
    pub fn prune(&mut self, gateway: usize) {
        let view = self.views[self.gateways[gateway].view as usize].clone();
        let dropped = Rc::make_mut(&mut self.gateways[gateway].tree).prune(&*view).expect("in memory");
        self.gateways[gateway].tree_mask &= !self.mask_of(&dropped);
    }

    /// The gateway would accept the entry on a branch, and does not have it yet.
    pub fn admits(&self, gateway: usize, index: usize) -> bool {
        let Gateway { tree, tree_mask, promised, view, .. } = &self.gateways[gateway];
        let known = tree_mask | self.recorded_at(*view as usize);
        let promised = if self.rules.promise { u64::from(*promised) + 1 } else { 0 };
        let entry = &self.ents[index].entry;
        !bit(known, index) && tree.admit(self.view_of(gateway), promised, entry).expect("in memory").is_ok()
    }

    /// What the mode machine sees.
    pub fn observe(&mut self, gateway: usize, quorum: bool) {
        let unrecorded = self.has_unrecorded(gateway);
        let Gateway { machine, durable, view, promised, .. } = &mut self.gateways[gateway];
        let covers = (*durable).max(*view) >= *promised;
        for now_ms in [0, 1] {
            let now = Signals { now_ms, view_covers_promise: covers, ..signals(quorum, unrecorded) };
            while machine.observe(&now, &TIMES).is_some() {}
        }
        // Time starts again with every look, so that worlds that differ only in when they came about are the same world.
        *machine = at_rest(machine.mode());
    }

    pub fn linked(&self, a: usize, b: usize) -> bool {
        let link = match (a.min(b), a.max(b)) {
            (0, 1) => 1,
            (0, 2) => 2,
            _ => 4,
        };
        self.gateways[a].up() && self.gateways[b].up() && self.links & link != 0
    }

    /// A gateway reaches the quorum, directly or through another.
    pub fn reaches_quorum(&self, gateway: usize) -> bool {
        let direct = |g: usize| self.quorum >> g & 1 == 1;
        self.gateways[gateway].up()
            && (direct(gateway) || (0..3).any(|g| g != gateway && self.linked(g, gateway) && direct(g)))
    }
}

/// A machine that came into its mode at time 0.
fn at_rest(mode: Mode) -> ModeMachine {
    let mut machine = ModeMachine::new(GroupKind::Demls, 0);
    let mut see = |quorum, unrecorded, now_ms| {
        machine.observe(&Signals { now_ms, ..signals(quorum, unrecorded) }, &TIMES);
    };
    match mode {
        Mode::Suspect => {}
        Mode::Ordered => see(true, false, 0),
        Mode::Forked => see(false, false, 1),
        Mode::Reconciling => see(true, true, 0),
    }
    machine
}

impl Hash for World {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        for Ent { kind, parent, author, .. } in &self.ents {
            (kind, parent, author).hash(hasher);
        }
        self.log.hash(hasher);
        let state = self.cluster.state();
        (self.owed(), state.collecting.is_some(), state.stable).hash(hasher);
        for gateway in 0..3 {
            (self.registered(gateway), self.acked(gateway), self.reported_by(gateway)).hash(hasher);
            let Gateway { down, view, durable, promised, tree_mask, machine, .. } = &self.gateways[gateway];
            (down, view, durable, promised, tree_mask, machine.mode()).hash(hasher);
        }
        if self.collecting() {
            for ent in &self.ents[1..] {
                let candidate =
                    group_log::fork::ForkView::candidate(&*self.cluster, &ent.id).expect("in memory");
                candidate.map(|candidate| candidate.ordinal).hash(hasher);
            }
        }
        (self.clients, self.quorum, self.links, self.submitted, self.reporting, self.acking).hash(hasher);
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
            let Gateway { down, view, durable, promised, tree_mask, machine, .. } = &world.gateways[g];
            (down, machine.mode(), view, durable, promised, format!("{tree_mask:b}"))
        })
        .collect();
    format!(
        "entries (number, kind, parent, author) {ents:?}\nlog {:?}\nverdicts {verdicts:?}\ngateways {gateways:?}\nclients {:?}",
        world.log, world.clients
    )
}
