//! What can go wrong with the state file.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// The state file cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be created or opened.
    #[error("cannot use the state file {path}: {source}; choose another with --state")]
    File {
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process holds the lock.
    #[error(
        "the state file {path} is in use by another process; stop it first, or use a state file of its own for each client"
    )]
    InUse {
        /// Where it is.
        path: PathBuf,
    },
    /// The file belongs to something else.
    #[error(
        "the file is not a state file of this program (application id {got:#x}, expected {expected:#x}); choose another with --state"
    )]
    Foreign {
        /// The application id of our files.
        expected: i32,
        /// The one of this file.
        got: i32,
    },
    /// The file was written by a newer version of this program.
    #[error(
        "the state file has schema version {got}, this program knows up to {known}; use the newer program"
    )]
    NewerSchema {
        /// Newest version known here.
        known: i32,
        /// Version of the file.
        got: i32,
    },
    /// A row does not hold what it must.
    #[error("the state file is damaged: {what} ({detail}); restore it, or start with a new identity")]
    Damaged {
        /// Which part.
        what: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// There is an identity already.
    #[error("the state file holds an identity already; use it, or choose another file with --state")]
    IdentityExists,
    /// SQLite failed.
    #[error("the state file cannot be read or written: {0}; check the disk and its free space")]
    Sqlite(rusqlite::Error),
}

impl StoreError {
    pub(super) fn open(path: &Path, error: rusqlite::Error) -> Self {
        StoreError::from(error).named(path)
    }

    pub(super) fn named(self, path: &Path) -> Self {
        match self {
            StoreError::InUse { .. } => StoreError::InUse { path: path.to_owned() },
            other => other,
        }
    }

    pub(crate) fn damaged(what: &'static str, detail: impl ToString) -> Self {
        StoreError::Damaged { what, detail: detail.to_string() }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                StoreError::InUse { path: PathBuf::new() }
            }
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                StoreError::damaged("SQLite cannot read it", error)
            }
            _ => StoreError::Sqlite(error),
        }
    }
}
