//! Room on the disk. Writes are refused while there is a reserve left, because a disk that is full in the middle of a write
//! needs a restart.

use std::{io, path::PathBuf};

use parking_lot::Mutex;
use tokio::time::{Duration, Instant};

use super::{error::StorageError, limits::FREE_SPACE_CHECK_MS, metrics};

/// Measures a disk.
pub trait FreeSpace: Send + Sync + 'static {
    /// Bytes that this process may still write.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// The file system under a directory.
pub struct FileSystem(pub PathBuf);

impl FreeSpace for FileSystem {
    fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.0)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// Remembers a measurement for a moment, so that asking costs nothing.
pub(crate) struct Room {
    disk: Box<dyn FreeSpace>,
    reserve: u64,
    measured: Mutex<Option<(Instant, u64)>>,
}

impl Room {
    pub(crate) fn new(disk: Box<dyn FreeSpace>, reserve: u64) -> Self {
        Room { disk, reserve, measured: Mutex::new(None) }
    }

    /// Fails with [`StorageError::DiskFull`] when less than the reserve is free.
    pub(crate) fn check(&self) -> Result<(), StorageError> {
        let mut measured = self.measured.lock();
        let free = match *measured {
            Some((at, free)) if at.elapsed() < Duration::from_millis(FREE_SPACE_CHECK_MS) => free,
            _ => {
                let free = self.disk.free_bytes().map_err(|error| StorageError::Io {
                    what: "measuring free disk space".into(),
                    detail: error.to_string(),
                })?;
                ::metrics::gauge!(metrics::DISK_FREE_BYTES).set(free as f64);
                *measured = Some((Instant::now(), free));
                free
            }
        };
        match free < self.reserve {
            true => Err(StorageError::DiskFull { free, reserve: self.reserve }),
            false => Ok(()),
        }
    }
}
