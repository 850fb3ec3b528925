//! Everything that can happen in a world.

use group_log::fork::{Mode, Signals};

use super::world::{It, Kind, OUT, Seat, World, Z, bit, bits, gateway_id};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// The network changes: who reaches the quorum, who reaches whom.
    Net(u8, u8),
    /// A gateway reads the log.
    Pull(u8),
    /// A gateway relays its copy of the log, or an entry of its tree, to another.
    RelayLog(u8, u8),
    RelayEntry(u8, u8, u8),
    /// A gateway finds the quorum lost, or back.
    Fork(u8),
    Heal(u8),
    /// A member makes an entry; submits it to the cluster; has it accepted on a branch by a gateway.
    Make(u8, Kind),
    Submit(u8, u8),
    Accept(u8, u8, u8),
    /// Something arrives at the cluster.
    Deliver(u8),
    Report(u8),
    DeliverReport(u8),
    Ack(u8),
    DeliverAck(u8),
    /// The leader closes with one nonce or another.
    Close(u8),
    /// A client processes an entry of a branch; the log; moves to another gateway; uploads.
    Learn(u8, u8),
    Consume(u8),
    Move(u8, u8),
    Upload(u8, u8),
    Crash(u8),
    Restart(u8),
    Lose(u8),
    Evict(u8),
    Register(u8),
    /// A gateway lets go of the group; says so, once more; hears that the cluster has heard.
    Release(u8),
    DeliverRelease(u8),
    /// A registration that was sent long ago arrives.
    DeliverRegister(u8),
    /// Gateway 2 invents branches, lies about what it has reported, forgets.
    EvilAccept(u8, u8),
    EvilAck,
    EvilDrop,
}

/// Nonces that a close is tried with. Together they make any of two or three equal branches win.
pub const NONCES: u8 = 3;

impl World {
    /// Everything that can happen now. With `every_net` any network, else a few typical ones.
    pub fn acts(&self, every_net: bool) -> Vec<Act> {
        let mut acts = Vec::new();
        self.net_acts(every_net, &mut acts);
        for gateway in 0..3 {
            self.gateway_acts(gateway, every_net, &mut acts);
        }
        for index in bits(self.submitted & !self.recorded()) {
            // What would be answered without a change is left out.
            let counts = !self.is_commit(index) || (self.parent(index) == self.head() && !self.collecting());
            if counts {
                acts.push(Act::Deliver(index as u8));
            }
        }
        if self.collecting() && (self.rules.evict || self.all_reported()) {
            acts.extend((0..NONCES).map(Act::Close));
        }
        for member in 0..4 {
            self.client_acts(member, &mut acts);
        }
        if self.rules.evil {
            self.evil_acts(&mut acts);
        }
        acts
    }

    pub fn all_reported(&self) -> bool {
        let gateways: Vec<_> = (0..3).map(gateway_id).collect();
        self.cluster.state().ready_to_close(gateways.iter())
    }

    fn net_acts(&self, every_net: bool, acts: &mut Vec<Act>) {
        if self.budget.nets == 0 {
            return;
        }
        let now = (self.quorum, self.links);
        let typical = [(7, 7), (0, 0), (6, 4), (3, 1), (0, 1), (0, 5), (1, 0)];
        let every = (0..8).flat_map(|quorum| (0..8).map(move |links| (quorum, links)));
        let nets: Vec<_> = if every_net { every.collect() } else { typical.to_vec() };
        acts.extend(
            nets.into_iter().filter(|net| *net != now).map(|(quorum, links)| Act::Net(quorum, links)),
        );
    }

