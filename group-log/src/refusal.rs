//! Why a submission can not be accepted. Every reason carries what was expected and what came.

use crate::{
    content::EntryKind,
    ids::{EntryId, StateId},
};

/// The submission is in no log and will be in none, unless what the reason names changes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No group has this id.
    #[error("the group does not exist: create it first, or check its id")]
    GroupNotFound,
    /// Another group has this id.
    #[error("the group id is taken by another group: choose another id")]
    GroupExists {
        /// Id of the create that holds the name.
        expected: EntryId,
        /// Id of the create that came.
        got: EntryId,
    },
    /// The group was closed.
    #[error("the group was closed by entry {closed_seq}: create a new group")]
    GroupClosed {
        /// Number of the entry that closed it.
        closed_seq: u64,
    },
    /// Made for an epoch that the group has not reached.
    #[error(
        "the message is for epoch {got}, but the group is at epoch {head_epoch}: read the log, then make it again"
    )]
    EpochAhead {
        /// The group's epoch.
        head_epoch: u64,
        /// The epoch that came.
        got: u64,
    },
    /// Made for an epoch that is no longer accepted.
    #[error(
        "the message is for epoch {got}, but only epochs {oldest} to {head_epoch} are accepted: make it again in the current epoch"
    )]
    EpochTooOld {
        /// The oldest epoch accepted for such a message.
        oldest: u64,
        /// The group's epoch.
        head_epoch: u64,
        /// The epoch that came.
        got: u64,
    },
    /// Made for an accepted epoch, but for another state of it.
    #[error(
        "the message was made in state {got}, but in that epoch the group is in state {expected}: read the log, then make it again"
    )]
    WrongState {
        /// The group's state in that epoch.
        expected: StateId,
        /// The state that came.
        got: StateId,
    },
    /// A commit in another member's turn.
    #[error(
        "it is the turn of member {holder} of the order, for {left_ms} ms more at most: submit the same bytes again when yours has \
         come, or make the commit again if the group has moved on"
    )]
    NotYourTurn {
        /// Place in the order of the client whose turn it is.
        holder: u32,
        /// How much longer that turn lasts if nobody commits, in milliseconds.
        left_ms: u64,
        /// How long until the author's own turn if nobody commits, in milliseconds; of an author that is not in the order, until the next
        /// turn. A turn ends early by a commit, which decides this one, or by a change of the policy: both are in the log.
        retry_after_ms: u64,
    },
    /// Longer than allowed.
    #[error("{field} is {got} long, the limit is {limit}: send less")]
    TooLarge {
        /// What is too long.
        field: &'static str,
        /// The limit: bytes, or items where the field is a list.
        limit: u64,
        /// What came.
        got: u64,
    },
    /// A field has a value that can not be.
    #[error("{field} of a {kind} must be {expected}, got {got}", kind = kind.name())]
    Malformed {
        /// What was submitted.
        kind: EntryKind,
        /// The field.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        got: &'static str,
    },
    /// An epoch beyond [`MAX_EPOCH`](crate::limits::MAX_EPOCH).
    #[error("epoch {got} is beyond the highest epoch {limit}: create a new group")]
    EpochOutOfRange {
        /// The highest epoch.
        limit: u64,
        /// The epoch that came.
        got: u64,
    },
    /// A policy value is outside its bounds.
    #[error("{field} must be {min} to {max}, got {got}")]
    PolicyInvalid {
        /// The value's name.
        field: &'static str,
        /// Lowest value allowed.
        min: u64,
        /// Highest value allowed.
        max: u64,
        /// The value that came.
        got: u64,
    },
}
