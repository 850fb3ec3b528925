//! Every bound of the client, with its unit.

use std::time::Duration;

/// How often one commit is built again after losing its epoch to somebody else's, in attempts.
pub const MAX_COMMIT_ATTEMPTS: u32 = 64;

/// Members that one commit may add, remove or both.
pub const MAX_INTENT_MEMBERS: usize = 256;

/// Entries asked for in one page when catching up.
pub const READ_PAGE_ENTRIES: u32 = 256;

/// Entries applied in one transaction.
pub const FOLLOW_BATCH_ENTRIES: usize = 64;

/// Messages of one group that wait to be accepted by the log.
pub const MAX_OUTBOX_MESSAGES: usize = 1024;

/// Decrypted messages of one group that are kept; the oldest beyond are deleted.
pub const MAX_STORED_MESSAGES: u64 = 100_000;

/// Branch entries that are offered to a gateway, or asked of it, in one call.
pub const BRANCH_IDS: usize = 1024;

/// Branch entries that a gateway is told not to deliver again.
pub const KNOWN_BRANCH_ENTRIES: usize = 4096;

/// Branch entries that are brought to a gateway in one call, in bytes; a single one may be longer.
pub const UPLOAD_BRANCH_BYTES: usize = 3 * 1024 * 1024;

/// Longest application message before encryption, in bytes. Leaves room for framing, padding and the signature.
pub const MAX_BODY_BYTES: usize = group_log::limits::MAX_MESSAGE_BYTES - 4096;

/// Longest answer accepted from a gateway, in bytes: a page of entries, each as large as the log allows at most.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Events that a receiver may lag behind before it misses some. Messages are kept in the store all the same.
pub const EVENT_QUEUE: usize = 8192;

/// One-time KeyPackages that a client keeps with the gateway.
pub const ONE_TIME_KEY_PACKAGES: u32 = 20;

/// KeyPackages in one upload.
pub const UPLOAD_BATCH: usize = 50;

/// Ordering latencies that are kept for reports; the oldest beyond are dropped.
pub const LATENCY_SAMPLES: usize = 20_000;

/// Messages of one sender that may arrive late within an epoch and still be decrypted.
pub const OUT_OF_ORDER_MESSAGES: u32 = 64;

/// Messages of one sender that may be missing in front of the next one.
pub const SKIPPED_MESSAGES: u32 = 2000;

/// Shortest pause before trying again.
pub const BACKOFF_MIN: Duration = Duration::from_millis(20);

/// Longest pause before trying again.
pub const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Longest pause of who lost to somebody else's commit in a DeMLS group: after a split many members commit at the same time.
pub const LOSS_PAUSE_MAX: Duration = Duration::from_millis(400);

/// How long a command waits for another process to let go of the state file.
pub const STATE_FILE_WAIT: Duration = Duration::from_secs(5);

/// How long one call may take before it counts as lost.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a connection attempt may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Interval between pings that find out whether a silent connection is dead.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Longest pause before the members that see a proposal commit it; each draws its own.
pub const PROPOSAL_COMMIT_DELAY: Duration = Duration::from_millis(800);