    fn gateway_acts(&self, g: usize, every_net: bool, acts: &mut Vec<Act>) {
        let id = g as u8;
        let gateway = &self.gateways[g];
        let items = self.log.len() as u8;
        if gateway.up() {
            let reaches = self.reaches_quorum(g);
            let mode = gateway.machine.mode();
            if self.quorum >> g & 1 == 1 && gateway.view < items {
                acts.push(Act::Pull(id));
            }
            if !reaches
                && mode != Mode::Forked
                && gateway.view >= gateway.promised
                && self.may_fork(g)
                && (every_net || self.is_wanted(g))
            {
                acts.push(Act::Fork(id));
            }
            let settled = mode == Mode::Reconciling && self.has_unrecorded(g);
            if reaches && mode != Mode::Ordered && !settled {
                acts.push(Act::Heal(id));
            }
            for other in (0..3).filter(|other| *other != g && self.linked(g, *other)) {
                if self.gateways[other].view < gateway.view {
                    acts.push(Act::RelayLog(id, other as u8));
                }
                let news = bits(gateway.tree_mask & !self.gateways[other].tree_mask);
                let news = news.filter(|index| self.would_insert(other, *index));
                acts.extend(news.map(|index| Act::RelayEntry(id, other as u8, index as u8)));
            }
            if reaches && mode != Mode::Forked {
                let entries = self.reportable(g);
                let is_awaited = self.collecting() && !self.reported_by(g);
                if self.reporting[g] != entries && (entries != 0 || is_awaited) {
                    acts.push(Act::Report(id));
                }
                if self.would_ack(g) {
                    acts.push(Act::Ack(id));
                }
                let follows = u64::from(gateway.view) + 1 >= self.cluster.state().stable;
                if self.would_register(g) && follows {
                    acts.push(Act::Register(id));
                }
                if self.would_release(g) {
                    acts.push(Act::Release(id));
                }
            }
        }
        if self.releasing[g].is_some() && self.releasing[g] == self.registration(g) {
            acts.push(Act::DeliverRelease(id));
        }
        if self.registering[g].is_some() && !self.registered(g) {
            acts.push(Act::DeliverRegister(id));
        }
        if gateway.down == 1 {
            acts.push(Act::Restart(id));
        }
        if gateway.up() && self.budget.crashes > 0 {
            acts.push(Act::Crash(id));
        }
        if gateway.down < 2 && self.budget.losses > 0 {
            acts.push(Act::Lose(id));
        }
        if self.reporting[g] != 0 {
            acts.push(Act::DeliverReport(id));
        }
        let stale_ack = !self.rules.numbers && self.acking[g] > self.acked(g);
        if self.is_acking(g) || stale_ack {
            acts.push(Act::DeliverAck(id));
        }
        if self.rules.evict && self.budget.evictions > 0 && self.registered(g) {
            acts.push(Act::Evict(id));
        }
    }

    pub fn may_ack(&self, g: usize) -> bool {
        let unrecorded = self.rules.report_before_ack && self.has_unrecorded(g);
        let signals = Signals {
            now_ms: 0,
            quorum: true,
            outcome_unknown: false,
            view_covers_promise: true,
            unrecorded,
        };
        self.gateways[g].machine.may_acknowledge(&signals)
    }

    fn would_ack(&self, g: usize) -> bool {
        let view = self.gateways[g].view;
        let last = if self.is_acking(g) { self.acking[g] } else { self.acked(g) };
        self.takes_part(g)
            && view > last
            && self.may_ack(g)
            && self.log[last as usize..view as usize]
                .iter()
                .any(|item| !matches!(item, It::Stable(_) | It::App(_)))
    }

    /// The gateway knows of the registration that the cluster has.
    pub fn takes_part(&self, g: usize) -> bool {
        match self.gateways[g].seat {
            Seat::In(number) | Seat::Leaving(number) => self.registration(g) == Some(number),
            Seat::Out => false,
        }
    }

    /// It is not registered, or was evicted. A release that was begun comes first.
    pub fn would_register(&self, g: usize) -> bool {
        match self.gateways[g].seat {
            Seat::Out => true,
            Seat::In(_) => !self.takes_part(g),
            Seat::Leaving(_) => false,
        }
    }

    /// It begins to let go of the group, or has begun and asks (again).
    pub fn would_release(&self, g: usize) -> bool {
        let gateway = &self.gateways[g];
        let may =
            !self.rules.release_empty || (gateway.machine.mode() == Mode::Ordered && gateway.tree_mask == 0);
        match gateway.seat {
            Seat::In(_) => may && self.budget.releases > 0 && self.takes_part(g),
            Seat::Leaving(number) => self.releasing[g] != Some(number) || !self.takes_part(g),
            Seat::Out => false,
        }
    }

