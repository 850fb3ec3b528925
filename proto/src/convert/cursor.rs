//! Places in a log.

use bytes::Bytes;
use group_log::{ChainHash, Cursor};

use super::{WireError, chain_hash, state_id};
use crate::log::v1 as wire;

impl From<Cursor> for wire::Cursor {
    fn from(cursor: Cursor) -> Self {
        use wire::cursor::Chain;
        let chain = match cursor {
            Cursor::Canonical { seq, chain } => Chain::Canonical(canonical(seq, chain)),
            Cursor::Branch { fork, state, n } => Chain::Branch(wire::BranchCursor {
                fork_state_id: fork.to_bytes(),
                state_id: state.to_bytes(),
                n,
            }),
        };
        wire::Cursor { chain: Some(chain) }
    }
}

impl TryFrom<wire::Cursor> for Cursor {
    type Error = WireError;

    fn try_from(cursor: wire::Cursor) -> Result<Self, WireError> {
        use wire::cursor::Chain;
        match cursor.chain.ok_or(WireError::missing("cursor.chain", "canonical or branch"))? {
            Chain::Canonical(canonical) => canonical.try_into(),
            Chain::Branch(branch) => Ok(Cursor::Branch {
                fork: state_id("cursor.branch.fork_state_id", &branch.fork_state_id)?,
                state: state_id("cursor.branch.state_id", &branch.state_id)?,
                n: branch.n,
            }),
        }
    }
}

impl TryFrom<wire::CanonicalCursor> for Cursor {
    type Error = WireError;

    fn try_from(cursor: wire::CanonicalCursor) -> Result<Self, WireError> {
        let chain = match cursor.chain_hash {
            absent if absent.is_empty() => None,
            hash => Some(chain_hash("cursor.canonical.chain_hash", &hash)?),
        };
        Ok(Cursor::Canonical { seq: cursor.seq, chain })
    }
}

/// A canonical place for the wire.
pub(super) fn canonical(seq: u64, chain: Option<ChainHash>) -> wire::CanonicalCursor {
    let chain_hash = chain.as_ref().map_or_else(Bytes::new, ChainHash::to_bytes);
    wire::CanonicalCursor { seq, chain_hash }
}

impl wire::CanonicalCursor {
    /// A canonical place for the wire.
    pub fn new(seq: u64, chain: Option<ChainHash>) -> Self {
        canonical(seq, chain)
    }
}
