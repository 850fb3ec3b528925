//! Outcomes that this node gives by itself, and those that Raft's results become.

use concordat_proto::ordering::v1::{NotLeader, Outcome, Overloaded, Unknown, outcome::Outcome as Kind};
use openraft::{errors::ClientWriteError, raft::ClientWriteResult};

use crate::{limits, raft::types::TypeConfig};

/// An outcome of this kind.
pub(crate) fn answer(kind: Kind) -> Outcome {
    Outcome { outcome: Some(kind) }
}

/// Nobody can tell what became of the submission.
pub(crate) fn unknown(why: impl ToString) -> Outcome {
    answer(Kind::Unknown(Unknown { message: why.to_string() }))
}

/// A bound is reached; nothing was proposed.
pub(crate) fn overloaded(what: &str) -> Outcome {
    let retry_after_ms = u32::try_from(limits::OVERLOADED_RETRY.as_millis()).unwrap_or(u32::MAX);
    answer(Kind::Overloaded(Overloaded { message: what.into(), retry_after_ms }))
}

/// The node has no shards yet; nothing was proposed.
pub(crate) fn no_cluster() -> Outcome {
    answer(Kind::NotLeader(NotLeader::default()))
}

/// What a proposal came to.
pub(crate) fn of_result(result: ClientWriteResult<TypeConfig>) -> Outcome {
    match result {
        Ok(applied) => applied.data.0,
        Err(ClientWriteError::ForwardToLeader(to)) => answer(Kind::NotLeader(NotLeader {
            leader_node_id: to.leader_id.unwrap_or(0),
            leader_address: to.leader_node.map(|node| node.address).unwrap_or_default(),
        })),
        Err(other) => unknown(other),
    }
}
