//! What goes wrong at the API, and the only place that turns it into gRPC statuses.
//!
//! The `reason` of `google.rpc.ErrorInfo` is a name of `concordat.log.v1.Reason` without its prefix where one fits; operators'
//! calls have a few more, listed at [`ApiError`].

use std::time::Duration;

use concordat_proto::log::v1::{Reason, Refused};
use service_kit::status::StatusBuilder;
use tonic::{Code, Status};

use crate::{
    limits,
    raft::{
        identity::Stranger,
        peer::PeerError,
        shards::StartError,
        types::{NodeId, ShardId},
        wire::Malformed,
    },
    storage::StorageError,
};

/// Why a call was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// `NO_CLUSTER`: the node has no data yet.
    #[error(
        "this node belongs to no cluster: bootstrap one, or add the node to one with `admin add-learner`"
    )]
    NoCluster,
    /// `NO_QUORUM`: the node was restarted and does not know yet what was committed.
    #[error("this node is catching up after its start: try another node, or try again")]
    Recovering,
    /// `NO_QUORUM`: the leader of the shard could not confirm that it leads.
    #[error("shard {shard} has no quorum within {waited:?}: try again")]
    NoQuorum {
        /// The shard.
        shard: ShardId,
        /// How long was tried.
        waited: Duration,
    },
    /// Something about the request, in the words of the log's API.
    #[error("{}", .0.message)]
    Refused(Refused),
    /// `OVERLOADED`: a bound of this node is reached.
    #[error("{what}: at most {limit} at a time; try again later, or at another node")]
    Overloaded {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
    /// `STORAGE`: this node can not read or write its data.
    #[error(transparent)]
    Storage(StorageError),
    /// `STOPPED`: the shard's Raft ended; the process is about to end, or its storage failed.
    #[error(
        "shard {shard} has stopped on this node ({message}): try another node, and look at this node's log"
    )]
    Stopped {
        /// The shard.
        shard: ShardId,
        /// openraft's words.
        message: String,
    },
    /// `STRANGER`: the peer is not one of this cluster.
    #[error(transparent)]
    Stranger(#[from] Stranger),
    /// `MALFORMED`: a peer's message makes no sense.
    #[error(transparent)]
    MalformedPeer(#[from] Malformed),
    /// `PEER`: another node that is needed for this call failed.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// `STORAGE` or `MALFORMED`: the shards could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// `NOT_LEADER`: the call has to go to another node.
    #[error("node {leader} leads shard {shard}: send the call to {address}")]
    NotLeader {
        /// The shard.
        shard: ShardId,
        /// Its leader.
        leader: NodeId,
        /// The leader's API.
        address: String,
    },
    /// `PRECONDITION`: the cluster is not in the state that the call needs.
    #[error("{0}")]
    Precondition(String),
    /// `MALFORMED`: a field of an operator's request.
    #[error("{field} must be {expected}, got {got}")]
    BadField {
        /// The field.
        field: &'static str,
        /// What it must be.
        expected: String,
        /// What came.
        got: String,
    },
    /// `UNFINISHED`: the change was begun and goes on.
    #[error(
        "{what} was not finished within {limit:?}; it may still succeed: look at the status, then repeat the call if needed"
    )]
    Unfinished {
        /// What was begun.
        what: String,
        /// How long was waited.
        limit: Duration,
    },
}

/// A refusal with a reason of the log's API.
pub fn refused(reason: Reason, message: impl Into<String>) -> Refused {
    Refused { reason: reason.into(), message: message.into(), metadata: Default::default() }
}

/// A refusal that names a bound.
pub fn too_large(what: &str, limit: usize, got: usize) -> Refused {
    let mut refused =
        refused(Reason::TooLarge, format!("{what} is {got} long, the limit is {limit}: send less"));
    refused.metadata.insert("limit".into(), limit.to_string());
    refused.metadata.insert("got".into(), got.to_string());
    refused
}

