//! What comes back from a command.

use crate::{
    content::GroupKind,
    fork::facts::LeafId,
    ids::{EntryId, StateId},
    refusal::Refusal,
    rules::Decision,
};

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A submission was decided, as in a group without branches.
    Decided(Decision),
    /// Branches are being brought together: submit the same bytes again soon. Not an outcome, and never remembered.
    Retry,
    /// These members must be removed before anything else: make another commit that does it. Not an outcome, and never remembered
    /// for the bytes that got it.
    RemoveFirst {
        /// Whom the next commit must remove.
        owed: Vec<LeafId>,
    },
    /// The submission is in the log, but on a branch that lost. Forever.
    OnSide {
        /// Number of the Side or Late entry that says so.
        seq: u64,
        /// It was late.
        late: bool,
    },
    /// A report was taken in.
    Reported {
        /// Entries of it that were not known before.
        new: u64,
        /// The collection that is open now, if any.
        collecting: Option<u64>,
    },
    /// A collection was closed.
    Closed {
        /// Entries of branches that are canonical now.
        adopted: u64,
        /// Entries that went to the side.
        sides: u64,
    },
    /// The collection that was to be closed is not open (any more).
    NotOpen,
    /// The gateway is registered, now or since before.
    Registered {
        /// The stable position now.
        stable: u64,
        /// [`Registration::number`](super::Registration::number), which acknowledgements and the release must name.
        registration: u64,
    },
    /// An acknowledgement, release or eviction was taken in.
    Gateways {
        /// The stable position now.
        stable: u64,
    },
    /// The command can not be carried out; nothing changed.
    Rejected(Rejection),
}

/// Why a report or a word about gateways was not taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// No group has this id.
    #[error("the group does not exist: check its id")]
    GroupNotFound,
    /// The group has no branches.
    #[error("only DeMLS groups have branches, and this group is {got:?}: do not report on it")]
    WrongKind {
        /// The group's kind.
        got: GroupKind,
    },
    /// An entry follows from one that nobody knows: a gap, or a fork point that never was.
    #[error(
        "entry {entry} was made in state {parent}, which is neither in the log nor in the report: report its ancestors with it"
    )]
    Gap {
        /// The entry.
        entry: EntryId,
        /// The unknown state.
        parent: StateId,
    },
    /// Too many entries in one report.
    #[error("one report has {got} entries, the limit is {limit}: report them in parts")]
    TooMany {
        /// The limit.
        limit: u64,
        /// What came.
        got: u64,
    },
    /// The group holds as many as it may.
    #[error("{what}: {got}, the limit is {limit}: try again later")]
    Full {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: u64,
        /// What there would be.
        got: u64,
    },
    /// An entry could not have been accepted by anybody.
    #[error("entry {entry} can not be on a branch: {refusal}")]
    Impossible {
        /// The entry.
        entry: EntryId,
        /// Why.
        refusal: Refusal,
    },
    /// The gateway has acknowledged what is not there.
    #[error("position {got} is beyond the last entry {head_seq}: the gateway has followed another log")]
    PositionAhead {
        /// The last entry.
        head_seq: u64,
        /// The position that came.
        got: u64,
    },
    /// The gateway is not registered.
    #[error("the gateway is not registered, or not any more: register it again")]
    NotRegistered,
    /// Gateways have departed that the one that registers has not heard of.
    #[error(
        "{departures} registrations of the group have ended, but {got} were named: register again and name {departures}"
    )]
    Overtaken {
        /// How many have ended.
        departures: u64,
        /// How many were named.
        got: u64,
    },
    /// The gateway may not let go of the group yet.
    #[error(
        "the gateway has acknowledged entries up to {got}, and a commit or a branch lies above: acknowledge up to {head_seq} before the release"
    )]
    NotAcknowledged {
        /// The last entry.
        head_seq: u64,
        /// What was acknowledged.
        got: u64,
    },
    /// The gateway does not have enough of the log to be registered.
    #[error("the gateway has the log up to {got}, but must have it up to {stable} before it is registered")]
    NotFollowed {
        /// The stable position.
        stable: u64,
        /// The position that came.
        got: u64,
    },
}
