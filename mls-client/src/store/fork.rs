//! What the file remembers of a DeMLS group beside what it remembers of every group.

use std::collections::BTreeSet;

use group_log::{EntryId, StateId};
use serde::{Deserialize, Serialize};

use super::hexed;
use crate::group::{Intent, MemberId};

/// Where a client stands in a group that may have branches, and what it owes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkRecord {
    /// The state that this client acts in; empty if it stands nowhere.
    #[serde(with = "hexed")]
    current: Vec<u8>,
    /// Up to where the log said `Stable`: number of an entry.
    pub stable: u64,
    /// Who has to be removed before anything else happens.
    pub owed: Vec<OwedRemoval>,
    /// What this client did on branches that lost, and does again.
    pub again: Again,
    /// Removals that branch commits made, as this client read them itself. Forgotten with the commit.
    removals: Vec<Removal>,
    /// Number of the next message.
    pub(crate) next_message: u64,
}

/// A removal that a commit made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Removal {
    #[serde(with = "hexed")]
    commit: [u8; 32],
    by: MemberId,
    member: MemberId,
}

/// A member that has to be removed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OwedRemoval {
    /// Its leaf at the head.
    pub leaf: u32,
    /// Who it is.
    pub member: MemberId,
}

/// What was done on a branch that lost, and is to be done again by the same client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Again {
    /// Clients to add, with fresh KeyPackages.
    pub add: Vec<MemberId>,
    /// Members to remove.
    pub remove: Vec<MemberId>,
    /// Renew this client's keys.
    pub update: bool,
}

impl Again {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty() && !self.update
    }

    /// What a lost commit was meant to do is to be done again.
    pub(crate) fn take(&mut self, intent: &Intent) {
        for add in &intent.add {
            if !self.add.contains(&add.client_id) {
                self.add.push(add.client_id.clone());
            }
        }
        for remove in &intent.remove {
            if !self.remove.contains(remove) {
                self.remove.push(remove.clone());
            }
        }
        self.update = true;
    }
}

impl ForkRecord {
    /// Of a client that begins with a group, or begins anew: `next_message` is the number of its next message.
    pub(crate) fn new(next_message: u64) -> Self {
        ForkRecord { next_message, ..ForkRecord::default() }
    }

    /// The state that this client acts in.
    pub fn current(&self) -> Option<StateId> {
        StateId::from_slice(&self.current).ok()
    }

    pub(crate) fn note_removal(&mut self, commit: EntryId, by: &[u8], member: Vec<u8>) {
        let (by, member) = (MemberId(by.to_vec()), MemberId(member));
        self.removals.push(Removal { commit: commit.0, by, member });
    }

    /// Whether one of these commits removed the member, as far as they were read.
    pub(crate) fn has_removal(&self, commits: &BTreeSet<EntryId>, member: &MemberId) -> bool {
        self.removals.iter().any(|r| r.member == *member && commits.contains(&EntryId(r.commit)))
    }

    /// Forgets the removals of commits that are not known any more.
    pub(crate) fn forget_removals(&mut self, known: impl Fn(&EntryId) -> bool) {
        self.removals.retain(|removal| known(&EntryId(removal.commit)));
    }

    pub(crate) fn set_current(&mut self, state: Option<StateId>) {
        self.current = state.map(|state| state.0.to_vec()).unwrap_or_default();
    }
}
