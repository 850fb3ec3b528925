//! The Raft log of all shards: one medium, one writer, one sync for whatever is waiting.
//!
//! An append is readable at once (from the [`cache`]) and reported as stored once the [`writer`] has synced it. What lies
//! under the writer is a [`medium`]: [`segments`] in a node, memory in a simulation.

use openraft::type_config::alias::{EntryOf, LogIdOf, StoredMembershipOf, VoteOf};

use crate::raft::types::TypeConfig;

pub(crate) mod cache;
pub mod codec;
pub mod medium;
pub mod memory;
pub(crate) mod segments;
pub mod store;
pub(crate) mod sweeper;
pub mod writer;

/// Names an entry of a shard's log.
pub type LogId = LogIdOf<TypeConfig>;
/// An entry of a shard's log.
pub type LogEntry = EntryOf<TypeConfig>;
/// Whom a node votes for.
pub type Vote = VoteOf<TypeConfig>;
/// A membership and the entry that holds it.
pub type StoredMembership = StoredMembershipOf<TypeConfig>;
