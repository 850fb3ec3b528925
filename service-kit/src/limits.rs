//! The bounds of this crate.

use std::time::Duration;

/// How long one TCP connection attempt may take before it counts as failed.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a listener pauses after an error that is not about one connection (such as no file descriptors left).
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// How often histograms that nobody scrapes are folded together, so that they do not grow.
pub const METRICS_UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Connections that wait to be accepted by a listener.
pub const LISTEN_BACKLOG: u32 = 1024;

/// Bytes of a settings file.
pub const SETTINGS_FILE_BYTES: u64 = 1 << 20;
