//! What the fork rules read beside [`View`], and what they change.

use std::collections::BTreeMap;

use crate::{
    content::Content,
    fork::{
        facts::LeafId,
        marks::Mark,
        state::{Candidate, ForkState, Recorded},
    },
    ids::EntryId,
    rules::Change,
    view::View,
};

/// The stored state of one DeMLS group. Every call but `candidates` is one lookup.
pub trait ForkView: View {
    /// The group's fork state; the default if nothing was stored.
    fn fork(&self) -> Result<ForkState, Self::Error>;

    /// What the log says about an entry, or about the state of the create.
    fn recorded(&self, id: &EntryId) -> Result<Option<Recorded>, Self::Error>;

    /// An entry that waits for the close.
    fn candidate(&self, id: &EntryId) -> Result<Option<Candidate>, Self::Error>;

    /// All entries that wait for the close, by ordinal. Read once in a close.
    fn candidates(&self) -> Result<Vec<Candidate>, Self::Error>;

    /// The payload of an entry that waits for the close.
    fn candidate_content(&self, id: &EntryId) -> Result<Option<Content>, Self::Error>;

    /// The leaf is a member at the head.
    fn is_member(&self, leaf: &LeafId) -> Result<bool, Self::Error>;
}

/// What one command changes. To be stored at once, all or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForkChange {
    /// New entries of the canonical log, in order.
    pub appended: Vec<Appended>,
    /// The new fork state, if it is another one.
    pub fork: Option<ForkState>,
    /// For [`ForkView::recorded`]. Never deleted, never overwritten.
    pub recorded: BTreeMap<EntryId, Recorded>,
    /// Every candidate is dropped (before new ones are added). Their payloads stay: the log refers to them.
    pub candidates_cleared: bool,
    /// New candidates.
    pub candidates: Vec<Candidate>,
    /// Entries of the report whose payload must be kept, each with its position there: all that were not known.
    pub kept: BTreeMap<EntryId, usize>,
    /// For [`ForkView::is_member`]: leaves that are members now (true) or no longer (false).
    pub members: BTreeMap<LeafId, bool>,
}

/// A new entry of the canonical log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// What to store for it.
    pub change: Change,
    /// Where its payload is.
    pub payload: Payload,
}

/// Where the payload of a new entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// In the submission that is being applied.
    Submission,
    /// In a report, now or earlier: that of the entry with this id.
    Reported(EntryId),
    /// There is none but this.
    Mark(Mark),
}
