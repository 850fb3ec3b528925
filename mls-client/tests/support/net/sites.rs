//! What a gateway is to one group, and what gateways do as time passes.

use group_log::{
    EntryId, GroupId, GroupKind,
    fork::{
        Answer, BranchEntry, BranchTree, Close, Command, CommitFacts, GatewayId, Item, MemoryFork, Mode,
        ModeMachine, ModeTimes, Signals,
    },
};

use super::{Group, World};

/// A gateway's part of one group.
#[derive(Clone)]
pub(crate) struct Site {
    pub(super) tree: BranchTree,
    pub(super) view: MemoryFork,
    pub(super) promised: u64,
    machine: ModeMachine,
    /// Relayed entries that have not arrived yet.
    wire: Vec<BranchEntry>,
}

pub(super) fn gateway(site: usize) -> GatewayId {
    GatewayId([site as u8 + 1; 16])
}

impl Site {
    pub(super) fn new(now_ms: u64) -> Site {
        Site {
            tree: BranchTree::new(),
            view: MemoryFork::new(),
            promised: 0,
            machine: ModeMachine::new(GroupKind::Demls, now_ms),
            wire: Vec::new(),
        }
    }

    pub(super) fn mode(&self) -> Mode {
        self.machine.mode()
    }

    pub(super) fn seq(&self) -> u64 {
        self.view.current().map_or(0, |head| head.seq)
    }

    fn has_unrecorded(&self) -> bool {
        !self.tree.unrecorded(&self.view).unwrap().is_empty()
    }

    fn signals(&self, now_ms: u64, quorum: bool) -> Signals {
        Signals {
            now_ms,
            quorum,
            outcome_unknown: false,
            view_covers_promise: self.seq() >= self.promised,
            unrecorded: self.has_unrecorded(),
        }
    }

    fn observe(&mut self, now_ms: u64, quorum: bool) {
        let signals = self.signals(now_ms, quorum);
        while self.machine.observe(&signals, &ModeTimes::default()).is_some() {}
    }

    /// Takes in an entry whose ancestors are known.
    pub(super) fn insert(&mut self, entry: BranchEntry) -> bool {
        matches!(self.tree.insert(&self.view, entry).unwrap(), Ok(true))
    }
}

impl World {
    pub(super) fn reaches_quorum(&self, site: usize) -> bool {
        !self.lost.contains(&site) && self.quorum == Some(self.component[site])
    }

    pub(super) fn connected(&self, a: usize, b: usize) -> bool {
        !self.lost.contains(&a) && !self.lost.contains(&b) && self.component[a] == self.component[b]
    }

    /// One moment: everybody does one thing.
    pub(super) fn tick(&mut self, ms: u64) {
        self.now_ms += ms;
        let ids: Vec<GroupId> = self.groups.keys().cloned().collect();
        for id in ids {
            let mut group = self.groups.remove(&id).unwrap();
            for site in 0..group.sites.len() {
                if !self.lost.contains(&site) {
                    self.follow(&id, &mut group, site);
                    self.arrive(&mut group, site);
                    let quorum = self.reaches_quorum(site);
                    group.sites[site].observe(self.now_ms, quorum);
                    self.report(&id, &mut group, site);
                    self.relay(&mut group, site);
                    self.acknowledge(&id, &mut group, site);
                }
            }
            self.close(&id, &mut group);
            self.groups.insert(id, group);
        }
    }

    /// A site reads the log, as far as it reaches it, or somebody who has read more.
    pub(super) fn follow(&self, id: &GroupId, group: &mut Group, site: usize) {
        let direct = self.reaches_quorum(site);
        let known = match direct && !self.deaf {
            true => group.cluster.current().map_or(0, |head| head.seq),
            false => (0..group.sites.len())
                .filter(|other| self.connected(site, *other))
                .map(|other| group.sites[other].seq())
                .max()
                .unwrap_or(0),
        };
        for seq in group.sites[site].seq() + 1..=known {
            let state = group.cluster.items(seq).next().unwrap().1.state_id;
            let facts = group.facts.of.get(&state).cloned().unwrap_or_default();
            let is_commit = matches!(
                group.cluster.items(seq).next().unwrap().2,
                Item::Content(group_log::Content::Commit(_) | group_log::Content::Create(_))
            );
            let facts = if is_commit { facts } else { CommitFacts::default() };
            let entry = group.cluster.log_entry(seq, facts).unwrap();
            group.sites[site].view.follow(id, &entry).unwrap();
        }
    }

    /// What was relayed arrives now or later, once or twice.
    fn arrive(&mut self, group: &mut Group, site: usize) {
        let mut waiting = std::mem::take(&mut group.sites[site].wire);
        // Parents first, so that one pass takes in what is there.
        let mut progress = true;
        while progress {
            progress = false;
            for entry in std::mem::take(&mut waiting) {
                if self.rng.below(100) < self.disorder {
                    waiting.push(entry);
                } else if group.sites[site].insert(entry.clone()) {
                    progress = true;
                    if self.rng.below(100) < self.disorder {
                        waiting.push(entry);
                    }
                } else if group.sites[site].tree.get(&entry.id()).is_none() {
                    waiting.push(entry);
                }
            }
            progress &= !waiting.is_empty();
        }
        group.sites[site].wire = waiting;
    }