    /// Somebody at this gateway, or at one linked to it, has something to be accepted.
    fn is_wanted(&self, g: usize) -> bool {
        let settled = self.accepted | self.recorded();
        (1..self.ents.len()).any(|index| {
            let at = self.clients[self.ents[index].author as usize].at as usize;
            !bit(settled, index) && (at == g || (at < 3 && self.linked(g, at)))
        })
    }

    fn client_acts(&self, member: usize, acts: &mut Vec<Act>) {
        let id = member as u8;
        let client = &self.clients[member];
        if self.budget.moves > 0 {
            acts.extend((0..4).filter(|at| *at != client.at).map(|at| Act::Move(id, at)));
        }
        let at = client.at as usize;
        if at > 2 || !self.gateways[at].up() {
            return;
        }
        let gateway = &self.gateways[at];
        if client.position < gateway.view {
            acts.push(Act::Consume(id));
        }
        for index in bits(gateway.tree_mask & !client.read) {
            let ent = &self.ents[index];
            let entitled = self.is_member(member, ent.parent) || (member == Z && ent.kind == Kind::AddZ);
            let own = ent.author == id && bit(client.held, index);
            if entitled && self.can_process(member, index) && !own {
                acts.push(Act::Learn(id, index as u8));
            }
        }
        if client.current != OUT && bit(client.held, client.current as usize) {
            self.make_acts(member, acts);
        }
        for index in (1..self.ents.len()).filter(|index| self.ents[*index].author == id) {
            self.offer_acts(member, index, acts);
        }
        if self.rules.upload {
            let read = if self.rules.evil { client.read } else { client.read & self.accepted };
            let news = read & !gateway.tree_mask & !self.recorded_at(gateway.view as usize);
            let news = bits(news).filter(|index| self.would_insert(at, *index));
            acts.extend(news.map(|index| Act::Upload(id, index as u8)));
        }
    }

    /// One pending commit at a time in each state.
    fn make_acts(&self, member: usize, acts: &mut Vec<Act>) {
        let client = &self.clients[member];
        let id = member as u8;
        let members = self.members(client.current);
        if self.budget.commits > 0 && !bits(client.pending).any(|own| self.parent(own) == client.current) {
            acts.push(Act::Make(id, Kind::Noop));
            let others = (0..3).filter(|other| *other != member && members >> other & 1 == 1);
            acts.extend(others.map(|other| Act::Make(id, Kind::Remove(1 << other))));
            if members & 8 == 0 {
                acts.push(Act::Make(id, Kind::AddZ));
            }
        }
        if self.budget.apps > 0 {
            acts.push(Act::Make(id, Kind::App));
        }
    }

    fn offer_acts(&self, member: usize, index: usize, acts: &mut Vec<Act>) {
        let client = &self.clients[member];
        let at = client.at as usize;
        if self.is_commit(index) && !bit(client.pending, index) {
            return;
        }
        let ordered = self.gateways[at].machine.mode() == Mode::Ordered && self.reaches_quorum(at);
        if ordered && !bit(self.recorded() | self.submitted, index) {
            acts.push(Act::Submit(member as u8, index as u8));
        }
        if !self.gateways[at].forked() || self.knows_dead(member, index) {
            return;
        }
        for sequencer in 0..3 {
            let reaches = sequencer == at || self.linked(sequencer, at);
            if reaches
                && self.gateways[sequencer].up()
                && self.gateways[sequencer].forked()
                && self.admits(sequencer, index)
            {
                acts.push(Act::Accept(member as u8, sequencer as u8, index as u8));
            }
        }
    }

    fn evil_acts(&self, acts: &mut Vec<Act>) {
        for index in 1..self.ents.len() {
            for g in 0..3 {
                let own = self.ents[index].author == 2 && self.clients[2].at as usize == g;
                if self.gateways[g].up() && (g == 2 || own) && self.would_insert(g, index) {
                    acts.push(Act::EvilAccept(g as u8, index as u8));
                }
            }
        }
        let last = if self.is_acking(2) { self.acking[2] } else { self.acked(2) };
        if self.gateways[2].up() && self.reaches_quorum(2) && self.gateways[2].view > last {
            acts.push(Act::EvilAck);
        }
        if self.gateways[2].tree_mask != 0 {
            acts.push(Act::EvilDrop);
        }
    }
}
