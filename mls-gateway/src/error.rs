//! Everything that a call can fail with, and the only place that maps it to a gRPC status.

use std::time::Duration;

use concordat_proto::{
    convert::WireError,
    log::v1::{Reason, Refused},
};
use group_log::ChainHash;
use service_kit::status::{StatusBuilder, StatusFacts};
use tonic::{Code, Status};

use crate::{
    limits::{
        NO_QUORUM_RETRY_AFTER, OUTCOME_UNKNOWN_RETRY_AFTER, OVERLOADED_RETRY_AFTER, RECONCILING_RETRY_AFTER,
    },
    mls::{CommitInvalid, ParseError},
};

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GatewayError {
    /// An MLS message is not what it has to be.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// A field of the request is missing or impossible.
    #[error("{field} must be {expected}, got {got}")]
    BadField {
        /// Name of the field, as in the .proto file.
        field: &'static str,
        /// What it has to be.
        expected: String,
        /// What came.
        got: String,
    },
    /// No member could process the commit or the proposal.
    #[error(transparent)]
    CommitInvalid(#[from] CommitInvalid),
    /// The message is for an epoch that the group has not reached.
    #[error(
        "the message is for epoch {got}, but the group is in epoch {head_epoch}; catch up with the group's log"
    )]
    EpochAhead {
        /// The group's epoch.
        head_epoch: u64,
        /// The message's epoch.
        got: u64,
    },
    /// The newest GroupInfo is older than the head.
    #[error(
        "the newest GroupInfo is for epoch {got}, but the group is in epoch {head_epoch}; \
         ask a member to commit with a GroupInfo"
    )]
    GroupInfoBehind {
        /// The group's epoch.
        head_epoch: u64,
        /// The GroupInfo's epoch.
        got: u64,
    },
    /// No such group.
    #[error("no group has this id; create it first")]
    GroupNotFound,
    /// The cluster's rules refused it.
    #[error("{}", .0.message)]
    Refused(Refused),
    /// The caller did not say who it is.
    #[error("{0}")]
    Unauthenticated(String),
    /// The caller is somebody, but may not do this.
    #[error("{0}")]
    Denied(String),
    /// A quota is used up.
    #[error("{what} is used up ({limit}); try again after the hinted delay")]
    Quota {
        /// Whose quota of what.
        what: &'static str,
        /// Its value, with its unit.
        limit: String,
        /// When there is enough again.
        retry_after: Duration,
    },
    /// Nothing can be ordered now.
    #[error("no quorum orders this group now; the message is in no log; try again")]
    NoQuorum,
    /// Nothing can be ordered now, and this gateway may not go on without.
    #[error(
        "no quorum orders this group now, and this gateway was not registered for the group when the quorum was lost, so it may not \
         accept anything on a branch; the message is in no log; go to a gateway that this group was used at before, or try again"
    )]
    MayNotFork,
    /// No node of the cluster answered.
    #[error("no ordering node could answer ({0}); try again")]
    Unreachable(String),
    /// The submission may or may not have been accepted.
    #[error("the outcome is not known; submit the same bytes again to learn it")]
    OutcomeUnknown,
    /// A bound is reached.
    #[error("{what} is at its limit of {limit}; try again later")]
    Overloaded {
        /// Which bound.
        what: &'static str,
        /// Its value.
        limit: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// The gateway is stopping.
    #[error("this gateway is stopping; go on with another one, from the last cursor")]
    Stopping,
    /// A log did not have the hashes that its entries give.
    #[error("the log that a node showed does not fit its hashes ({0}); it was not passed on")]
    LogMismatch(String),
    /// Branches are being brought together.
    #[error("branches of this group are being brought together; submit the same bytes again in a moment")]
    Reconciling,
    /// The gateway can not trust its storage.
    #[error("{0}")]
    Storage(String),
    /// DeMLS and DiMLS groups need a disk.
    #[error(
        "this gateway keeps no data, so it serves no DeMLS and no DiMLS groups; start it with --data-dir"
    )]
    NoStorage,
    /// The caller may not do this.
    #[error("{0}")]
    NotYours(&'static str),
    /// A node answered with something that does not answer the question.
    #[error(
        "an ordering node gave an answer that does not fit ({0}); check that all services run the same version"
    )]
    Protocol(&'static str),
}

impl GatewayError {
    /// A bound of the gateway itself is reached.
    pub fn overloaded(what: &'static str, limit: impl ToString) -> Self {
        Self::Overloaded { what, limit: limit.to_string(), retry_after: OVERLOADED_RETRY_AFTER }
    }

