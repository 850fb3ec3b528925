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

/// How long a connection that has been shut down is still read from, so that the other side is not cut short.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a TLS handshake may take, on either side.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections of one listener that shake hands at the same time; further ones wait to be accepted.
pub const HANDSHAKES_MAX: usize = 1024;

/// How often TLS files are looked at, in seconds, unless configured otherwise.
pub const TLS_RELOAD_INTERVAL_SECONDS: u64 = 30;

/// How long a server keeps a connection before it asks the other side to make a new one, so that certificates are shown again, in seconds,
/// unless configured otherwise. Calls that are under way go on.
pub const CONNECTION_AGE_SECONDS: u64 = 60 * 60;

/// Longest name in a certificate's SAN URI, in bytes: that of a client id.
pub const IDENTITY_NAME_BYTES_MAX: usize = 128;

/// Longest trust domain, in bytes.
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;

/// How often a call is made again that the server has not looked at, each time on another connection.
pub const TRANSPARENT_RETRIES_MAX: u32 = 5;

/// Bytes of a request that are kept until it is answered, so that it can be sent again. What is longer and was begun is not.
pub const REPLAY_BYTES_MAX: usize = 8 << 20;
