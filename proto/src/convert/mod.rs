//! Between the wire formats and the types of the rules.
//!
//! Towards the wire nothing can fail. From the wire every field is checked once, here, and a [`WireError`] names the one that does not
//! fit. Bytes are shared, not copied.

mod branch;
mod command;
mod content;
mod cursor;
mod entry;
mod refusal;

pub use branch::{entry_id, facts_in, facts_out, gateway_id, in_order, leaf_id, leaf_ids, leaves, log_entry};
pub use command::{DEPARTURES, GroupCommand, RECONCILING_RETRY_MS};
pub use refusal::refused;

use bytes::Bytes;
use group_log::{ChainHash, ClientId, GroupId, StateId};

/// A message decodes, but a field of it is missing or has an impossible value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {expected}, got {got}")]
pub struct WireError {
    /// Path of the field, as in the `.proto` file.
    pub field: &'static str,
    /// What it must be.
    pub expected: &'static str,
    /// What came.
    pub got: String,
}

impl WireError {
    /// A field that must be present is absent.
    pub fn missing(field: &'static str, expected: &'static str) -> WireError {
        WireError { field, expected, got: "nothing".into() }
    }
}

/// Reads a group id: 1 to 256 bytes.
pub fn group_id(field: &'static str, bytes: Bytes) -> Result<GroupId, WireError> {
    let got = bytes.len();
    GroupId::new(bytes).map_err(|_| WireError { field, expected: "1 to 256 bytes", got: size(got) })
}

/// Reads a client id: 1 to 128 bytes.
pub fn client_id(field: &'static str, bytes: Bytes) -> Result<ClientId, WireError> {
    let got = bytes.len();
    ClientId::new(bytes).map_err(|_| WireError { field, expected: "1 to 128 bytes", got: size(got) })
}

/// Reads a state id: 32 bytes.
pub fn state_id(field: &'static str, bytes: &[u8]) -> Result<StateId, WireError> {
    let wrong = |_| WireError { field, expected: "32 bytes", got: length(bytes) };
    StateId::from_slice(bytes).map_err(wrong)
}

/// Reads a state id that may be absent: 32 bytes or none.
pub fn optional_state_id(field: &'static str, bytes: &[u8]) -> Result<Option<StateId>, WireError> {
    if bytes.is_empty() { Ok(None) } else { state_id(field, bytes).map(Some) }
}

/// Reads a chain hash: 32 bytes.
pub fn chain_hash(field: &'static str, bytes: &[u8]) -> Result<ChainHash, WireError> {
    let wrong = |_| WireError { field, expected: "32 bytes", got: length(bytes) };
    ChainHash::from_slice(bytes).map_err(wrong)
}

fn length(bytes: &[u8]) -> String {
    size(bytes.len())
}

fn size(bytes: usize) -> String {
    format!("{bytes} bytes")
}
