//! The storage's metrics. Group ids and client ids are never labels.

use std::{collections::HashMap, time::Duration};

use ::metrics::{Counter, Gauge, Histogram};
use parking_lot::Mutex;

use crate::raft::types::ShardId;

/// Seconds that a sync of the log took, as a histogram.
pub const FSYNC_SECONDS: &str = "concordat_storage_fsync_seconds";
/// Changes that one sync made durable, as a histogram.
pub const SYNC_BATCH_CHANGES: &str = "concordat_storage_sync_batch_changes";
/// Bytes that wait to be written to the log.
pub const WRITE_QUEUE_BYTES: &str = "concordat_storage_write_queue_bytes";
/// Bytes of log entries in memory, over all shards.
pub const LOG_CACHE_BYTES: &str = "concordat_storage_log_cache_bytes";
/// Bytes free on the disk, when last measured.
pub const DISK_FREE_BYTES: &str = "concordat_storage_disk_free_bytes";
/// Bytes of the log's segment files.
pub const LOG_BYTES: &str = "concordat_storage_log_bytes";
/// Bytes of the log that were given back to the disk.
pub const LOG_RECLAIMED_BYTES_TOTAL: &str = "concordat_storage_log_reclaimed_bytes_total";
/// Seconds that one batch of committed entries took to apply, as a histogram. Label: `shard`.
pub const APPLY_SECONDS: &str = "concordat_storage_apply_batch_seconds";
/// Commands applied. Labels: `shard`, `command`, `outcome`.
pub const APPLIED_TOTAL: &str = "concordat_storage_commands_applied_total";
/// Welcomes dropped because a client's inbox was full. Label: `shard`.
pub const INBOX_DROPPED_TOTAL: &str = "concordat_storage_inbox_dropped_total";
/// Snapshot bytes by direction. Labels: `shard`, `direction` (`sent` or `received`).
pub const SNAPSHOT_BYTES_TOTAL: &str = "concordat_storage_snapshot_bytes_total";

/// Every metric of the storage with its unit and what it means.
pub const DESCRIPTIONS: [(&str, &str); 11] = [
    (FSYNC_SECONDS, "histogram: seconds that a sync of the log took"),
    (SYNC_BATCH_CHANGES, "histogram: changes (appends, votes, ..) that one sync made durable"),
    (WRITE_QUEUE_BYTES, "gauge: bytes that wait to be written to the log"),
    (LOG_CACHE_BYTES, "gauge: bytes of log entries in memory, over all shards"),
    (DISK_FREE_BYTES, "gauge: bytes free on the data directory's disk, when last measured"),
    (LOG_BYTES, "gauge: bytes of the log's segment files"),
    (LOG_RECLAIMED_BYTES_TOTAL, "counter: bytes of the log that were given back to the disk"),
    (APPLY_SECONDS, "histogram: seconds to apply one batch of committed entries, by shard"),
    (APPLIED_TOTAL, "counter: commands applied, by shard, command and outcome"),
    (INBOX_DROPPED_TOTAL, "counter: Welcomes dropped because a client's inbox was full, by shard"),
    (SNAPSHOT_BYTES_TOTAL, "counter: snapshot bytes, by shard and direction (sent, received)"),
];

/// What the log's writer tells with every batch. Looked up once: finding a metric by its name takes longer than changing it.
pub(crate) struct WriterMetrics {
    pub(crate) fsync_seconds: Histogram,
    pub(crate) batch_changes: Histogram,
    pub(crate) queue_bytes: Gauge,
    pub(crate) cache_bytes: Gauge,
}

impl WriterMetrics {
    pub(crate) fn new() -> Self {
        Self {
            fsync_seconds: ::metrics::histogram!(FSYNC_SECONDS),
            batch_changes: ::metrics::histogram!(SYNC_BATCH_CHANGES),
            queue_bytes: ::metrics::gauge!(WRITE_QUEUE_BYTES),
            cache_bytes: ::metrics::gauge!(LOG_CACHE_BYTES),
        }
    }
}

/// What one shard tells with every batch that it applies.
pub(crate) struct ApplyMetrics {
    shard: String,
    seconds: Histogram,
    dropped: Counter,
    /// By command and outcome, of which there are a few dozen.
    applied: Mutex<HashMap<(&'static str, &'static str), Counter>>,
}

impl ApplyMetrics {
    pub(crate) fn of(shard: ShardId) -> Self {
        let label = || shard.to_string();
        Self {
            shard: label(),
            seconds: ::metrics::histogram!(APPLY_SECONDS, "shard" => label()),
            dropped: ::metrics::counter!(INBOX_DROPPED_TOTAL, "shard" => label()),
            applied: Mutex::default(),
        }
    }

    /// So many commands of this name had this outcome.
    pub(crate) fn applied(&self, command: &'static str, outcome: &'static str, count: u64) {
        let mut counters = self.applied.lock();
        let counter = counters.entry((command, outcome)).or_insert_with(|| {
            let labels =
                [("shard", self.shard.clone()), ("command", command.into()), ("outcome", outcome.into())];
            ::metrics::counter!(APPLIED_TOTAL, &labels)
        });
        counter.increment(count);
    }

    /// A batch took so long, and so many Welcomes were dropped.
    pub(crate) fn batch(&self, took: Duration, dropped: u64) {
        self.seconds.record(took.as_secs_f64());
        if dropped > 0 {
            self.dropped.increment(dropped);
        }
    }
}

/// The log is opened: what comes late or never is there from the start, with zero.
pub(crate) fn begin_log() {
    ::metrics::counter!(LOG_RECLAIMED_BYTES_TOTAL).increment(0);
}

/// A shard is opened: what comes late or never is there from the start, with zero.
pub(crate) fn begin(shard: ShardId) {
    for direction in ["sent", "received"] {
        let labels = [("shard", shard.to_string()), ("direction", direction.to_owned())];
        ::metrics::counter!(SNAPSHOT_BYTES_TOTAL, &labels).increment(0);
    }
    ::metrics::counter!(INBOX_DROPPED_TOTAL, "shard" => shard.to_string()).increment(0);
}

/// Registers the descriptions with the recorder of this process.
pub fn describe() {
    for (name, text) in DESCRIPTIONS {
        match text.split_once(": ") {
            Some(("counter", text)) => ::metrics::describe_counter!(name, text),
            Some(("gauge", text)) => ::metrics::describe_gauge!(name, text),
            Some((_, text)) => ::metrics::describe_histogram!(name, text),
            None => {}
        }
    }
}
