//! What clients do, in numbers: which entries they can process, which states they keep, where they stand. The log's word is final;
//! a branch's is not.

use super::world::{Checked, It, Kind, Mask, OUT, World, Z, bit, bits};

impl World {
    pub fn is_member(&self, member: usize, state: u8) -> bool {
        self.members(state) >> member & 1 == 1
    }

    /// The member has what it takes to decrypt the entry.
    pub fn can_process(&self, member: usize, index: usize) -> bool {
        let ent = &self.ents[index];
        let client = &self.clients[member];
        if ent.author as usize == member {
            return !self.is_commit(index) || bit(client.pending | client.held, index);
        }
        (member == Z && ent.kind == Kind::AddZ) || bit(client.held, ent.parent as usize)
    }

    /// Gains the state, if still a member there.
    fn process(&mut self, member: usize, index: usize) {
        let stays = self.is_commit(index) && self.is_member(member, index as u8);
        let client = &mut self.clients[member];
        client.read |= 1 << index;
        if stays {
            client.held |= 1 << index;
        }
    }

    /// What clients did before it was known better.
    fn forget_naively(&mut self, member: usize, index: usize) {
        let parent = self.parent(index);
        let at = self.clients[member].at as usize;
        if !self.rules.keep && at < 3 && !self.gateways[at].forked() {
            self.clients[member].held &= !(1 << parent);
        }
        if !self.rules.keep_pending {
            let rivals = bits(self.clients[member].pending)
                .filter(|rival| *rival != index && self.parent(*rival) == parent);
            let rivals: Mask = rivals.map(|rival| 1 << rival).sum();
            self.clients[member].pending &= !rivals;
        }
    }

    /// The member's own log says that the entry, or an ancestor, lost.
    pub fn knows_dead(&self, member: usize, index: usize) -> bool {
        let dead = self.dead_at(self.clients[member].position as usize);
        let mut at = index as u8;
        while at != 0 && at != OUT {
            if bit(dead, at as usize) {
                return true;
            }
            at = self.parent(at as usize);
        }
        false
    }

    /// Processes an entry of a branch. Advances only if no ancestor is known dead.
    pub fn learn(&mut self, member: usize, index: usize) {
        self.process(member, index);
        if !self.is_commit(index) {
            return;
        }
        let current = self.clients[member].current;
        let follows = self.parent(index) == current || (member == Z && current == OUT);
        if follows && bit(self.clients[member].held, index) && !self.knows_dead(member, index) {
            self.clients[member].current = index as u8;
        }
        self.forget_naively(member, index);
    }

    /// Deletes what nothing in the log up to `items` can need any more.
    fn delete(&mut self, member: usize, items: usize) {
        let (head, dead) = (self.head_at(items), self.dead_at(items));
        let client = &self.clients[member];
        let held =
            bits(client.held).filter(|state| !self.is_ancestor(head, *state as u8) || bit(dead, *state));
        let pending = bits(client.pending).filter(|own| !self.is_ancestor(head, self.parent(*own)));
        let (held, pending): (Mask, Mask) = (held.map(|i| 1 << i).sum(), pending.map(|i| 1 << i).sum());
        self.clients[member].held &= !held;
        self.clients[member].pending &= !pending;
    }

    /// Follows the canonical log up to `until` items, strictly in order.
    pub fn consume(&mut self, member: usize, until: usize) -> Checked {
        if !self.rules.in_order {
            for position in self.clients[member].position as usize..until {
                if let It::Stable(items) = self.log[position] {
                    self.delete(member, items as usize);
                }
            }
        }
        while (self.clients[member].position as usize) < until {
            let position = self.clients[member].position as usize;
            let (item, head) = (self.log[position], self.head_at(position));
            let inside = self.is_member(member, head);
            match item {
                It::Commit(index) => self.consume_commit(member, index as usize, inside)?,
                It::App(index) => self.consume_app(member, index as usize, inside)?,
                It::Side(ids) | It::Late(ids) => {
                    self.consume_branch(member, ids, inside, matches!(item, It::Side(_)))?;
                    let current = self.clients[member].current;
                    let lost = |index: usize| self.is_commit(index) && self.is_ancestor(index as u8, current);
                    if current != OUT && bits(ids).any(lost) {
                        let back = inside && bit(self.clients[member].held, head as usize);
                        self.clients[member].current = if back { head } else { OUT };
                    }
                }
                It::Stable(items) => {
                    if self.rules.in_order {
                        self.delete(member, items as usize);
                    }
                }
            }
            self.clients[member].position += 1;
        }
        Ok(())
    }

    fn consume_commit(&mut self, member: usize, index: usize, inside: bool) -> Checked {
        if self.is_member(member, index as u8) {
            if bit(self.clients[member].held, index) {
                self.clients[member].read |= 1 << index;
            } else if self.can_process(member, index) {
                self.process(member, index);
            } else {
                return Err(format!("LOCKOUT: member {member} cannot process canonical commit {index}"));
            }
            self.clients[member].current = index as u8;
            self.forget_naively(member, index);
        } else if inside && self.can_process(member, index) {
            self.process(member, index);
            self.clients[member].current = OUT;
        }
        Ok(())
    }

    fn consume_app(&mut self, member: usize, index: usize, inside: bool) -> Checked {
        if bit(self.clients[member].read, index) || !self.is_member(member, self.parent(index)) {
            return Ok(());
        }
        if self.can_process(member, index) {
            self.process(member, index);
        } else if inside {
            return Err(format!("UNREADABLE: member {member} cannot read canonical message {index}"));
        }
        Ok(())
    }

    fn consume_branch(&mut self, member: usize, ids: Mask, inside: bool, side: bool) -> Checked {
        for index in bits(ids & !self.clients[member].read) {
            let ent = &self.ents[index];
            let entitled = self.is_member(member, ent.parent) || (member == Z && ent.kind == Kind::AddZ);
            if !entitled {
                continue;
            }
            if self.can_process(member, index) {
                self.process(member, index);
            } else if inside && side {
                return Err(format!("UNREADABLE: member {member} cannot process side entry {index}"));
            }
        }
        Ok(())
    }
}