    /// The caller may not do this; `message` says why and what to do.
    pub fn denied(message: impl Into<String>) -> Self {
        Self::Denied(message.into())
    }

    /// A request field that cannot be.
    pub(crate) fn bad_wire(error: WireError) -> Self {
        Self::bad_field(error.field, error.expected, error.got)
    }

    /// A request field that cannot be.
    pub fn bad_field(field: &'static str, expected: impl Into<String>, got: impl ToString) -> Self {
        Self::BadField { field, expected: expected.into(), got: got.to_string() }
    }

    /// The machine-readable reason.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Parse(error) => error.reason(),
            Self::BadField { .. } => Reason::Malformed,
            Self::CommitInvalid(error) => error.reason(),
            Self::EpochAhead { .. } => Reason::EpochAhead,
            Self::GroupInfoBehind { .. } => Reason::GroupInfoBehind,
            Self::GroupNotFound => Reason::GroupNotFound,
            Self::Refused(refused) => refused.reason(),
            Self::Unauthenticated(_) => Reason::Unauthenticated,
            Self::Denied(_) => Reason::PermissionDenied,
            Self::Quota { .. } => Reason::Quota,
            Self::NoQuorum | Self::Unreachable(_) | Self::Stopping => Reason::NoQuorum,
            Self::MayNotFork => Reason::MayNotFork,
            Self::OutcomeUnknown => Reason::OutcomeUnknown,
            Self::Overloaded { .. } => Reason::Overloaded,
            Self::Reconciling => Reason::Reconciling,
            Self::NoStorage => Reason::WrongKind,
            Self::NotYours(_) => Reason::PermissionDenied,
            Self::LogMismatch(_) | Self::Protocol(_) | Self::Storage(_) => Reason::Storage,
        }
    }

    /// If what was asked for was given up: the first entry that is left.
    pub fn oldest_kept(&self) -> Option<u64> {
        match self {
            Self::Refused(refused) if refused.reason() == Reason::Pruned => {
                refused.metadata.get("oldest_seq").and_then(|seq| seq.parse().ok())
            }
            _ => None,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::NoQuorum | Self::MayNotFork | Self::Unreachable(_) | Self::Stopping => {
                Some(NO_QUORUM_RETRY_AFTER)
            }
            Self::OutcomeUnknown => Some(OUTCOME_UNKNOWN_RETRY_AFTER),
            Self::Reconciling => Some(RECONCILING_RETRY_AFTER),
            // Another member's turn: the node that refused knows how long it may last.
            Self::Refused(refused) => {
                let ms = refused.metadata.get("retry_after_ms").and_then(|ms| ms.parse().ok());
                ms.map(Duration::from_millis)
            }
            Self::Overloaded { retry_after, .. } | Self::Quota { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }

    fn facts(&self) -> Vec<(String, String)> {
        let fact = |key: &str, value: &dyn ToString| (key.to_owned(), value.to_string());
        match self {
            Self::Parse(error) => error.facts(),
            Self::BadField { field, expected, got } => {
                vec![fact("field", field), fact("expected", expected), fact("got", got)]
            }
            Self::CommitInvalid(error) => vec![fact("detail", &error.detail)],
            Self::EpochAhead { head_epoch, got } | Self::GroupInfoBehind { head_epoch, got } => {
                vec![fact("head_epoch", head_epoch), fact("got", got)]
            }
            Self::Refused(refused) => refused.metadata.clone().into_iter().collect(),
            Self::Overloaded { what, limit, .. } | Self::Quota { what, limit, .. } => {
                vec![fact("what", what), fact("limit", limit)]
            }
            _ => Vec::new(),
        }
    }
}

/// The name of a reason on the public API.
pub fn reason_name(reason: Reason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("REASON_").unwrap_or(name)
}

/// The gRPC code of a reason.
fn code(reason: Reason) -> Code {
    match reason {
        Reason::Unspecified => Code::Unknown,
        Reason::GroupNotFound => Code::NotFound,
        Reason::GroupExists => Code::AlreadyExists,
        Reason::GroupClosed
        | Reason::EpochAhead
        | Reason::EpochTooOld
        | Reason::WrongState
        | Reason::CursorMismatch
        | Reason::GroupInfoBehind
        | Reason::BranchGap
        | Reason::BelowPromise
        | Reason::DeadBranch
        | Reason::NotALeaf
        | Reason::NotYourTurn
        | Reason::NotRegistered => Code::FailedPrecondition,
        Reason::TooLarge
        | Reason::Malformed
        | Reason::PolicyInvalid
        | Reason::InvalidCommit
        | Reason::WrongKind
        | Reason::WrongMessageType => Code::InvalidArgument,
        Reason::UnknownCommand => Code::Unimplemented,
        Reason::KeyPackagesExhausted | Reason::KeyPackageQuota | Reason::Overloaded | Reason::Quota => {
            Code::ResourceExhausted
        }
        Reason::CursorAhead | Reason::Pruned => Code::OutOfRange,
        Reason::NoQuorum | Reason::MayNotFork | Reason::OutcomeUnknown | Reason::Reconciling => {
            Code::Unavailable
        }
        Reason::Unauthenticated => Code::Unauthenticated,
        Reason::PermissionDenied => Code::PermissionDenied,
        Reason::WrongShard => Code::Internal,
        Reason::Storage => Code::DataLoss,
    }
}

impl GatewayError {
    /// The status that ends a stream after the entry `seq` with this chain hash, as far as they are known: where to go on, here or at
    /// another gateway.
    pub fn ending_after(self, seq: u64, chain: Option<ChainHash>) -> Status {
        let builder = StatusBuilder::from(self).fact("cursor_seq", seq);
        match chain {
            Some(chain) => builder.fact("cursor_chain_hash", chain).build(),
            None => builder.build(),
        }
    }
}

impl From<GatewayError> for StatusBuilder {
    fn from(error: GatewayError) -> StatusBuilder {
        let reason = error.reason();
        let builder =
            StatusBuilder::new(code(reason), reason_name(reason), error.to_string()).facts(error.facts());
        match error.retry_after() {
            Some(delay) => builder.retry_after(delay),
            None => builder,
        }
    }
}

impl From<GatewayError> for Status {
    fn from(error: GatewayError) -> Status {
        StatusBuilder::from(error).build()
    }
}

/// What an ordering node's status means for the caller of the gateway, if it is a final answer; nothing if another node may
/// know better (it could not be reached, does not know a leader, is overloaded or does not trust its storage).
pub fn final_answer(status: &Status) -> Option<GatewayError> {
    let facts = StatusFacts::of(status);
    let reason = facts.reason.and_then(|name| Reason::from_str_name(&format!("REASON_{name}")))?;
    match reason {
        Reason::NoQuorum
        | Reason::OutcomeUnknown
        | Reason::Overloaded
        | Reason::Storage
        | Reason::Unspecified => None,
        Reason::GroupNotFound => Some(GatewayError::GroupNotFound),
        reason => Some(GatewayError::Refused(Refused {
            reason: reason.into(),
            message: status.message().to_owned(),
            metadata: facts.metadata,
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_code_and_a_name_without_its_prefix() {
        for number in 1..=35 {
            let reason = Reason::try_from(number).unwrap();
            assert_ne!(code(reason), Code::Ok);
            assert!(!reason_name(reason).starts_with("REASON_"));
        }
    }

    #[test]
    fn what_can_be_retried_says_when() {
        for error in [
            GatewayError::NoQuorum,
            GatewayError::MayNotFork,
            GatewayError::OutcomeUnknown,
            GatewayError::Reconciling,
            GatewayError::overloaded("a queue", 3),
            GatewayError::Stopping,
        ] {
            let facts = StatusFacts::of(&Status::from(error.clone()));
            assert!(facts.retry_after.is_some(), "{error:?}");
            assert_eq!(facts.reason.as_deref(), Some(reason_name(error.reason())));
        }
        assert_eq!(StatusFacts::of(&Status::from(GatewayError::GroupNotFound)).retry_after, None);
    }

    #[test]
    fn a_nodes_final_answer_is_passed_on_and_its_weakness_is_not() {
        let refused = GatewayError::Refused(Refused {
            reason: Reason::CursorAhead.into(),
            message: "m".into(),
            metadata: [("got".to_owned(), "7".to_owned())].into(),
        });
        let back = final_answer(&refused.clone().into()).unwrap();
        assert_eq!((back.reason(), back.to_string()), (Reason::CursorAhead, "m".to_owned()));
        assert!(final_answer(&GatewayError::NoQuorum.into()).is_none());
        assert!(final_answer(&Status::unavailable("connection refused")).is_none());
    }
}
