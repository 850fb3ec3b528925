//! Every bound of the storage, with its unit.

use std::{ops::RangeInclusive, time::Duration};

/// Entries kept in memory for replication and apply, over all shards, in bytes.
pub const LOG_CACHE_BYTES: usize = 16 * 1024 * 1024;

/// Blocks of the database kept in memory, with the filters and indexes of its files, over all shards, in bytes. Those of a million groups
/// fill three quarters of it; where filters do not fit, groups are created a third slower and a node takes several times as long to start
/// (docs/performance.md).
pub const BLOCK_CACHE_BYTES: usize = 64 * 1024 * 1024;

/// The smallest and the largest block cache that can be set, in MiB.
pub const BLOCK_CACHE_MIB: RangeInclusive<u64> = 8..=65_536;

/// What an entry counts for in the cache and in the write queue beside its command, in bytes.
pub const ENTRY_OVERHEAD_BYTES: usize = 160;

/// Entries that wait for the disk, over all shards, in bytes. An append waits while there are more.
pub const WRITE_QUEUE_BYTES: usize = 64 * 1024 * 1024;

/// Entries of one write to the log, in bytes. What is left in the queue goes with the next.
pub const WRITE_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// One segment file of the log, in bytes. A block that would make it longer begins the next, unless it is the first.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// Records that are framed together in a segment, in bytes, before the next block is begun.
pub const BLOCK_BYTES: usize = 16 * 1024 * 1024;

/// Zeros that are written behind a block at the end of a segment, in bytes, so that the blocks that follow are written over them.
pub const PREPARED_BYTES: usize = 256 * 1024;

/// Blocks up to this size prepare space behind them, in bytes.
pub const PREPARE_BLOCK_BYTES: usize = 8 * 1024;

/// One record of the log, in bytes.
pub const RECORD_BYTES: usize = 64 * 1024 * 1024;

/// Commands from this size on are written to the log from where they are, in bytes. Smaller ones are copied together.
pub const WRITE_IN_PLACE_BYTES: usize = 8 * 1024;

/// Closed segments that are held open for reading.
pub const OPEN_SEGMENTS: usize = 64;

/// Rows whose places are looked up at once when the log is read.
pub const READ_SLOTS: u64 = 1024;

/// Rows of the log that are read at once, in bytes (one row may be larger), and the gap that is read along with them.
pub const READ_PIECE_BYTES: usize = 1024 * 1024;
/// See [`READ_PIECE_BYTES`].
pub const READ_GAP_BYTES: u64 = 4 * 1024;

/// A segment of which less than this part is live is rewritten, in percent of its bytes.
pub const LIVE_PERCENT: u64 = 50;

/// A segment is not rewritten for less than this, in bytes.
pub const RECLAIM_GAIN_BYTES: u64 = 1024;

/// The active segment is closed early to reclaim what is dead in it, if it has this many bytes.
pub const RECLAIM_ACTIVE_BYTES: u64 = 4 * 1024 * 1024;

/// One block of a segment that is rewritten, in bytes.
pub const REWRITE_BLOCK_BYTES: usize = 1024 * 1024;

/// So many dropped rows between two that are kept are remembered as holes; more divide the run of rows.
pub const HOLES_IN_A_ROW: u64 = 1024;

/// Entries that one replication request carries at most, in bytes (one entry may be larger).
pub const REPLICATION_READ_BYTES: usize = 4 * 1024 * 1024;

/// Entries that are read from the log at once for applying.
pub const APPLY_READ_ENTRIES: u64 = 512;

/// Entries whose effects are written to the state machine in one batch.
pub const APPLY_BATCH_ENTRIES: usize = 512;

/// Commands whose effects are written to the state machine in one batch, in bytes.
pub const APPLY_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Reports of branches that are kept decoded while entries are put together or a collection is closed. Each is at most 4 MiB.
pub const REPORTS_AT_HAND: usize = 8;

/// A gateway's last sign of life is written again when it is older than this.
pub const SEEN_RESOLUTION: Duration = Duration::from_secs(60);

/// Leaders note which gateways are there at least once an hour. A longer time without is one without a quorum, and counts for nobody.
pub const NOTES_APART: Duration = Duration::from_secs(2 * 3600);

/// Gateways in one [`NoteGateways`](concordat_proto::ordering::v1::NoteGateways).
pub const NOTED_GATEWAYS: usize = 1024;

/// Group heads kept in memory, per shard, in groups.
pub const HEAD_CACHE_GROUPS: usize = 16 * 1024;

/// Welcomes that wait for one client in one shard. The oldest is dropped (and counted) when there are more.
pub const INBOX_WELCOMES_PER_CLIENT: u64 = 1024;

/// One-time KeyPackages that one client may store.
pub const KEY_PACKAGES_PER_CLIENT: u64 = 1000;

/// KeyPackages in one upload.
pub const KEY_PACKAGES_PER_UPLOAD: usize = 100;

/// One KeyPackage, in bytes.
pub const KEY_PACKAGE_BYTES: usize = 64 * 1024;

/// Claims of one client's KeyPackages that are remembered, so that the same claim gets the same KeyPackage again and a
/// KeyPackage that was claimed is not stored again. Counted in claims; older ones are forgotten.
pub const CLAIMS_REMEMBERED_PER_CLIENT: u64 = 2048;

/// Longest claim id, in bytes. The shortest is 1; clients draw 16.
pub const CLAIM_ID_BYTES: usize = 64;

/// Bytes kept free on the disk. Below it, writes are refused while reads go on.
pub const DISK_RESERVE_BYTES: u64 = 512 * 1024 * 1024;

/// How long a measurement of free space is believed, in milliseconds.
pub const FREE_SPACE_CHECK_MS: u64 = 200;

/// How far the file that remembers what was synced may lag behind on the disk itself, in milliseconds.
pub const SYNCED_MARK_INTERVAL_MS: u64 = 1000;

/// One chunk of a snapshot on the wire, in bytes (one row may be larger).
pub const SNAPSHOT_CHUNK_BYTES: usize = 1024 * 1024;

/// Chunks of a snapshot that are read ahead of the network.
pub const SNAPSHOT_CHUNKS_AHEAD: usize = 4;

/// One row of a snapshot, in bytes.
pub const SNAPSHOT_ROW_BYTES: usize = 16 * 1024 * 1024;

/// Rows of a received snapshot that are written at once, in bytes.
pub const SNAPSHOT_WRITE_BYTES: usize = 4 * 1024 * 1024;

/// Rows that are deleted at once after a purge.
pub const SWEEP_ROWS: usize = 4096;

/// Shards of one node, the directory included.
pub const MAX_SHARDS: u32 = 65;

/// Entries in one page of a group's log.
pub const PAGE_ENTRIES: usize = 1000;

/// How long opening waits for another process to let go of the database.
pub const LOCK_WAIT: Duration = Duration::from_secs(5);

/// Pause between two looks at a database that another process holds.
pub const LOCK_RETRY: Duration = Duration::from_millis(50);
