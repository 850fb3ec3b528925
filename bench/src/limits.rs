//! The bounds of the benchmarks.

use std::time::Duration;

/// How long a server may take until it answers.
pub(crate) const START_DEADLINE: Duration = Duration::from_secs(60);

/// Pause between two looks at a server that starts.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How long one append may take, retries included. Longer than any server's own limit.
pub(crate) const APPEND_DEADLINE: Duration = Duration::from_secs(30);

/// Pause before a refused append is tried again.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(1);

/// Attempts of one append with what the client knows; after that it asks the server for the position.
pub(crate) const ATTEMPTS_BEFORE_LOOKUP: u32 = 10;

/// Connections to a system that has no stream of batches.
pub(crate) const CONNECTIONS: usize = 4;

/// Submissions that wait to be written to one stream.
pub(crate) const STREAM_QUEUE: usize = 4096;

/// Submissions in one request of a stream.
pub(crate) const BATCH: usize = 256;

/// Bytes of one message to a process of the floor: a batch of the largest appends, and their framing.
pub(crate) const FLOOR_MESSAGE_MAX: usize = BATCH * (64 * 1024 + 64);

/// Bytes that a process of the floor may have received and not taken yet, of a stream and of a connection.
pub(crate) const FLOOR_WINDOW: u32 = 8 << 20;

/// Bytes after which a process of the floor adds no further message to a write.
pub(crate) const FLOOR_WRITE_MAX: usize = 4 << 20;

/// Bytes of the file that a process of the floor writes over and over.
pub(crate) const FLOOR_SPACE: usize = 64 << 20;

/// Latencies above this count as this.
pub(crate) const LATENCY_MAX: Duration = Duration::from_secs(60);

/// Syncs from which the disk's own latency is taken.
pub(crate) const DISK_SAMPLES: usize = 400;

/// Times that a thread is woken to see what that takes.
pub(crate) const WAKE_SAMPLES: u32 = 1000;

/// Lines of a server's log that are shown when it did not start.
pub(crate) const LOG_TAIL_LINES: usize = 15;

/// Groups that are created at the same time.
pub(crate) const CREATED_AT_ONCE: usize = 1024;

/// Messages that make a log longer and are under way at the same time.
pub(crate) const GROWN_AT_ONCE: usize = 256;

/// Subscriptions of one connection. Servers allow some 200 streams.
pub(crate) const SUBSCRIBERS_PER_CONNECTION: u64 = 100;

/// How long a leader may take to appear after a restart.
pub(crate) const LEADER_DEADLINE: Duration = Duration::from_secs(60);

/// After a restart, memory is looked at when this much time has passed: what is flushed or replayed in the background is done then.
pub(crate) const SETTLED_WITHIN: Duration = Duration::from_secs(2);

/// How long one commit of the curve over members may take.
pub(crate) const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// Commits at each size of a group.
pub(crate) const MEMBERS_COMMITS: usize = 50;
