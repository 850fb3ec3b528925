//! openraft's type parameters, chosen once. Nothing outside `raft/` and `storage/` names openraft's own types.

use std::fmt;

use bytes::Bytes;
use concordat_proto::ordering::v1::Outcome;

/// A node's number in the cluster: at least 1, and never used twice.
pub type NodeId = u64;

/// A shard's number. Shard 0 is the directory.
pub type ShardId = u32;

/// The directory shard: group id -> shard, and KeyPackages.
pub const DIRECTORY: ShardId = 0;

/// What the log holds for one submission.
#[derive(Clone, PartialEq, Eq)]
pub struct Proposed {
    /// The leader's wall clock when it proposed the command, in milliseconds since 1970. Rules may only use it as data.
    pub at_ms: u64,
    /// An encoded `ordering.v1.Command`, as it came from the gateway.
    pub command: Bytes,
}

impl fmt::Debug for Proposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Message bytes are never printed.
        write!(f, "Proposed({} bytes at {})", self.command.len(), self.at_ms)
    }
}

impl fmt::Display for Proposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What applying a log entry answers.
#[derive(Clone, Default)]
pub struct Applied(pub Outcome);

impl fmt::Debug for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Applied")
    }
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Applied")
    }
}

/// What the membership of a shard says about a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeInfo {
    /// host:port for other nodes.
    pub peer_address: String,
    /// host:port for gateways and operators.
    pub address: String,
    /// The place with its own network that the node stands in.
    pub site: String,
    /// Drawn when the node's storage was created. A node that comes back with another one has lost its disk and is refused.
    pub disk_id: [u8; 16],
}

impl fmt::Display for NodeInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.peer_address)
    }
}

/// openraft's type parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

impl openraft::RaftTypeConfig for TypeConfig {
    type D = Proposed;
    type R = Applied;
    type NodeId = NodeId;
    type Node = NodeInfo;
    type Term = u64;
    type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, NodeId>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Proposed, NodeId, NodeInfo>;
    type Entry =
        openraft::impls::Entry<<Self::LeaderId as openraft::vote::RaftLeaderId>::Committed, Self::Payload>;
    type AsyncRuntime = openraft::impls::TokioRuntime;
    type Responder<T>
        = super::responder::Responder<T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = openraft::AnyError;
}

/// A position in a shard's Raft log.
pub type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
/// What a position says about the leader that wrote the entry.
pub type CommittedLeaderId = openraft::type_config::alias::CommittedLeaderIdOf<TypeConfig>;
/// A vote of a shard.
pub type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
/// An entry of a shard's Raft log.
pub type LogEntry = openraft::type_config::alias::EntryOf<TypeConfig>;
/// Who votes and who learns in a shard.
pub type Membership = openraft::Membership<NodeId, NodeInfo>;
