//! Entries by their numbers, and the log in numbers.

use bytes::Bytes;
use group_log::{
    Commit, Content, EntryId, StateId,
    fork::{BranchEntry, CommitFacts, LeafId, MemoryFork},
};
use std::rc::Rc;

use super::world::{Ent, It, Kind, Mask, OUT, World, Z, bits, gateway_id, member_name};

impl World {
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

    pub(super) fn epoch(&self, state: u8) -> u64 {
        if state == 0 { 0 } else { 1 + self.epoch(self.parent(state as usize)) }
    }

    /// The leaf of a member in a state where it is one.
    pub(super) fn leaf(&self, member: usize, mut state: u8) -> Option<LeafId> {
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

    pub(super) fn index_of(&self, id: &EntryId) -> usize {
        self.ents.iter().position(|ent| ent.id == *id).expect("the log holds only what was made")
    }

    pub(super) fn mask_of<'i>(&self, ids: impl IntoIterator<Item = &'i EntryId>) -> Mask {
        ids.into_iter().map(|id| 1 << self.index_of(id)).sum()
    }

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

    /// The number of a gateway's registration.
    pub fn registration(&self, gateway: usize) -> Option<u8> {
        let registration = self.cluster.state().gateways.get(&gateway_id(gateway));
        registration.map(|registration| registration.number as u8)
    }

    /// Items that a registered gateway has acknowledged.
    pub fn acked(&self, gateway: usize) -> u8 {
        let registration = self.cluster.state().gateways.get(&gateway_id(gateway));
        registration.map_or(0, |registration| (registration.acknowledged - 1) as u8)
    }

    /// An acknowledgement of the registration that there is now is on its way.
    pub fn is_acking(&self, gateway: usize) -> bool {
        self.acking[gateway] > self.acked(gateway)
            && self.registration(gateway) == Some(self.acking_as[gateway])
    }
}
