//! How a node's storage is opened.

use std::{fmt, sync::Arc};

use super::{
    limits::{BLOCK_CACHE_BYTES, DISK_RESERVE_BYTES, HEAD_CACHE_GROUPS, LOG_CACHE_BYTES, SEGMENT_BYTES},
    log::{medium::Medium, writer::OnFatal},
    space::FreeSpace,
    state::{ApplyObserver, NoObserver},
};
use crate::raft::types::NodeId;

/// Wraps the log's medium.
pub type WrapMedium = Box<dyn FnOnce(Arc<dyn Medium>) -> Arc<dyn Medium> + Send>;

/// How a node's storage is opened.
pub struct StorageOptions {
    /// The node that the data must belong to.
    pub node_id: NodeId,
    /// 16 random bytes. Only used if the directory is empty.
    pub new_disk_id: [u8; 16],
    /// Log entries kept in memory, over all shards, in bytes.
    pub log_cache_bytes: usize,
    /// Blocks of the database kept in memory, over all shards, in bytes.
    pub block_cache_bytes: usize,
    /// Group heads kept in memory, per shard.
    pub head_cache_groups: usize,
    /// One segment file of the log, in bytes. At most 1 GiB.
    pub segment_bytes: u64,
    /// Bytes kept free on the disk.
    pub disk_reserve_bytes: u64,
    /// Told about everything that is applied.
    pub observer: Arc<dyn ApplyObserver>,
    /// Called once when the process must end. By default it is aborted.
    pub on_fatal: OnFatal,
    /// Measures the disk. By default, the file system of the data directory.
    pub free_space: Option<Box<dyn FreeSpace>>,
    /// Wraps the log's medium, for tests that delay or fail it. By default nothing.
    pub wrap_medium: WrapMedium,
}

impl StorageOptions {
    /// Defaults for a node.
    pub fn new(node_id: NodeId, new_disk_id: [u8; 16]) -> Self {
        StorageOptions {
            node_id,
            new_disk_id,
            log_cache_bytes: LOG_CACHE_BYTES,
            block_cache_bytes: BLOCK_CACHE_BYTES,
            head_cache_groups: HEAD_CACHE_GROUPS,
            segment_bytes: SEGMENT_BYTES,
            disk_reserve_bytes: DISK_RESERVE_BYTES,
            observer: Arc::new(NoObserver),
            on_fatal: Arc::new(|_| std::process::abort()),
            free_space: None,
            wrap_medium: Box::new(|medium| medium),
        }
    }
}

impl fmt::Debug for StorageOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StorageOptions").field("node_id", &self.node_id).finish_non_exhaustive()
    }
}
