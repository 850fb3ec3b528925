//! The replicated state of a DeMLS group beside its head, and what is kept of each entry of a branch.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    content::{Content, EntryKind},
    fork::facts::{CommitFacts, GatewayId, LeafId, content_size},
    hash::entry_id,
    ids::{ClientId, EntryId, StateId},
    limits::BRANCH_ENTRY_OVERHEAD_BYTES,
};

/// Small, and rewritten as a whole with every change. Everything that grows is kept in rows of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForkState {
    /// Nobody can still come with something made before the state after this entry, unless it was evicted.
    pub stable: u64,
    /// The epoch after the entry `stable`.
    pub stable_epoch: u64,
    /// Registered gateways: those that `Stable` waits for.
    pub gateways: BTreeMap<GatewayId, Registration>,
    /// Registrations that have ended so far, by release or eviction.
    pub departures: u64,
    /// Members that must be removed before anything else happens.
    pub owed: BTreeSet<LeafId>,
    /// Known members at the head.
    pub members: u64,
    /// Present while reports are being collected.
    pub collecting: Option<Collecting>,
    /// Collections opened so far.
    pub collections: u64,
    /// Numbers of Side and Late entries above `stable`.
    pub pending_marks: BTreeSet<u64>,
}

/// A gateway that is registered for a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registration {
    /// [`ForkState::departures`] when it began: no two registrations of one gateway have the same, so what was sent in an earlier one
    /// and arrives late changes nothing.
    pub number: u64,
    /// The position that the gateway has acknowledged since, or the stable one when it began.
    pub acknowledged: u64,
}

/// A collection of reports, from the first candidate to the close.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collecting {
    /// Counts the collections of this group from 1, so that a close ends the one it was meant for.
    pub number: u64,
    /// Gateways that have reported since it began.
    pub reported: BTreeSet<GatewayId>,
    /// Candidates so far.
    pub candidates: u32,
}

impl ForkState {
    /// A collection is open and every one of these gateways, as far as it is registered, has reported: the leader may close it
    /// without waiting for the deadline.
    pub fn ready_to_close<'a>(&self, mut live: impl Iterator<Item = &'a GatewayId>) -> bool {
        self.collecting.as_ref().is_some_and(|collecting| {
            live.all(|gateway| !self.gateways.contains_key(gateway) || collecting.reported.contains(gateway))
        })
    }

    /// The least position that a registered gateway has acknowledged.
    pub fn least_acknowledged(&self) -> Option<u64> {
        self.gateways.values().map(|registration| registration.acknowledged).min()
    }

    /// A commit or a side branch lies above this position, after which the epoch was `epoch_after`: whoever has acknowledged no more
    /// keeps it from becoming stable.
    pub(super) fn is_held_back(&self, acknowledged: u64, epoch_after: u64, head_epoch: u64) -> bool {
        epoch_after < head_epoch
            || self.pending_marks.range(acknowledged.saturating_add(1)..).next().is_some()
    }

    /// Registered gateways whose acknowledgement is missing for something in the log to become stable. `head_epoch` is the group's
    /// epoch, `epoch_after` gives the epoch after an entry.
    pub fn holding_back<E>(
        &self,
        head_epoch: u64,
        mut epoch_after: impl FnMut(u64) -> Result<u64, E>,
    ) -> Result<Vec<GatewayId>, E> {
        let mut found = Vec::new();
        for (gateway, Registration { acknowledged, .. }) in &self.gateways {
            if self.is_held_back(*acknowledged, epoch_after(*acknowledged)?, head_epoch) {
                found.push(*gateway);
            }
        }
        Ok(found)
    }
}

/// An entry that gateways accepted without a quorum. Its id is computed, never claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchEntry {
    /// The state it was made in.
    pub parent: StateId,
    /// The authenticated submitter.
    pub author: ClientId,
    /// A commit, a proposal or an application message.
    pub content: Content,
    /// For a commit, what it does to the membership.
    pub facts: CommitFacts,
}

impl BranchEntry {
    /// Its id. For a commit, the state it leads to.
    pub fn id(&self) -> EntryId {
        entry_id(&self.parent, &self.content)
    }

    /// What it counts for against [`MAX_REPORT_BYTES`](crate::limits::MAX_REPORT_BYTES), in bytes.
    pub fn size(&self) -> usize {
        content_size(&self.content) + self.facts.size() + BRANCH_ENTRY_OVERHEAD_BYTES
    }

    /// It is a commit.
    pub fn is_commit(&self) -> bool {
        self.content.kind() == EntryKind::Commit
    }
}

/// A reported entry that waits for the close. Its payload is kept apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub id: EntryId,
    /// Its place among the candidates of this collection, from 0, in the order of the log.
    pub ordinal: u32,
    /// Commit, proposal or application message.
    pub kind: EntryKind,
    /// The state it was made in.
    pub parent: StateId,
    /// The epoch it was made in.
    pub epoch: u64,
    /// The authenticated submitter.
    pub author: ClientId,
    /// For a commit, what it does to the membership.
    pub facts: CommitFacts,
}

/// What the log says about an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It is in the canonical chain. Kept for the state of the create, too.
    Canonical {
        /// Number of its entry.
        seq: u64,
        /// For a commit, the epoch it leads to; for others, the epoch they were made in.
        epoch: u64,
        /// The id is that of a state: a commit's or the create's, not a message's.
        is_state: bool,
    },
    /// It is on the side, or was late.
    Dead(Dead),
}

/// An entry that can never become canonical, and nothing that follows it either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dead {
    /// Number of the entry that says so.
    pub seq: u64,
    /// It was late.
    pub late: bool,
    /// The least `seq` of itself and of its dead ancestors.
    pub oldest: u64,
    /// Epoch of its nearest canonical ancestor.
    pub anchor_epoch: u64,
    /// The epoch it leads to (a commit) or was made in.
    pub epoch: u64,
    /// It is a commit, so that its id is that of a state.
    pub is_state: bool,
}
