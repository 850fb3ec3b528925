//! What can go wrong, and what to do about it.

use concordat_proto::log::v1::Reason;
use group_log::ChainError;

use crate::{store::StoreError, transport::CallError};

/// Why an operation failed. What is stored stays consistent; an operation whose outcome is unknown can be resumed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The gateway refused, or could not be reached.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The log does not fit together.
    #[error("the log was rejected: {0}")]
    Log(#[from] ChainError),
    /// The gateway answered something that cannot be.
    #[error("the gateway broke the protocol: {0}; compare its version with this client's")]
    Protocol(String),
    /// OpenMLS refused.
    #[error("{what} failed: {reason}")]
    Mls {
        /// What was tried.
        what: &'static str,
        /// What OpenMLS says.
        reason: String,
    },
    /// The state file holds no identity.
    #[error("the state file holds no identity; make one with `mls-client identity NAME`")]
    NoIdentity,
    /// This client has no such group.
    #[error("this client has no such group; see `mls-client status` for those that it has")]
    UnknownGroup,
    /// This client has such a group already.
    #[error("this client has that group already; use it, or choose another group id")]
    GroupExists,
    /// This client is not a member.
    #[error("this client is not a member of the group: {0}")]
    NotMember(String),
    /// The client cannot follow the group.
    #[error(
        "the commit in entry {seq} could not be processed ({reason}); rejoin the group with `mls-client rejoin`"
    )]
    Stuck {
        /// The commit's entry.
        seq: u64,
        /// Why it could not be processed.
        reason: String,
    },
    /// The client is leaving.
    #[error(
        "this client has asked to leave the group, and only other members can go on; wait for them to commit it"
    )]
    Leaving,
    /// MLS has no commit that removes its own author.
    #[error("a member cannot remove itself by a commit; use `leave`")]
    CannotRemoveSelf,
    /// A KeyPackage is not the one that was asked for.
    #[error("the KeyPackage is of another client than the one that was asked for; do not trust this gateway")]
    ForeignKeyPackage,
    /// Others were faster, every time.
    #[error("others committed first {attempts} times in a row; try again when the group is quieter")]
    Contention {
        /// How often it was tried.
        attempts: u32,
    },
    /// A message is too long.
    #[error("the message is {got} bytes long, the limit is {limit}; send less, or a link")]
    TooLong {
        /// The limit, in bytes.
        limit: usize,
        /// What came, in bytes.
        got: usize,
    },
    /// Too much waits.
    #[error(
        "{got} messages of this group wait to be sent, the limit is {limit}; wait until the gateway can be reached"
    )]
    OutboxFull {
        /// The limit.
        limit: usize,
        /// What waits.
        got: usize,
    },
    /// One change of a group is too big.
    #[error("a change may name {limit} members, this one names {got}; split it")]
    IntentTooLarge {
        /// The limit.
        limit: usize,
        /// What came.
        got: usize,
    },
    /// A state of a DeMLS group.
    #[error(transparent)]
    Demls(Box<crate::demls::DemlsError>),
    /// A gateway demands that somebody be removed whom no branch removed.
    #[error(
        "the gateway demands that {member} be removed first, but no branch that was read removes it; do not trust this gateway"
    )]
    UnfoundedRemoval {
        /// The member, in hex.
        member: String,
    },
    /// What the group owes comes first.
    #[error(
        "members that a lost branch removed have to be removed first, which others do; synchronize, and try again"
    )]
    RemovalsFirst,
    /// A bad argument.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// What comes after this client's place in a log was given up.
    pub(crate) fn is_pruned(&self) -> bool {
        matches!(self, Error::Call(CallError { reason: Some(Reason::Pruned), .. }))
    }
}

impl From<crate::demls::DemlsError> for Error {
    fn from(error: crate::demls::DemlsError) -> Self {
        Error::Demls(Box::new(error))
    }
}

impl Error {
    pub(crate) fn mls(what: &'static str, reason: impl std::fmt::Display) -> Self {
        Error::Mls { what, reason: reason.to_string() }
    }

    /// Whether the same operation may succeed later without anybody doing anything else.
    pub fn is_temporary(&self) -> bool {
        match self {
            Error::Call(call) => call.is_temporary(),
            Error::Contention { .. } | Error::OutboxFull { .. } | Error::RemovalsFirst => true,
            _ => false,
        }
    }
}
