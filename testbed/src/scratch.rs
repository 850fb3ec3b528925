//! The folder that holds a cluster's data and logs.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

#[derive(Debug)]
pub(crate) enum Scratch {
    /// Removed at the end.
    Temporary(TempDir),
    /// Stays.
    Kept(PathBuf),
}

impl Scratch {
    pub(crate) fn temporary() -> io::Result<Self> {
        tempfile::Builder::new().prefix("concordat-").tempdir().map(Self::Temporary)
    }

    pub(crate) fn kept(path: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        Ok(Self::Kept(path))
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Temporary(dir) => dir.path(),
            Self::Kept(path) => path,
        }
    }

    /// Leaves a temporary folder where it is, for whoever looks into a failure.
    pub(crate) fn keep(&mut self) {
        if let Self::Temporary(dir) = self {
            dir.disable_cleanup(true);
        }
    }
}
