//! Taking in what others sent: in each owner's order, once, and only when every PSK that it needs is there.

use super::{
    Event, Item, Member, Records, Session,
    apply::{Fail, Outcome},
};
use crate::dimls::{
    error::{DimlsError, Rejected},
    limits::WAIT_MS,
    waiting::Offered,
};

impl<R: Records> Session<R> {
    /// Takes in an item, in any order and as often as it comes. What it set free is taken in with it.
    pub fn receive(&mut self, item: Item, now_ms: u64) -> Result<Vec<Event>, DimlsError> {
        let rejected =
            |item: &Item, reason| vec![Event::Rejected { owner: item.owner.clone(), seq: item.seq, reason }];
        let Some(number) = self.setup.number(&item.owner) else {
            return Ok(rejected(&item, Rejected::Stranger));
        };
        let from = number as Member;
        if from == self.me {
            let made = item.seq < self.record.next_own;
            return Ok(if made { Vec::new() } else { rejected(&item, Rejected::NotMine) });
        }
        let (seq, bytes, next) = (item.seq, item.bytes(), self.peers[number].next);
        match self.waiting[number].offer(seq, item, bytes, next) {
            Offered::Kept => self.operate(|session| session.drain(now_ms)),
            Offered::Known | Offered::Full => Ok(Vec::new()),
        }
    }

    /// Takes in what is due in all streams, until nothing moves.
    pub(super) fn drain(&mut self, now: u64) -> Result<Vec<Event>, DimlsError> {
        let mut events = Vec::new();
        loop {
            let mut moved = false;
            for from in 0..self.peers.len() as Member {
                while self.take_next(from, now, &mut events)? {
                    moved = true;
                }
            }
            if !moved {
                return Ok(events);
            }
        }
    }

    /// Takes in the next item of one stream. Returns whether there was one and it is through.
    fn take_next(&mut self, from: Member, now: u64, events: &mut Vec<Event>) -> Result<bool, DimlsError> {
        let number = usize::from(from);
        let seq = self.peers[number].next;
        let Some(item) = self.waiting[number].get(seq).cloned() else { return Ok(false) };
        let owner = item.owner.clone();
        match self.apply(from, &item) {
            Ok(Outcome::Done(told)) => {
                self.peers[number].heard = now;
                events.extend(told);
            }
            Ok(Outcome::Waits(need)) => {
                let first = self.waiting[number].blocked(now) == 0;
                if first {
                    // Its owner is there; it is others that are late.
                    self.peers[number].heard = now;
                    self.touched.insert(from);
                }
                if self.waiting[number].blocked(now) < WAIT_MS {
                    let needs = self.client(need.owner).clone();
                    if first {
                        events.push(Event::Waiting { owner, seq, needs, epoch: need.epoch });
                    }
                    return Ok(false);
                }
                self.lose(from, events);
            }
            Ok(Outcome::Never(need)) => {
                events.push(Event::Rejected { owner, seq, reason: Rejected::NeverHeld(need) });
                self.lose(from, events);
            }
            Err(Fail::Fatal(error)) => return Err(error),
            Err(Fail::Rejected(reason)) => {
                self.waiting[number].remove(seq);
                // Somebody else may have made it, so the place stays open for the owner's real one.
                let over = self.waiting[number].blocked(now) >= WAIT_MS;
                events.push(Event::Rejected { owner, seq, reason });
                if !over {
                    return Ok(false);
                }
                self.lose(from, events);
            }
        }
        self.advance(from, seq + 1);
        self.note_unacknowledged(now);
        Ok(true)
    }

    fn advance(&mut self, from: Member, next: u64) {
        let number = usize::from(from);
        self.peers[number].next = next;
        self.waiting[number].skip_to(next);
        self.touched.insert(from);
    }

    /// The items of `owner` up to `to` do not exist any more. Its Send Group cannot be followed until this client's leaf is replaced.
    pub fn skip(
        &mut self,
        owner: &group_log::ClientId,
        to: u64,
        now_ms: u64,
    ) -> Result<Vec<Event>, DimlsError> {
        let Some(number) = self.setup.number(owner).filter(|n| *n != usize::from(self.me)) else {
            return Ok(Vec::new());
        };
        if to < self.peers[number].next {
            return Ok(Vec::new());
        }
        self.operate(|session| {
            let mut events = Vec::new();
            session.lose(number as Member, &mut events);
            session.advance(number as Member, to + 1);
            events.extend(session.drain(now_ms)?);
            Ok(events)
        })
    }

    /// Gives up a Send Group, and deletes its keys.
    pub(super) fn lose(&mut self, from: Member, events: &mut Vec<Event>) {
        let number = usize::from(from);
        if let Some(group) = &mut self.groups[number] {
            group.space.clear();
            let part = crate::dimls::records::SEND_GROUPS + u32::from(from);
            self.changes.extend(group.space.changes(part));
        }
        self.groups[number] = None;
        if !std::mem::replace(&mut self.peers[number].lost, true) {
            events.push(Event::Lost { owner: self.client(from).clone() });
        }
        self.graph.leave(from);
        self.touched.insert(from);
    }
}
