//! Raft: the types, the network between nodes, the shards of one node.

pub mod types;
