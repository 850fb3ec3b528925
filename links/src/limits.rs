//! The bounds of this crate.

use std::time::Duration;

/// Sites of one network.
pub const SITES_MAX: usize = 64;

/// Connections from one site to one target that are open at the same time. More wait to be accepted.
pub const CONNECTIONS_MAX: usize = 4096;

/// Bytes that are read from a sender at once.
pub const PIECE_BYTES: usize = 16 * 1024;

/// Pieces of one direction of one connection that are on their way.
pub const PIECES_MAX: usize = 8192;

/// Bytes of one direction of one connection that may be on their way: twice what the round trip and the bandwidth hold, but at least
/// this ...
pub const BUFFER_BYTES_MIN: usize = 256 * 1024;

/// ... and at most this, which is also the buffer where the bandwidth is unlimited.
pub const BUFFER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The longest delay or jitter.
pub const DELAY_MAX: Duration = Duration::from_secs(60);

/// Connecting to a target on this machine.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause after an error of the listener that does not concern one connection, such as no free file descriptors.
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
