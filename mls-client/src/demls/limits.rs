//! The bounds of DeMLS state and messages.

/// Most bytes that one puncture (one processed commit) may add to the encoding of a PPRF.
pub const MAX_PUNCTURE_BYTES: usize = 10_000;

/// Most punctures of one PPRF: commits processed in one and the same state.
pub const MAX_PUNCTURES: usize = 1024;

/// Most bytes of an encoded PPRF.
pub const MAX_PPRF_BYTES: usize = MAX_PUNCTURES * MAX_PUNCTURE_BYTES;

/// Most bytes of a `dmls_epoch` on the wire. Real ones have KDF.Nh bytes (32 for the suites supported here).
pub const MAX_DMLS_EPOCH_BYTES: usize = 64;

/// Type of the GroupInfo extension that carries the `dmls_epoch`, from the range for private use (RFC 9420 section 17.3).
pub const EPOCH_EXTENSION: u16 = 0xf0de;

/// Most bytes of a DMLSMessage.
pub const MAX_DMLS_MESSAGE_BYTES: usize = 16 << 20;

/// Most bytes of one stored value (a ratchet tree is the largest) after unpacking.
pub const MAX_VALUE_BYTES: usize = 64 << 20;

/// Most states of one group that are kept side by side.
pub const MAX_STATES_PER_GROUP: usize = 1024;

/// Smallest, average (a power of two) and largest size of a stored chunk, in bytes.
pub const CHUNK_MIN_BYTES: usize = 64;
/// See [`CHUNK_MIN_BYTES`].
pub const CHUNK_AVERAGE_BYTES: usize = 256;
/// See [`CHUNK_MIN_BYTES`].
pub const CHUNK_MAX_BYTES: usize = 2048;