    /// A site tells those it reaches what they lack.
    fn relay(&mut self, group: &mut Group, site: usize) {
        let entries: Vec<BranchEntry> = group.sites[site].tree.iter().map(|(_, e)| e.clone()).collect();
        for other in (0..group.sites.len()).filter(|other| *other != site) {
            if !self.connected(site, other) {
                continue;
            }
            let to = &mut group.sites[other];
            for entry in &entries {
                let id = entry.id();
                if to.tree.get(&id).is_none()
                    && to.view.verdict(&id).is_none()
                    && to.wire.iter().all(|waiting| waiting.id() != id)
                {
                    to.wire.push(entry.clone());
                }
            }
        }
    }

    fn report(&mut self, id: &GroupId, group: &mut Group, site: usize) {
        let machine = group.sites[site].mode();
        if !self.reaches_quorum(site) || machine == Mode::Forked {
            return;
        }
        if !group.cluster.state().gateways.contains_key(&gateway(site)) {
            let position = group.sites[site].seq();
            group.sites[site].promised = position;
            let departures = group.cluster.state().departures;
            self.command(id, group, &Command::Register { gateway: gateway(site), position, departures });
        }
        let collecting = group.cluster.state().collecting.is_some();
        if collecting || group.sites[site].has_unrecorded() {
            let reports = group.sites[site].tree.reports(&group.sites[site].view, gateway(site)).unwrap();
            for report in reports {
                let answer = self.command(id, group, &Command::Report(report));
                assert!(matches!(answer, Answer::Reported { .. }), "{answer:?}");
            }
        }
    }

    fn acknowledge(&mut self, id: &GroupId, group: &mut Group, site: usize) {
        let quorum = self.reaches_quorum(site);
        let at = &mut group.sites[site];
        let signals = at.signals(self.now_ms, quorum);
        let position = at.seq();
        if quorum && at.machine.may_acknowledge(&signals) && position > at.promised {
            at.promised = position;
            let registered = group.cluster.state().gateways.get(&gateway(site));
            let registration = registered.map_or(0, |registration| registration.number);
            self.command(id, group, &Command::Ack { gateway: gateway(site), registration, position });
        }
    }

    /// The leader closes once everybody who can has reported.
    fn close(&mut self, id: &GroupId, group: &mut Group) {
        let live: Vec<_> =
            (0..group.sites.len()).filter(|site| self.reaches_quorum(*site)).map(gateway).collect();
        if !group.cluster.state().ready_to_close(live.iter()) {
            return;
        }
        let collection = group.cluster.state().collecting.as_ref().unwrap().number;
        let nonce = self.rng.bytes::<32>();
        self.command(id, group, &Command::Close(Close { collection, nonce }));
    }

    pub(super) fn evict_lost(&mut self) {
        let ids: Vec<GroupId> = self.groups.keys().cloned().collect();
        for id in ids {
            let mut group = self.groups.remove(&id).unwrap();
            for site in self.lost.clone() {
                self.command(&id, &mut group, &Command::Evict { gateway: gateway(site) });
            }
            self.groups.insert(id, group);
        }
    }

    /// Gives a command to the cluster; Welcomes in what it appends go to inboxes.
    pub(super) fn command(&mut self, id: &GroupId, group: &mut Group, command: &Command) -> Answer {
        let before = group.cluster.current().map_or(0, |head| head.seq);
        let answer = group.cluster.apply(command);
        let after = group.cluster.current().map_or(0, |head| head.seq);
        for seq in before + 1..=after {
            self.deliver_welcomes(id, group, seq);
        }
        answer
    }

    fn deliver_welcomes(&mut self, id: &GroupId, group: &Group, seq: u64) {
        let (_, record, item) = group.cluster.items(seq).next().unwrap();
        if let Item::Content(content @ group_log::Content::Commit(_)) = item {
            self.welcome(id, content, (seq, record.chain), record.state_id, record.epoch + 1);
        }
    }
}

/// The site that accepts on branches for those it reaches: the first one.
impl World {
    pub(super) fn sequencer(&self, group: &Group, site: usize) -> Option<usize> {
        (0..group.sites.len())
            .find(|other| self.connected(site, *other) && group.sites[*other].mode() == Mode::Forked)
    }
}

impl Group {
    /// Entries of a site's tree that its view of the log does not record, parents before children.
    pub(super) fn branch_entries(&self, site: usize) -> Vec<(EntryId, BranchEntry)> {
        let at = &self.sites[site];
        let reports = at.tree.reports(&at.view, gateway(site)).unwrap();
        reports.into_iter().flat_map(|report| report.entries).map(|entry| (entry.id(), entry)).collect()
    }
}
