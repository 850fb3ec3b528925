//! Which branch wins.
//!
//! A path is worth as many distinct members of the fork point as committed on it. Among equals a ticket decides, that nobody can
//! choose: one for each member of the fork point, drawn from a nonce that is known only when the collection is closed. Confirmation
//! tags or commit hashes would not do, because whoever tries for a second can make his own come out highest.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    content::EntryKind,
    fork::{facts::LeafId, state::Candidate},
    hash::Parts,
    ids::StateId,
};

/// How good a path is. The greatest wins; among equals the first in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// Distinct members of the fork point who authored commits on the path.
    pub authors: u64,
    /// The ticket of the first commit's author; none for one that was not a member of the fork point, or is not known.
    pub ticket: Option<[u8; 32]>,
}

/// The ticket of a member in one close: H("concordat ticket v1", nonce, leaf).
pub fn ticket(nonce: &[u8; 32], leaf: &LeafId) -> [u8; 32] {
    Parts::new("concordat ticket v1").fixed(nonce).fixed(&leaf.0).finish()
}

/// The best of the maximal paths from `fork_point` whose first commit is `eligible`: indices into `candidates`, first commit first.
/// `candidates` are in the order of the log; `members` are the members of the fork point among their authors.
pub fn best_path(
    candidates: &[Candidate],
    fork_point: &StateId,
    members: &BTreeSet<LeafId>,
    nonce: &[u8; 32],
    eligible: impl Fn(&Candidate) -> bool,
) -> Option<(Vec<usize>, Rank)> {
    let mut search = Search { candidates, members, nonce, children: BTreeMap::new(), best: None };
    for (index, candidate) in candidates.iter().enumerate() {
        let is_first = candidate.parent == *fork_point;
        if candidate.kind == EntryKind::Commit && (!is_first || eligible(candidate)) {
            search.children.entry(candidate.parent).or_default().push(index);
        }
    }
    search.walk(fork_point);
    search.best
}

struct Search<'a> {
    candidates: &'a [Candidate],
    members: &'a BTreeSet<LeafId>,
    nonce: &'a [u8; 32],
    /// Commits by the state they were made in, in the order of the log.
    children: BTreeMap<StateId, Vec<usize>>,
    best: Option<(Vec<usize>, Rank)>,
}

enum Step {
    Enter(usize),
    Leave,
}

impl Search<'_> {
    /// Depth first, in the order of the log, without recursion: a path may be as long as a collection. A path that only equals the
    /// best so far does not replace it, which makes the first in the log win.
    fn walk(&mut self, fork_point: &StateId) {
        let mut path: Vec<usize> = Vec::new();
        let mut commits_by: BTreeMap<LeafId, u32> = BTreeMap::new();
        let mut steps: Vec<Step> = self.enter_children(fork_point);
        while let Some(step) = steps.pop() {
            match step {
                Step::Enter(index) => {
                    path.push(index);
                    if let Some(author) = self.member(index) {
                        *commits_by.entry(author).or_default() += 1;
                    }
                    steps.push(Step::Leave);
                    let below = self.enter_children(&self.candidates[index].id.as_state());
                    if below.is_empty() {
                        self.consider(&path, commits_by.len() as u64);
                    }
                    steps.extend(below);
                }
                Step::Leave => {
                    let left = path.pop().and_then(|index| self.member(index));
                    if let Some(author) = left
                        && let Some(count) = commits_by.get_mut(&author)
                    {
                        *count -= 1;
                        if *count == 0 {
                            commits_by.remove(&author);
                        }
                    }
                }
            }
        }
    }

    /// Last in the log first, because the steps are a stack.
    fn enter_children(&self, state: &StateId) -> Vec<Step> {
        let children = self.children.get(state).map_or(&[][..], Vec::as_slice);
        children.iter().rev().map(|index| Step::Enter(*index)).collect()
    }

    fn member(&self, index: usize) -> Option<LeafId> {
        self.candidates[index].facts.author.filter(|author| self.members.contains(author))
    }

    fn consider(&mut self, path: &[usize], authors: u64) {
        let ticket = self.member(path[0]).map(|author| ticket(self.nonce, &author));
        let rank = Rank { authors, ticket };
        if self.best.as_ref().is_none_or(|(_, best)| rank > *best) {
            self.best = Some((path.to_vec(), rank));
        }
    }
}
