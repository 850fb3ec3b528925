//! The bounds of this crate.

use std::time::Duration;

/// How long a process may take from its start until it is ready. Generous: machines that run tests are busy.
pub const READY_DEADLINE: Duration = Duration::from_secs(60);

/// How long a process may take to end after SIGTERM.
pub const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// How often processes of a secured cluster, and those who call them, look for new certificates.
pub const CERTIFICATE_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How often a condition is looked at again.
pub const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How long one HTTP request to an admin port may take.
pub const HTTP_DEADLINE: Duration = Duration::from_secs(5);

/// How long one administrative call (bootstrap, a change of members) may take.
pub const ADMIN_DEADLINE: Duration = Duration::from_secs(60);

/// How long one attempt of a submission waits for its answer.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// Pause before a submission is tried again at another node.
pub const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Entries of one page when a log is read back.
pub const READ_PAGE_ENTRIES: u32 = 1000;

/// Lines of a process's log that are shown when it did not do what it should.
pub const LOG_TAIL_LINES: usize = 30;

/// Submissions waiting to be written to one stream.
pub const LINK_QUEUE_ENTRIES: usize = 1024;

/// Findings of one kind that a check reports; more are only counted.
pub const MAX_REPORTED_VIOLATIONS: usize = 5;

/// How long gateways may take to bring everything that was on branches into the log, once there is a quorum again.
pub const BRANCH_REST_DEADLINE: Duration = Duration::from_secs(60);
