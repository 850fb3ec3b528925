//! What can go wrong with a session, and what a session refuses.

use super::{graph::Node, records::RecordsError};
use crate::demls::DecodeError;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum DimlsError {
    /// The storage failed. The session must be opened again.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// An earlier operation could not be stored, so memory and disk differ.
    #[error("an earlier operation could not be stored; open the session again")]
    Poisoned,
    /// What was stored is not what was written.
    #[error("the stored session is damaged: {0}; restore the file, or start a new DGroup")]
    Damaged(String),
    /// No session of this DGroup is stored.
    #[error("no session of this DGroup is stored; create it with the DGroup's setup")]
    Unknown,
    /// A setup that cannot be.
    #[error("the setup of the DGroup is not usable: {0}")]
    Setup(String),
    /// This client's id is not among the members.
    #[error("this client is not a member of the DGroup; start one that names it")]
    NotMember,
    /// Bytes that do not decode.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// OpenMLS refused.
    #[error("{what} failed: {reason}")]
    Mls {
        /// What was tried.
        what: &'static str,
        /// What OpenMLS says.
        reason: String,
    },
    /// Removed members send nothing.
    #[error("this client was removed from the DGroup; ask for a new DGroup")]
    Removed,
    /// Too much waits to be sent.
    #[error("{got} items wait to be sent, the limit is {limit}; wait until a gateway can be reached")]
    OutboxFull {
        /// The limit.
        limit: usize,
        /// What waits.
        got: usize,
    },
    /// A message is too long.
    #[error("the message is {got} bytes long, the limit is {limit}; send less, or a link")]
    TooLong {
        /// The limit, in bytes.
        limit: usize,
        /// What came, in bytes.
        got: usize,
    },
    /// The policy cannot work.
    #[error("the policy is not usable: {0}")]
    Policy(&'static str),
}

impl DimlsError {
    pub(super) fn mls(what: &'static str, reason: impl std::fmt::Display) -> Self {
        DimlsError::Mls { what, reason: reason.to_string() }
    }
}

/// Why an item was not taken in. The session is as before; the owner's real item may still come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Its author is not in the DGroup.
    #[error("its author is not a member of the DGroup")]
    Stranger,
    /// This client's own stream is further than its state: the state was restored from a copy.
    #[error("it is this client's own, but this client never made it: its state was restored from a copy")]
    NotMine,
    /// It does not decode, or is of a kind that has no place here.
    #[error("it is not a message of DiMLS: {0}")]
    Malformed(String),
    /// A message in somebody else's Send Group.
    #[error("it is for another Send Group than its author's own")]
    ForeignGroup,
    /// Not the owner of the Send Group.
    #[error("expected a message of the owner (leaf 0), got one of {0}")]
    NotOwner(String),
    /// A key that is not the one this member began with.
    #[error("its signature key or identity is not the one that the member began with")]
    OtherKey,
    /// An epoch that is over, or a PSK older than one that the owner has already taken in.
    #[error("it repeats what is past: {0}")]
    Replayed(String),
    /// What the commit says beside the proposals is not what it does.
    #[error("the commit does something else than it says: {0}")]
    Lies(&'static str),
    /// OpenMLS refused.
    #[error("openmls refused it: {0}")]
    Mls(String),
    /// It cannot be read in the state that is held.
    #[error("this client is not in that Send Group now")]
    NotJoined,
    /// It needs a PSK that this client can never have.
    #[error("it needs the PSK of epoch {} of member {}, which this client does not have", .0.epoch, .0.owner)]
    NeverHeld(Node),
}
