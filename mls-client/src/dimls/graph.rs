//! The causal graph: a node is one epoch of one Send Group, an edge a PSK that a commit took from another Send Group. Pure.
//!
//! A commit can be processed once every PSK that it takes is held. The owner takes epochs of one Send Group in rising order only, and
//! takes what it has entered itself, so the graph has no cycle and old PSKs can be told from those that may still be needed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// A member's number: its place among the sorted members of the DGroup.
pub type Member = u16;

/// One epoch of one Send Group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Node {
    /// Whose Send Group.
    pub owner: Member,
    /// Which epoch of it.
    pub epoch: u64,
}

/// What becomes of a commit that takes PSKs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every PSK is held.
    Ready,
    /// This one may still come.
    Waits(Node),
    /// This one can never come: this member has passed that epoch.
    Never(Node),
    /// No honest owner takes this one: its own, the same twice, or one older than it took before.
    Refused(Node),
}

/// What one member knows of one Send Group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The newest epoch that this member has entered.
    entered: Option<u64>,
    /// The newest epoch that began with a new path of the owner: its last UPDATE.
    updated: u64,
    /// Who was in it in the newest epoch.
    members: BTreeSet<Member>,
    /// The newest epoch of each other Send Group that the owner has taken.
    taken: BTreeMap<Member, u64>,
    /// Nothing of it will be entered any more.
    gone: bool,
}

/// The graph as one member sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    groups: Vec<Row>,
    /// Epochs whose PSK is held.
    held: BTreeSet<Node>,
}

impl Graph {
    /// A DGroup of `members` members that has just begun.
    pub fn new(members: usize) -> Self {
        Graph { groups: vec![Row::default(); members], held: BTreeSet::new() }
    }

    /// The graph as it was stored.
    pub fn from_rows(groups: Vec<Row>, held: impl IntoIterator<Item = Node>) -> Self {
        Graph { groups, held: held.into_iter().collect() }
    }

    /// What is known of one Send Group, to be stored.
    pub fn row(&self, owner: Member) -> Option<&Row> {
        self.group(owner)
    }

    fn group(&self, member: Member) -> Option<&Row> {
        self.groups.get(usize::from(member))
    }

    /// What becomes of a commit of `from` that takes `needs`.
    pub fn judge(&self, from: Member, needs: &[Node]) -> Verdict {
        let mut seen = BTreeSet::new();
        let mut waits = None;
        let Some(group) = self.group(from) else { return Verdict::Ready };
        for need in needs {
            let known = self.group(need.owner);
            let old = group.taken.get(&need.owner).is_some_and(|taken| need.epoch <= *taken);
            let (Some(known), false, true, true) = (known, old, need.owner != from, seen.insert(need.owner))
            else {
                return Verdict::Refused(*need);
            };
            if self.held.contains(need) {
                continue;
            }
            if known.entered.is_some_and(|entered| need.epoch <= entered) {
                return Verdict::Never(*need);
            }
            waits = waits.or(Some(*need));
        }
        waits.map_or(Verdict::Ready, Verdict::Waits)
    }

    /// This member has entered `node`, whose PSK it holds from now on. `update`: the owner brought a new path. `members` is who is in
    /// the Send Group now, and `took` what the commit took.
    pub fn enter(&mut self, node: Node, update: bool, members: BTreeSet<Member>, took: &[Node]) {
        let Some(group) = self.groups.get_mut(usize::from(node.owner)) else { return };
        group.entered = Some(node.epoch);
        if update {
            group.updated = node.epoch;
        }
        group.members = members;
        group.gone = false;
        for taken in took {
            let newest = group.taken.entry(taken.owner).or_default();
            *newest = (*newest).max(taken.epoch);
        }
        self.held.insert(node);
    }

    /// Nothing of this Send Group will be entered any more, unless this member is added again.
    pub fn leave(&mut self, owner: Member) {
        if let Some(group) = self.groups.get_mut(usize::from(owner)) {
            group.gone = true;
        }
    }

    /// What `me` should take into its own Send Group when `with` are its members afterwards: the newest epoch of every other Send Group
    /// that holds an UPDATE which `me` has not taken, provided that all of `with` are in that epoch and so can have its PSK.
    pub fn importable(&self, me: Member, with: &BTreeSet<Member>) -> Vec<Node> {
        let Some(own) = self.group(me) else { return Vec::new() };
        let takes = |owner: Member, group: &Row| {
            let node = Node { owner, epoch: group.entered? };
            let fresh = group.updated > own.taken.get(&owner).copied().unwrap_or(0);
            let sound = owner != me && with.contains(&owner) && with.is_subset(&group.members);
            (fresh && sound && self.held.contains(&node)).then_some(node)
        };
        (0..).zip(&self.groups).filter_map(|(owner, group)| takes(owner, group)).collect()
    }

    /// PSKs that nobody can need any more, and those beyond the newest `keep` of each Send Group: every other of `active` has taken that
    /// epoch or a newer one.
    pub fn deletable(&self, active: &BTreeSet<Member>, keep: usize) -> Vec<Node> {
        let mut deletable = Vec::new();
        for (owner, group) in (0..).zip(&self.groups) {
            let all: Vec<Node> = self.held_of(owner).collect();
            let done = active
                .iter()
                .filter(|taker| **taker != owner)
                .filter_map(|taker| self.group(*taker))
                .map(|taker| taker.taken.get(&owner).copied().unwrap_or(0))
                .min();
            let surplus = all.len().saturating_sub(keep);
            deletable.extend(all.into_iter().enumerate().filter_map(|(index, node)| {
                // The newest epoch is what this member itself takes next.
                let current = group.entered == Some(node.epoch) && !group.gone;
                let unneeded = done.is_some_and(|done| node.epoch <= done) && !current;
                (unneeded || index < surplus).then_some(node)
            }));
        }
        deletable
    }

    fn held_of(&self, owner: Member) -> impl Iterator<Item = Node> {
        let from = Node { owner, epoch: 0 };
        self.held.range(from..=Node { owner, epoch: u64::MAX }).copied()
    }

    /// The PSK of `node` was deleted.
    pub fn forget(&mut self, node: Node) {
        self.held.remove(&node);
    }

    /// The newest epoch of the Send Group of `owner` that this member has entered.
    pub fn entered(&self, owner: Member) -> Option<u64> {
        self.group(owner)?.entered
    }

    /// The epoch that the last UPDATE of `owner` began.
    pub fn updated(&self, owner: Member) -> u64 {
        self.group(owner).map_or(0, |group| group.updated)
    }

    /// The newest epoch of the Send Group of `of` that `by` has taken into its own.
    pub fn taken(&self, by: Member, of: Member) -> Option<u64> {
        self.group(by)?.taken.get(&of).copied()
    }

    /// Who was in the Send Group of `owner` in the newest epoch that this member has entered.
    pub fn members(&self, owner: Member) -> BTreeSet<Member> {
        self.group(owner).map(|group| group.members.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "graph_tests.rs"]
mod tests;