/// A refusal that says what was expected and what came.
pub fn malformed(what: &str, expected: &str, got: impl ToString) -> Refused {
    let got = got.to_string();
    let mut refused = refused(Reason::Malformed, format!("{what} must be {expected}, got {got}"));
    refused.metadata.insert("expected".into(), expected.into());
    refused.metadata.insert("got".into(), got);
    refused
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<StorageError> for ApiError {
    /// That something was given up is an answer, not a failure.
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Pruned(pruned) => {
                let oldest = pruned.seq + 1;
                let mut refused = refused(Reason::Pruned, error.to_string());
                refused.metadata.insert("oldest_seq".into(), oldest.to_string());
                Self::Refused(refused)
            }
            error => Self::Storage(error),
        }
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Status {
        let message = error.to_string();
        let plain = |code, reason: &str| StatusBuilder::new(code, reason, message.clone());
        let status = match &error {
            ApiError::NoCluster => plain(Code::FailedPrecondition, "NO_CLUSTER"),
            ApiError::Recovering | ApiError::NoQuorum { .. } => {
                plain(Code::Unavailable, "NO_QUORUM").retry_after(limits::NO_LEADER_RETRY)
            }
            ApiError::Refused(refused) => return refused_status(refused),
            ApiError::Overloaded { limit, .. } => plain(Code::ResourceExhausted, "OVERLOADED")
                .fact("limit", limit)
                .retry_after(limits::OVERLOADED_RETRY),
            ApiError::Storage(_) => plain(Code::Internal, "STORAGE"),
            ApiError::Stopped { .. } => plain(Code::Unavailable, "STOPPED"),
            ApiError::Stranger(Stranger::WrongCertificate { expected, got }) => {
                plain(Code::PermissionDenied, "PERMISSION_DENIED").fact("expected", expected).fact("got", got)
            }
            ApiError::Stranger(_) => plain(Code::FailedPrecondition, "STRANGER"),
            ApiError::MalformedPeer(_) => plain(Code::InvalidArgument, "MALFORMED"),
            ApiError::Peer(PeerError::Refused { .. }) => plain(Code::FailedPrecondition, "PEER"),
            ApiError::Peer(_) => plain(Code::Unavailable, "PEER"),
            ApiError::Start(_) => plain(Code::Internal, "STORAGE"),
            ApiError::NotLeader { leader, address, .. } => plain(Code::FailedPrecondition, "NOT_LEADER")
                .fact("leader_node_id", leader)
                .fact("leader_address", address),
            ApiError::Precondition(_) => plain(Code::FailedPrecondition, "PRECONDITION"),
            ApiError::BadField { field, expected, got } => plain(Code::InvalidArgument, "MALFORMED")
                .fact("field", field)
                .fact("expected", expected)
                .fact("got", got),
            ApiError::Unfinished { .. } => plain(Code::DeadlineExceeded, "UNFINISHED"),
        };
        status.build()
    }
}

fn refused_status(refused: &Refused) -> Status {
    let reason = refused.reason();
    let code = match reason {
        Reason::GroupNotFound => Code::NotFound,
        Reason::GroupExists => Code::AlreadyExists,
        Reason::TooLarge | Reason::Malformed | Reason::PolicyInvalid | Reason::UnknownCommand => {
            Code::InvalidArgument
        }
        Reason::CursorAhead | Reason::Pruned => Code::OutOfRange,
        Reason::Overloaded | Reason::KeyPackagesExhausted | Reason::KeyPackageQuota => {
            Code::ResourceExhausted
        }
        Reason::NoQuorum | Reason::OutcomeUnknown => Code::Unavailable,
        Reason::Unauthenticated => Code::Unauthenticated,
        Reason::PermissionDenied => Code::PermissionDenied,
        Reason::Storage => Code::Internal,
        _ => Code::FailedPrecondition,
    };
    let name = reason.as_str_name().trim_start_matches("REASON_");
    let facts = refused.metadata.clone();
    StatusBuilder::new(code, name, refused.message.clone()).facts(facts).build()
}

#[cfg(test)]
mod tests {
    use service_kit::status::StatusFacts;

    use super::*;

    #[test]
    fn a_refusal_becomes_a_status_with_its_reason_and_facts() {
        let status = Status::from(ApiError::from(too_large("group_id", 256, 300)));
        let facts = StatusFacts::of(&status);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(facts.reason.as_deref(), Some("TOO_LARGE"));
        assert_eq!(facts.metadata["got"], "300");
    }

    #[test]
    fn what_passes_carries_a_retry_hint() {
        let error = ApiError::NoQuorum { shard: 1, waited: Duration::from_secs(2) };
        let facts = StatusFacts::of(&Status::from(error));
        assert_eq!(facts.reason.as_deref(), Some("NO_QUORUM"));
        assert!(facts.retry_after.is_some());
    }
}
