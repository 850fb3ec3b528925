//! `Stable`: everybody has read up to a position, so what does not descend from there is not needed any more.

use std::collections::BTreeSet;

use group_log::StateId;

use super::{follow::NOWHERE, work::BranchWork};
use crate::{demls::states::StateChange, error::Error, event::EventKind, store::branch_entries};

impl BranchWork<'_> {
    /// Deletes states (own pending ones among them) that do not descend from the state after entry `position`, and those that the
    /// log had put aside by then; and forgets what the log had decided by then.
    pub(super) fn settle_up_to(&mut self, position: u64) -> Result<(), Error> {
        let Some(head) = self.head_at(position) else {
            // This client has begun after that position, and keeps nothing from before.
            self.fork.stable = self.fork.stable.max(position);
            return Ok(());
        };
        let dead = |state: &StateId| {
            let verdict = self.nodes.get(state).and_then(|node| node.verdict);
            verdict.is_some_and(|verdict| verdict.dead && verdict.seq <= position)
        };
        let gone: BTreeSet<_> = self
            .states
            .ids()
            .filter(|state| self.line(state).any(|at| dead(&at)))
            .chain(
                self.states
                    .ids()
                    .filter(|state| !self.descends(state, &head) && self.is_placed(state, position)),
            )
            .collect();
        let deleted = gone.len();
        self.store(gone.iter().copied().fold(StateChange::new(), StateChange::delete))?;
        branch_entries::forget_decided(self.db, &self.group, position, &head)?;
        // Own commits that nobody ever accepted.
        let unheard: Vec<_> = self
            .nodes
            .values()
            .filter(|node| node.verdict.is_none() && !node.processed && gone.contains(&node.id.as_state()))
            .map(|node| node.id)
            .collect();
        for id in unheard {
            branch_entries::forget(self.db, &self.group, &id)?;
        }
        self.nodes = branch_entries::commits(self.db, &self.group)?;
        let nodes = &self.nodes;
        self.fork.forget_removals(|commit| nodes.contains_key(&commit.as_state()));
        self.fork.stable = position;
        if deleted > 0 {
            self.events.push(EventKind::StatesDeleted { position, deleted });
        }
        Ok(())
    }

    /// It is known where the state comes from. Whoever was added on a branch learns that from the log, or from the branch.
    fn is_placed(&self, state: &StateId, position: u64) -> bool {
        self.line(state).all(|at| match self.nodes.get(&at) {
            Some(node) => {
                node.parent != NOWHERE || node.verdict.is_some_and(|verdict| verdict.seq <= position)
            }
            None => true,
        })
    }

    /// The canonical state after an entry, if this client knows it.
    fn head_at(&self, position: u64) -> Option<StateId> {
        let canonical = self.nodes.values().filter_map(|node| {
            let verdict = node.verdict.filter(|verdict| !verdict.dead && verdict.seq <= position)?;
            Some((verdict.seq, node.id.as_state()))
        });
        canonical.max().map(|(_, state)| state)
    }
}
