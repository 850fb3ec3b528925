//! Places in a log. A cursor names its chain, so a canonical position and a position on a branch can never be mixed up.

use crate::{
    head::Head,
    ids::{ChainHash, StateId},
    view::{ReadError, View},
};

/// Everything up to and including this place has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cursor {
    /// A place in the canonical log.
    Canonical {
        /// The last entry read; 0 is the place before the first.
        seq: u64,
        /// Its chain hash, if the reader holds it.
        chain: Option<ChainHash>,
    },
    /// A place on a branch.
    Branch {
        /// The state from which the branch departs.
        fork: StateId,
        /// The branch's state at this place.
        state: StateId,
        /// Entries of the branch read so far.
        n: u64,
    },
}

impl Cursor {
    /// Before the first entry of the canonical log.
    pub const START: Cursor = Cursor::Canonical { seq: 0, chain: None };

    /// The end of the canonical log as this head has it.
    pub fn at(head: &Head) -> Cursor {
        Cursor::Canonical { seq: head.seq, chain: Some(head.chain) }
    }
}

/// Reading can not continue from a cursor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// Reader and log have seen different entries.
    #[error(
        "at entry {seq} the log has chain hash {expected}, the cursor has {got}: the reader has seen another log, \
         compare with other members and start again from the beginning"
    )]
    Mismatch {
        /// The place.
        seq: u64,
        /// The log's chain hash there.
        expected: ChainHash,
        /// The reader's.
        got: ChainHash,
    },
    /// The reader is further than the log.
    #[error(
        "the cursor is at entry {got}, but the log here ends at entry {head_seq}: try again later or at another server"
    )]
    Ahead {
        /// The last entry of the log.
        head_seq: u64,
        /// The cursor's place.
        got: u64,
    },
    /// What comes after the cursor was given up.
    #[error(
        "the cursor is at entry {got}, but the log here begins with entry {oldest}: come back by an external commit with the newest GroupInfo"
    )]
    Pruned {
        /// The first entry that is left.
        oldest: u64,
        /// The cursor's place.
        got: u64,
    },
    /// A place on a branch was asked of the canonical log.
    #[error(
        "the cursor is on the branch from {fork}, not in the canonical log: read that branch, or start from a canonical place"
    )]
    OtherChain {
        /// Where the branch departs.
        fork: StateId,
    },
}

/// Checks a cursor against the canonical log. On success the outer result holds the number of the first entry to read next.
pub fn check_cursor<V: View>(
    view: &V,
    head: &Head,
    cursor: &Cursor,
) -> Result<Result<u64, CursorError>, ReadError<V::Error>> {
    let (seq, chain) = match *cursor {
        Cursor::Canonical { seq, chain } => (seq, chain),
        Cursor::Branch { fork, .. } => return Ok(Err(CursorError::OtherChain { fork })),
    };
    if seq > head.seq {
        return Ok(Err(CursorError::Ahead { head_seq: head.seq, got: seq }));
    }
    let pruned = view.pruned()?;
    if seq < pruned.seq {
        return Ok(Err(CursorError::Pruned { oldest: pruned.seq + 1, got: seq }));
    }
    if let Some(got) = chain {
        let expected = match seq {
            seq if seq == pruned.seq => pruned.chain,
            seq if seq == head.seq => head.chain,
            seq => view.record(seq)?.ok_or(ReadError::Missing { what: "the record of an entry" })?.chain,
        };
        if got != expected {
            return Ok(Err(CursorError::Mismatch { seq, expected, got }));
        }
    }
    Ok(Ok(seq + 1))
}
