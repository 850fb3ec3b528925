//! Gateways: the shipping branch tree, promise and mode machine, in a network that comes and goes.

use std::rc::Rc;

use group_log::{
    GroupKind,
    fork::{BranchEntry, Mode, ModeMachine, Signals},
};

use super::world::{Gateway, Mask, Seat, TIMES, World, bit, gateway_id};

pub(super) fn signals(quorum: bool, unrecorded: bool) -> Signals {
    Signals { now_ms: 0, quorum, outcome_unknown: false, view_covers_promise: true, unrecorded }
}

impl World {
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
        let covers = self.may_fork(gateway);
        let machine = &mut self.gateways[gateway].machine;
        for now_ms in [0, 1] {
            let now = Signals { now_ms, view_covers_promise: covers, ..signals(quorum, unrecorded) };
            while machine.observe(&now, &TIMES).is_some() {}
        }
        // Time starts again with every look, so that worlds that differ only in when they came about are the same world.
        *machine = at_rest(machine.mode());
    }

    /// The cluster counts on the gateway, as far as it knows, and its log reaches what it promised.
    pub fn may_fork(&self, gateway: usize) -> bool {
        let Gateway { durable, view, promised, seat, .. } = &self.gateways[gateway];
        let counts = match seat {
            Seat::In(_) => true,
            Seat::Leaving(_) => !self.rules.leave_first,
            Seat::Out => false,
        };
        counts && (*durable).max(*view) >= *promised
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
