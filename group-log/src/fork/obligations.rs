//! Removals first: what a losing branch removed must be removed before the group goes on, so that a removed member can not come back
//! by provoking a split.

use crate::fork::{
    draft::{Draft, Read},
    facts::CommitFacts,
    state::ForkState,
    view::ForkView,
};

/// The commit removes everybody who is owed a removal, and its author is not one of them.
pub fn covers(fork: &ForkState, facts: &CommitFacts) -> bool {
    fork.owed.iter().all(|leaf| facts.removes.contains(leaf) && facts.author != Some(*leaf))
}

/// A canonical commit has carried out some.
pub(super) fn settle(fork: &mut ForkState, facts: &CommitFacts) {
    for leaf in &facts.removes {
        fork.owed.remove(leaf);
    }
}

/// A commit went to the side. Whom it removed is owed a removal if both it and the author are still the members they were, and
/// somebody who is not owed one would be left. Two who removed each other both go.
pub(super) fn add<V: ForkView>(draft: &mut Draft<'_, V>, facts: &CommitFacts) -> Read<(), V> {
    let Some(author) = facts.author else { return Ok(()) };
    if !draft.is_member(&author)? {
        return Ok(());
    }
    for leaf in &facts.removes {
        let one_would_be_left = draft.fork.owed.len() as u64 + 1 < draft.fork.members;
        if one_would_be_left && draft.is_member(leaf)? {
            draft.fork.owed.insert(*leaf);
        }
    }
    Ok(())
}
