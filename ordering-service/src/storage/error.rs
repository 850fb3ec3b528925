//! What can go wrong with a node's storage. Every message names the remedy.

use std::{fmt, io, path::Path};

use super::wire::DecodeError;
use crate::raft::types::NodeId;

/// A failure of this node's storage.
///
/// It can be cloned, because one failed write is reported to everybody who waited for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// The data belongs to another node.
    #[error(
        "{path} holds the data of node {found}, but this node is configured as node {configured}: \
         point the node at its own data directory, or correct its node id"
    )]
    ForeignNode {
        /// The data directory.
        path: String,
        /// The node id in the marker.
        found: NodeId,
        /// The node id that was asked for.
        configured: NodeId,
    },
    /// The data belongs to another cluster.
    #[error(
        "this storage belongs to cluster {found} with {found_shards} data shards, not to {asked} with {asked_shards}: \
         start the node with an empty data directory to let it join another cluster"
    )]
    ForeignCluster {
        /// The cluster id in the marker.
        found: String,
        /// Data shards in the marker.
        found_shards: u32,
        /// The cluster id that was asked for.
        asked: String,
        /// Data shards that were asked for.
        asked_shards: u32,
    },
    /// The data was written in a format that this version does not read.
    #[error(
        "{path} has storage format {found}, this version reads {supported}: run the version that wrote it. To go on with this version, \
         remove the node with that one and add it again with an empty data directory, or make a backup with that one and restore it"
    )]
    Format {
        /// The data directory.
        path: String,
        /// The format in the marker.
        found: u32,
        /// The format that this version reads and writes.
        supported: u32,
    },
    /// Synced data is missing or damaged. The node must not vote with it: it might deny what it has acknowledged.
    #[error(
        "{what} is corrupt ({detail}): do not restart the node on this data. Remove the node from the cluster, and add it \
         again with an empty data directory under a node id that was never used"
    )]
    Corrupt {
        /// The file or the row.
        what: String,
        /// What was found.
        detail: String,
    },
    /// There is no room for writes. Reads go on.
    #[error(
        "the disk is full ({free} bytes free, {reserve} are kept in reserve): free space or enlarge the disk; \
         writes are accepted again once there is room"
    )]
    DiskFull {
        /// Bytes free when last measured.
        free: u64,
        /// Bytes that the node keeps free.
        reserve: u64,
    },
    /// The disk was full in the middle of a write. What is stored can still be read; writing needs a restart.
    #[error("the disk was full during a write ({detail}): free space, then restart the node")]
    DiskExhausted {
        /// The database's own words.
        detail: String,
    },
    /// An operation of the file system or the database failed.
    #[error("{what} failed: {detail}. Check the disk and its file system, then restart the node")]
    Io {
        /// What was being done.
        what: String,
        /// The system's own words.
        detail: String,
    },
    /// An earlier write failed, so nothing is written any more.
    #[error("storage has stopped after an earlier failure: {0}")]
    Stopped(Box<StorageError>),
    /// The storage is being closed.
    #[error("storage is closed")]
    Closed,
    /// A snapshot that was received does not hold together.
    #[error("the received snapshot is not usable ({0}): it will be sent again")]
    BadSnapshot(String),
    /// What a reader asked for was given up (retention).
    #[error("the log begins with entry {}: come back by an external commit with the newest GroupInfo", .0.seq + 1)]
    Pruned(group_log::Pruned),
    /// The caller asked for something that makes no sense.
    #[error("{0}")]
    Invalid(String),
}

impl StorageError {
    /// An operation on a file failed.
    pub(crate) fn file(action: &str, path: &Path, error: &io::Error) -> Self {
        let what = format!("{action} {}", path.display());
        if error.kind() == io::ErrorKind::StorageFull {
            return StorageError::DiskExhausted { detail: format!("{what}: {error}") };
        }
        StorageError::Io { what, detail: error.to_string() }
    }

    /// An operation of the database failed.
    pub(crate) fn database(what: &str, error: rocksdb::Error) -> Self {
        let kind = error.kind();
        let detail = error.into_string();
        if kind == rocksdb::ErrorKind::Corruption {
            StorageError::Corrupt { what: what.to_owned(), detail }
        } else if detail.contains("No space left") || detail.contains("NoSpace") {
            StorageError::DiskExhausted { detail: format!("{what}: {detail}") }
        } else {
            StorageError::Io { what: what.to_owned(), detail }
        }
    }

    /// A stored row does not decode.
    pub(crate) fn row(what: impl fmt::Display, error: DecodeError) -> Self {
        StorageError::Corrupt { what: what.to_string(), detail: error.to_string() }
    }

    /// The process must end: going on might turn a failed write into a wrong answer.
    pub fn is_fatal(&self) -> bool {
        match self {
            StorageError::Stopped(first) => first.is_fatal(),
            StorageError::Corrupt { .. } | StorageError::Io { .. } => true,
            _ => false,
        }
    }
}

impl From<StorageError> for io::Error {
    fn from(error: StorageError) -> io::Error {
        io::Error::other(error)
    }
}
