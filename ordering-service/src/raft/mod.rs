//! Raft: the types, the network between nodes, the shards of one node.

pub mod identity;
pub mod network;
pub mod peer;
pub mod peer_stream;
pub mod reach;
pub mod responder;
pub mod round_trips;
pub mod shard;
pub mod shards;
pub mod snapshot_in;
pub mod snapshot_out;
pub mod timing;
pub mod types;
pub mod wire;
