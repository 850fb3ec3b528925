//! What can go wrong with the storage.

use group_log::{DecodeError, ReadError, fork::FollowError};

/// The storage can not be used, or does not hold what it must.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// RocksDB says so.
    #[error("the storage of this gateway failed ({0}); check its disk")]
    Database(String),
    /// The operating system says so.
    #[error("{what}: {detail}; choose another --data-dir")]
    Io {
        /// What was to be done.
        what: String,
        /// The system's words.
        detail: String,
    },
    /// The directory holds something else.
    #[error("the data directory holds a database that no gateway made; choose another --data-dir")]
    NoMarker,
    /// It was written by another version.
    #[error("the data has format {got}, this gateway reads {expected}; use the version that wrote it")]
    Format {
        /// The format that can be read.
        expected: u32,
        /// The one that is there.
        got: u32,
    },
    /// It belongs to another cluster.
    #[error(
        "the data belongs to cluster {expected}, but the nodes belong to {got}; choose another --data-dir"
    )]
    ForeignCluster {
        /// The cluster that the data belongs to.
        expected: String,
        /// The cluster that the nodes belong to.
        got: String,
    },
    /// A row can not be read.
    #[error(
        "a row of {what} is damaged ({detail}); move the data directory away, and evict this gateway's id"
    )]
    Damaged {
        /// Of what.
        what: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// The copy of the log does not reach back so far: nodes have the whole.
    #[error("the copy of the log here begins with entry {oldest}; read what comes before from a node")]
    NotKept {
        /// The oldest entry that is kept.
        oldest: u64,
    },
    /// The log that was shown does not follow from the one that is stored.
    #[error(transparent)]
    Follow(#[from] FollowError),
}

impl StoreError {
    pub(crate) fn damaged(what: &'static str, detail: impl ToString) -> Self {
        Self::Damaged { what, detail: detail.to_string() }
    }
}

impl From<rocksdb::Error> for StoreError {
    fn from(error: rocksdb::Error) -> Self {
        Self::Database(error.to_string())
    }
}

impl From<DecodeError> for StoreError {
    fn from(error: DecodeError) -> Self {
        Self::damaged("the rules", error)
    }
}

impl From<ReadError<StoreError>> for StoreError {
    fn from(error: ReadError<StoreError>) -> Self {
        match error {
            ReadError::View(error) => error,
            ReadError::Missing { what } => Self::damaged("the log", format_args!("{what} is missing")),
        }
    }
}
