//! What each act does to the world.

use std::rc::Rc;

use group_log::{
    GroupKind,
    fork::{Answer, Close, Command, ModeMachine},
};

use super::{
    acts::Act,
    world::{Checked, Kind, Mask, World, bits, gateway_id},
};

impl World {
    pub fn step(&mut self, act: Act) -> Checked {
        match act {
            Act::Net(quorum, links) => {
                (self.quorum, self.links) = (quorum, links);
                self.budget.nets -= 1;
            }
            Act::Pull(g) => self.gateways[g as usize].view = self.log.len() as u8,
            Act::RelayLog(from, to) => self.gateways[to as usize].view = self.gateways[from as usize].view,
            Act::RelayEntry(_, to, index) => self.relay(to as usize, index as usize),
            Act::Fork(g) => self.observe(g as usize, false),
            Act::Heal(g) => self.observe(g as usize, true),
            Act::Make(member, kind) => self.make_step(member as usize, kind),
            Act::Submit(_, index) => self.submitted |= 1 << index,
            Act::Accept(member, g, index) => self.accept(member as usize, g as usize, index as usize),
            Act::Deliver(index) => {
                if let Answer::Rejected(rejection) = self.command(self.submission(index as usize))? {
                    return Err(format!("SUBMIT: {rejection}"));
                }
            }
            Act::Report(g) => match self.reportable(g as usize) {
                0 => self.report(g as usize, 0)?,
                entries => self.reporting[g as usize] = entries,
            },
            Act::DeliverReport(g) => {
                let entries = std::mem::take(&mut self.reporting[g as usize]);
                self.report(g as usize, entries)?;
            }
            Act::Ack(g) => {
                let gateway = &mut self.gateways[g as usize];
                (gateway.promised, gateway.durable) = (gateway.view, gateway.view);
                self.acking[g as usize] = gateway.view;
                self.prune(g as usize);
            }
            Act::DeliverAck(g) => self.deliver_ack(g as usize)?,
            Act::Close(nonce) => self.close(nonce)?,
            Act::Learn(member, index) => self.learn(member as usize, index as usize),
            Act::Consume(member) => {
                let at = self.clients[member as usize].at as usize;
                self.consume(member as usize, self.gateways[at].view as usize)?;
            }
            Act::Move(member, at) => {
                self.clients[member as usize].at = at;
                self.budget.moves -= 1;
            }
            Act::Upload(member, index) => {
                let at = self.clients[member as usize].at as usize;
                self.insert(at, index as usize);
            }
            Act::Crash(g) => self.crash(g as usize),
            Act::Restart(g) => self.gateways[g as usize].down = 0,
            Act::Lose(g) => {
                self.gateways[g as usize].down = 2;
                self.drop_tree(g as usize);
                self.budget.losses -= 1;
            }
            Act::Evict(g) => {
                self.command(Command::Evict { gateway: gateway_id(g as usize) })?;
                self.evicted |= 1 << g;
                self.budget.evictions -= 1;
            }
            Act::Register(g) => self.register(g as usize)?,
            Act::EvilAccept(g, index) => self.insert(g as usize, index as usize),
            Act::EvilAck => self.acking[2] = self.gateways[2].view,
            Act::EvilDrop => self.drop_tree(2),
        }
        Ok(())
    }

    fn make_step(&mut self, member: usize, kind: Kind) {
        let index = self.make(member, kind);
        if kind == Kind::App {
            self.budget.apps -= 1;
            self.clients[member].read |= 1 << index;
        } else {
            self.budget.commits -= 1;
            self.clients[member].pending |= 1 << index;
        }
    }

    fn accept(&mut self, member: usize, g: usize, index: usize) {
        self.insert(g, index);
        self.gateways[g].durable = self.gateways[g].view;
        if !(self.rules.evil && g == 2) {
            self.accepted |= 1 << index;
        }
        if self.is_commit(index) {
            let parent = self.parent(index);
            let client = &mut self.clients[member];
            client.read |= 1 << index;
            client.held |= 1 << index;
            if parent == client.current {
                client.current = index as u8;
            }
        }
    }

    fn relay(&mut self, to: usize, index: usize) {
        self.insert(to, index);
        if self.rules.keep_losers {
            return;
        }
        // What gateways did before: of two commits that follow the same state, one branch is dropped.
        let tree = self.gateways[to].tree_mask;
        let mut dropped: Mask = 0;
        for low in bits(tree) {
            let rival =
                |high: usize| high > low && self.is_commit(high) && self.parent(high) == self.parent(low);
            if self.is_commit(low) && bits(tree).any(rival) {
                dropped |= bits(tree)
                    .filter(|x| self.is_ancestor(low as u8, *x as u8))
                    .map(|x| 1 << x)
                    .sum::<Mask>();
            }
        }
        let kept: Vec<_> = bits(tree & !dropped).collect();
        self.drop_tree(to);
        for index in kept {
            self.insert(to, index);
        }
    }

    fn drop_tree(&mut self, g: usize) {
        self.gateways[g].tree = Rc::default();
        self.gateways[g].tree_mask = 0;
    }

    fn deliver_ack(&mut self, g: usize) -> Checked {
        let position = u64::from(self.acking[g]) + 1;
        if !self.registered(g) {
            self.acking[g] = 0;
            return Ok(());
        }
        match self.command(Command::Ack { gateway: gateway_id(g), position })? {
            Answer::Gateways { .. } => Ok(()),
            other => Err(format!("ACK: not taken in: {other:?}")),
        }
    }

    pub fn close(&mut self, nonce: u8) -> Checked {
        let Some(collecting) = &self.cluster.state().collecting else { return Ok(()) };
        let collection = collecting.number;
        match self.command(Command::Close(Close { collection, nonce: [nonce; 32] }))? {
            Answer::Closed { .. } => Ok(()),
            other => Err(format!("CLOSE: not carried out: {other:?}")),
        }
    }

    fn crash(&mut self, g: usize) {
        let gateway = &mut self.gateways[g];
        gateway.down = 1;
        gateway.machine = ModeMachine::new(GroupKind::Demls, 0);
        gateway.view = if self.rules.durable_view { gateway.view.min(gateway.durable) } else { 0 };
        self.budget.crashes -= 1;
    }

    pub fn register(&mut self, g: usize) -> Checked {
        let gateway = &mut self.gateways[g];
        (gateway.promised, gateway.durable) = (gateway.promised.max(gateway.view), gateway.view);
        let position = u64::from(gateway.view) + 1;
        self.acking[g] = 0;
        match self.command(Command::Register { gateway: gateway_id(g), position })? {
            Answer::Gateways { .. } => Ok(()),
            other => Err(format!("REGISTER: not taken in: {other:?}")),
        }
    }
}
