//! What each act does to the world.

use std::rc::Rc;

use group_log::{
    GroupKind,
    fork::{Answer, Close, Command, ModeMachine, Rejection},
};

use super::{
    acts::Act,
    world::{Checked, Kind, Mask, Seat, World, bits, gateway_id},
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
                if let Seat::In(number) | Seat::Leaving(number) = gateway.seat {
                    self.acking_as[g as usize] = number;
                }
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
            Act::Release(g) => self.release(g as usize)?,
            Act::DeliverRelease(g) => self.deliver_release(g as usize)?,
            Act::DeliverRegister(g) => self.deliver_register(g as usize)?,
            Act::EvilAck => {
                self.acking[2] = self.gateways[2].view;
                self.acking_as[2] = self.registration(2).unwrap_or(0);
            }
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
        let (gateway, position) = (gateway_id(g), u64::from(self.acking[g]) + 1);
        let now = self.registration(g);
        let number = if self.rules.numbers { self.acking_as[g] } else { now.unwrap_or(0) };
        let registration = number.into();
        match self.command(Command::Ack { gateway, registration, position })? {
            Answer::Gateways { .. } if now == Some(number) => Ok(()),
            Answer::Rejected(Rejection::NotRegistered) if now != Some(number) => {
                self.acking[g] = 0;
                Ok(())
            }
            other => Err(format!("ACK: of {number} while {now:?} is registered: {other:?}")),
        }
    }

    /// It will not fork before it has registered again: durably, and before anybody hears of it. What the cluster answers at once is
    /// heard, or is not.
    fn release(&mut self, g: usize) -> Checked {
        match self.gateways[g].seat {
            Seat::In(number) => {
                self.gateways[g].seat = Seat::Leaving(number);
                self.releasing[g] = Some(number);
                self.budget.releases -= 1;
                Ok(())
            }
            Seat::Leaving(number) => {
                self.releasing[g] = Some(number);
                self.deliver_release(g)?;
                self.hear_of_release(g);
                Ok(())
            }
            Seat::Out => Err("RELEASE: it has let go already".into()),
        }
    }

    /// A release arrives, for the first time or again. The log does not change by it.
    fn deliver_release(&mut self, g: usize) -> Checked {
        let Some(sent) = self.releasing[g] else { return Ok(()) };
        let (now, items) = (self.registration(g), self.log.len());
        let number = if self.rules.numbers { sent } else { now.unwrap_or(sent) };
        let release = Command::Release { gateway: gateway_id(g), registration: number.into() };
        let answer = self.command(release)?;
        let is_kept = self.registered(g);
        let as_expected = match answer {
            Answer::Gateways { .. } => is_kept == (now.is_some() && now != Some(number)),
            Answer::Retry | Answer::Rejected(Rejection::NotAcknowledged { .. }) => is_kept,
            _ => false,
        };
        if as_expected && self.log.len() == items {
            Ok(())
        } else {
            Err(format!("RELEASE: of {number} while {now:?} is registered: {answer:?}"))
        }
    }

    /// A gateway that hears that its registration is over lets go: of its copy of the log and of what it promised, too.
    fn hear_of_release(&mut self, g: usize) {
        let Seat::Leaving(number) = self.gateways[g].seat else { return };
        if self.registration(g) == Some(number) {
            return;
        }
        let gateway = &mut self.gateways[g];
        gateway.seat = Seat::Out;
        // Unless others have brought something meanwhile: that it reports first.
        if gateway.tree_mask == 0 {
            (gateway.view, gateway.durable, gateway.promised) = (0, 0, 0);
        }
    }

    /// A registration arrives once more, long after it was answered.
    fn deliver_register(&mut self, g: usize) -> Checked {
        let Some((items, heard)) = self.registering[g] else { return Ok(()) };
        let heard = if self.rules.numbers { heard.into() } else { self.cluster.state().departures };
        self.command(Command::Register {
            gateway: gateway_id(g),
            position: u64::from(items) + 1,
            departures: heard,
        })?;
        Ok(())
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
        let (view, heard) = (gateway.view, gateway.heard);
        let (id, position) = (gateway_id(g), u64::from(view) + 1);
        self.registering[g] = Some((view, heard));
        let mut departures = heard.into();
        loop {
            match self.command(Command::Register { gateway: id, position, departures })? {
                Answer::Registered { registration, .. } => {
                    self.gateways[g].seat = Seat::In(registration as u8);
                    return Ok(());
                }
                Answer::Rejected(Rejection::Overtaken { departures: now, .. }) if now > departures => {
                    departures = now;
                    self.gateways[g].heard = now as u8;
                    self.registering[g] = Some((view, now as u8));
                }
                other => return Err(format!("REGISTER: not taken in: {other:?}")),
            }
        }
    }
}
