//! Who wants to know what was applied.

use bytes::Bytes;

use crate::raft::types::ShardId;

/// Something that has moved on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advanced {
    /// A group's log.
    Group {
        /// The group.
        group_id: Bytes,
        /// Number of its newest entry.
        seq: u64,
    },
    /// A client's inbox.
    Inbox {
        /// The client.
        client_id: Bytes,
        /// Position of its newest Welcome.
        position: u64,
    },
}

/// Told about everything that was applied, after readers can see it. Must return quickly: the next batch waits.
pub trait ApplyObserver: Send + Sync + 'static {
    /// Entries up to `last_applied` are applied. Each group and each inbox is named once, with its newest place.
    fn applied(&self, shard: ShardId, last_applied: u64, advanced: &[Advanced]);

    /// A snapshot took the place of the whole state: anything may have moved.
    fn installed(&self, shard: ShardId, last_applied: u64);
}

/// Wants to know nothing.
pub struct NoObserver;

impl ApplyObserver for NoObserver {
    fn applied(&self, _shard: ShardId, _last_applied: u64, _advanced: &[Advanced]) {}

    fn installed(&self, _shard: ShardId, _last_applied: u64) {}
}
