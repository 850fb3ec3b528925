//! What the rules read. Each call is one lookup, or a search from the end of the log that costs no more in a longer one, so neither
//! does a decision.

use crate::{
    content::{CommitRef, Record},
    head::Head,
    ids::{ClientId, EntryId},
    retention::Pruned,
};

/// The stored state of one group. Implemented over real storage, and by [`MemoryLog`](crate::MemoryLog).
pub trait View {
    /// Why something could not be read.
    type Error;

    /// The head, or nothing if the group does not exist.
    fn head(&self) -> Result<Option<Head>, Self::Error>;

    /// The commit that ended this epoch. Known forever, for every epoch since the log began. May be searched for: how far the epoch lies
    /// behind the head may count, with its logarithm.
    fn commit_ending(&self, epoch: u64) -> Result<Option<CommitRef>, Self::Error>;

    /// Number of the entry with this id, if it is one of those that [`Change::recent_put`](crate::Change::recent_put) stored and
    /// [`Change::recent_delete`](crate::Change::recent_delete) did not delete.
    fn recent(&self, id: &EntryId) -> Result<Option<u64>, Self::Error>;

    /// The client at this place of the order in which members commit, if there is an order and it is as long:
    /// [`Change::turn_order`](crate::Change::turn_order).
    fn turn_holder(&self, index: u32) -> Result<Option<ClientId>, Self::Error>;

    /// What is kept of the entry with this number.
    fn record(&self, seq: u64) -> Result<Option<Record>, Self::Error>;

    /// What was given up of the log. Nothing, unless the storage can do that.
    fn pruned(&self) -> Result<Pruned, Self::Error> {
        Ok(Pruned::default())
    }
}

/// A log could not be read, or contradicts itself. Neither is ever turned into an answer for a client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError<E> {
    /// The view failed.
    #[error(transparent)]
    View(#[from] E),
    /// Something that every log of this shape holds is not there: the storage is damaged.
    #[error("the log is inconsistent: {what} is missing; restore this node from its peers")]
    Missing {
        /// What is missing.
        what: &'static str,
    },
}
