//! Backups: everything that is applied, shard by shard, as files that need no particular node, disk or version of RocksDB.
//!
//! | file | holds |
//! |---|---|
//! | `shard-N.snapshot` | the snapshot of shard N, the bytes that a node that catches up would be sent, with their checksum |
//! | `manifest.toml` | what belongs to the backup; written last |

mod manifest;
mod restore;
mod save;
mod serve;

use std::{io, path::Path};

pub use self::{
    manifest::{Manifest, ShardFile},
    restore::{Restored, restore},
    save::save,
    serve::{BackupStream, serve},
};
use crate::storage::StorageError;

/// Why a backup was not made, or not restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file or a folder.
    #[error("{what}: {source}")]
    Io {
        /// What was done to which file.
        what: String,
        /// The system's words.
        source: io::Error,
    },
    /// The storage of the new node.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The node that is backed up.
    #[error("the node ended the backup: {0}")]
    Node(#[from] tonic::Status),
    /// The backup is damaged, incomplete, or of another version.
    #[error("the backup can not be used: {0}")]
    Damaged(String),
    /// The folder is in use.
    #[error("{0} exists already: name one that does not")]
    Exists(String),
}

impl BackupError {
    fn io(action: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let what = format!("{action} {}", path.display());
        move |source| Self::Io { what, source }
    }
}

/// Makes the names in a folder durable.
fn sync_folder(path: &Path) -> Result<(), BackupError> {
    let synced = std::fs::File::open(path).and_then(|folder| folder.sync_all());
    synced.map_err(BackupError::io("syncing", path))
}
