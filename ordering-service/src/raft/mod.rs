//! Raft: the types, the network between nodes, the shards of one node.

pub mod responder;
pub mod timing;
pub mod types;
pub mod wire;
