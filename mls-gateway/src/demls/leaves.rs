//! Which membership sits on which leaf of a state. The rules name memberships; commits and clients count leaves.

use std::collections::{BTreeMap, BTreeSet};

use group_log::{
    StateId,
    fork::{CommitFacts, LeafId},
};

use super::store::StoreError;
use crate::{limits::LEAF_INDEX_MAX, mls::Membership};

/// The occupied leaves of a state's tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaves(BTreeMap<u32, LeafId>);

impl Leaves {
    /// The first members of a group that begins in `state`.
    pub fn first(state: &StateId, indices: impl IntoIterator<Item = u32>) -> Self {
        Self(indices.into_iter().map(|index| (index, LeafId::new(state, index))).collect())
    }

    /// What a commit that leads to `state` does, in the words of the rules; nothing if it names a leaf that is not there.
    pub fn facts(&self, commit: &Membership, state: &StateId) -> Option<CommitFacts> {
        let author = match commit.author {
            Some(index) => Some(*self.0.get(&index)?),
            None => None,
        };
        let removes = commit.removes.iter().map(|index| self.0.get(index).copied()).collect::<Option<_>>()?;
        // RFC 9420 section 7.7: a new member takes the leftmost empty leaf; removals of the same commit come first.
        let is_free = |index: &u32| !self.0.contains_key(index) || commit.removes.contains(index);
        let adds = (0..LEAF_INDEX_MAX).filter(is_free).take(commit.adds);
        Some(CommitFacts { author, removes, adds: adds.map(|index| LeafId::new(state, index)).collect() })
    }

    /// The leaves after a commit that leads to `state`; nothing if its facts do not fit. For a create, what comes before is empty.
    pub fn after(mut self, facts: &CommitFacts, state: &StateId) -> Option<Self> {
        let is_known = facts.author.is_some() || !facts.adds.is_empty();
        let removes: BTreeSet<_> = facts.removes.iter().collect();
        let before = self.0.len();
        self.0.retain(|_, leaf| !removes.contains(leaf));
        if !is_known || self.0.len() + removes.len() != before {
            return None;
        }
        let mut wanted: BTreeSet<_> = facts.adds.iter().copied().collect();
        for index in 0..LEAF_INDEX_MAX {
            if wanted.is_empty() {
                break;
            }
            let leaf = LeafId::new(state, index);
            if wanted.remove(&leaf) && self.0.insert(index, leaf).is_some() {
                return None;
            }
        }
        wanted.is_empty().then_some(self)
    }

    /// Every membership.
    pub fn all(&self) -> Vec<LeafId> {
        self.0.values().copied().collect()
    }

    /// Where memberships sit; those that are not members here are left out.
    pub fn indices<'l>(&self, leaves: impl IntoIterator<Item = &'l LeafId>) -> Vec<u32> {
        let wanted: BTreeSet<_> = leaves.into_iter().collect();
        self.0.iter().filter(|(_, leaf)| wanted.contains(leaf)).map(|(index, _)| *index).collect()
    }

    /// For storage: 36 bytes for each.
    pub fn encode(&self) -> Vec<u8> {
        self.0.iter().flat_map(|(index, leaf)| index.to_be_bytes().into_iter().chain(leaf.0)).collect()
    }

    /// Reads [`Leaves::encode`].
    pub fn decode(row: &[u8]) -> Result<Self, StoreError> {
        let (rows, rest) = row.as_chunks::<36>();
        if !rest.is_empty() {
            return Err(StoreError::damaged("the leaves", "a row is cut off"));
        }
        let leaves = rows.iter().map(|row| {
            let ([a, b, c, d], leaf) = (row.first_chunk::<4>().copied().unwrap_or_default(), &row[4..]);
            let leaf = LeafId(leaf.try_into().unwrap_or_default());
            (u32::from_be_bytes([a, b, c, d]), leaf)
        });
        Ok(Self(leaves.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: StateId = StateId([1; 32]);
    const B: StateId = StateId([2; 32]);
    const C: StateId = StateId([3; 32]);

    #[test]
    fn a_new_member_takes_the_leftmost_leaf_that_is_empty_after_the_removals() {
        let leaves = Leaves::first(&A, [0, 1, 3]);
        let commit = Membership { author: Some(0), removes: [1].into(), adds: 3 };
        let facts = leaves.facts(&commit, &B).unwrap();
        assert_eq!(facts.author, Some(LeafId::new(&A, 0)));
        assert_eq!(facts.removes, [LeafId::new(&A, 1)]);
        assert_eq!(facts.adds, [1, 2, 4].map(|index| LeafId::new(&B, index)));
        let after = leaves.clone().after(&facts, &B).unwrap();
        let expected = [(0, A), (1, B), (2, B), (3, A), (4, B)];
        assert_eq!(after, Leaves(expected.map(|(index, state)| (index, LeafId::new(&state, index))).into()));
        assert_eq!(Leaves::decode(&after.encode()).unwrap(), after);
        assert_eq!(after.indices(&[LeafId::new(&B, 4), LeafId::new(&A, 1), LeafId::new(&A, 3)]), [3, 4]);
    }

    #[test]
    fn a_leaf_is_a_membership_and_not_a_place() {
        let leaves = Leaves::first(&A, [0, 1]);
        let remove = Membership { author: Some(0), removes: [1].into(), adds: 0 };
        let gone = leaves.clone().after(&leaves.facts(&remove, &B).unwrap(), &B).unwrap();
        let add = Membership { author: Some(0), removes: BTreeSet::new(), adds: 1 };
        let back = gone.clone().after(&gone.facts(&add, &C).unwrap(), &C).unwrap();
        assert_eq!(back.0[&1], LeafId::new(&C, 1));
        assert_ne!(back, leaves);
    }

    #[test]
    fn facts_that_do_not_fit_leave_nothing_known() {
        let leaves = Leaves::first(&A, [0, 1]);
        assert_eq!(leaves.facts(&Membership { author: Some(7), ..Membership::default() }, &B), None);
        assert_eq!(leaves.clone().after(&CommitFacts::default(), &B), None, "a private commit");
        let author = Some(LeafId::new(&A, 0));
        let stranger = CommitFacts { author, removes: vec![LeafId([9; 32])], adds: Vec::new() };
        assert_eq!(leaves.clone().after(&stranger, &B), None);
        let taken = CommitFacts { author, removes: Vec::new(), adds: vec![LeafId::new(&B, 1)] };
        assert_eq!(leaves.after(&taken, &B), None, "the leaf is not empty");
    }
}
