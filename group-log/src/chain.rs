//! Checking a log against its hashes: what a client does with everything that it is shown.

use crate::{
    content::{Content, Entry},
    fork::{Item, LogEntry},
    hash::{ChainLink, chain_hash, commit_state_id},
    ids::{ChainHash, StateId},
};

/// An entry does not follow from what came before it: the log was altered, reordered or cut.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// The numbers are not contiguous.
    #[error("expected entry {expected}, got entry {got}: read again from the last entry that fits")]
    Seq {
        /// The number that must come next.
        expected: u64,
        /// The number that came.
        got: u64,
    },
    /// The chain hash does not follow from the previous one and the entry.
    #[error("entry {seq} has chain hash {got}, but its contents give {expected}: do not trust this log")]
    Chain {
        /// The entry.
        seq: u64,
        /// What its parts give.
        expected: ChainHash,
        /// What it states.
        got: ChainHash,
    },
    /// A commit does not lead to the state that it states.
    #[error("entry {seq} states {got}, but the state must be {expected}: do not trust this log")]
    State {
        /// The entry.
        seq: u64,
        /// What its parts give.
        expected: StateId,
        /// What it states.
        got: StateId,
    },
    /// A commit does not end the current epoch.
    #[error(
        "the commit in entry {seq} is for epoch {got}, but the epoch is {expected}: do not trust this log"
    )]
    Epoch {
        /// The entry.
        seq: u64,
        /// The epoch that the log has reached.
        expected: u64,
        /// The epoch that the commit states.
        got: u64,
    },
}

/// Follows a log and checks that every entry follows from the ones before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainVerifier {
    seq: u64,
    chain: ChainHash,
    position: Option<(u64, StateId)>,
}

impl ChainVerifier {
    /// From the beginning of a log.
    pub fn new() -> Self {
        ChainVerifier { seq: 0, chain: ChainHash::START, position: None }
    }

    /// From the entry `seq` with this chain hash. `position` is the epoch and the state after that entry, if known; if it is
    /// not, states are checked from the next commit on.
    pub fn after(seq: u64, chain: ChainHash, position: Option<(u64, StateId)>) -> Self {
        ChainVerifier { seq, chain, position }
    }

    /// Number of the last entry that was checked.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Chain hash of the last entry that was checked.
    pub fn chain(&self) -> ChainHash {
        self.chain
    }

    /// Epoch and state after the last entry that was checked, as far as known.
    pub fn position(&self) -> Option<(u64, StateId)> {
        self.position
    }

    /// Checks the next entry. After an error nothing has changed.
    pub fn push(&mut self, entry: &Entry) -> Result<(), ChainError> {
        self.push_link(&entry.into(), entry.chain)
    }

    /// Checks the next entry, whether a client submitted it or the cluster wrote it. After an error nothing has changed.
    pub fn push_item(&mut self, entry: &LogEntry) -> Result<(), ChainError> {
        let LogEntry { seq, chain, epoch, state_id, ref author, ref item, .. } = *entry;
        match item {
            Item::Mark(mark) => self.push_mark(seq, chain, epoch, state_id, mark),
            Item::Content(content) => {
                self.push_link(&ChainLink { seq, epoch, state_id, author: author.as_ref(), content }, chain)
            }
        }
    }

    fn push_link(&mut self, link: &ChainLink<'_>, chain: ChainHash) -> Result<(), ChainError> {
        let ChainLink { seq, epoch, state_id, content, .. } = *link;
        if seq != self.seq.saturating_add(1) {
            return Err(ChainError::Seq { expected: self.seq.saturating_add(1), got: seq });
        }
        let expected = chain_hash(&self.chain, link);
        if expected != chain {
            return Err(ChainError::Chain { seq, expected, got: chain });
        }
        let position = match (content, self.position) {
            (Content::Commit(_), Some((expected, _))) if epoch != expected => {
                return Err(ChainError::Epoch { seq, expected, got: epoch });
            }
            (Content::Commit(commit), Some((_, parent))) => {
                let expected = commit_state_id(&parent, &commit.message);
                if state_id != expected {
                    return Err(ChainError::State { seq, expected, got: state_id });
                }
                Some((epoch.saturating_add(1), state_id))
            }
            (Content::Commit(_), None) => Some((epoch.saturating_add(1), state_id)),
            (Content::Create(_), _) => Some((epoch, state_id)),
            (_, known) => known,
        };
        (self.seq, self.chain, self.position) = (seq, chain, position);
        Ok(())
    }

    /// Checks a run of entries, and stops at the first that does not fit.
    pub fn push_all<'a>(&mut self, entries: impl IntoIterator<Item = &'a Entry>) -> Result<(), ChainError> {
        entries.into_iter().try_for_each(|entry| self.push(entry))
    }
}

impl Default for ChainVerifier {
    fn default() -> Self {
        ChainVerifier::new()
    }
}

/// Recomputes an entry's chain hash and compares. Returns the hash for the next entry.
pub fn verify_entry(previous: &ChainHash, entry: &Entry) -> Result<ChainHash, ChainError> {
    let expected = chain_hash(previous, &entry.into());
    if expected == entry.chain {
        Ok(expected)
    } else {
        Err(ChainError::Chain { seq: entry.seq, expected, got: entry.chain })
    }
}
