//! Evidence of what was synced, outside of the log.
//!
//! Every block of the log carries a running number. When a sync has returned, the number it covered is written to this small file. At
//! the next start the log must come back with at least that number. If it does not, synced (and so perhaps acknowledged) data is gone,
//! and the node refuses to start: the end of the log alone can not tell a tail that was never synced, which is fine to lose, from one
//! that was.
//!
//! The file itself is synced once a second and at the end, not each time. So after a crash of the process it is exact. After a loss of
//! power it may lag by that second; then the blocks behind a damaged one may still know better, and damage to just the last ones would
//! go unnoticed.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use tokio::time::{Duration, Instant};

use super::{error::StorageError, limits::SYNCED_MARK_INTERVAL_MS, marker::replace_file};

const FILE: &str = "synced";
/// Two slots, written in turn: a torn write spoils one of them.
const SLOT_BYTES: usize = 512;

/// The file that remembers the newest synced write.
pub(crate) struct SyncedMark {
    path: PathBuf,
    file: File,
    state: Mutex<State>,
}

struct State {
    number: u64,
    synced_at: Instant,
    dirty: bool,
}

impl SyncedMark {
    /// Creates the file.
    pub(crate) fn create(directory: &Path) -> Result<(), StorageError> {
        let mut bytes = vec![0; 2 * SLOT_BYTES];
        bytes[..12].copy_from_slice(&slot(0));
        replace_file(directory, FILE, &bytes)
    }

    /// The data directory has the file.
    pub(crate) fn exists(directory: &Path) -> bool {
        directory.join(FILE).exists()
    }

    /// Opens the file and reads the number in it.
    pub(crate) fn open(directory: &Path) -> Result<(Self, u64), StorageError> {
        let path = directory.join(FILE);
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let file = file.map_err(|error| StorageError::file("opening", &path, &error))?;
        let mut newest = None;
        for at in [0, SLOT_BYTES as u64] {
            let mut bytes = [0; 12];
            match file.read_exact_at(&mut bytes, at) {
                Ok(()) => newest = newest.max(read_slot(&bytes)),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                Err(error) => return Err(StorageError::file("reading", &path, &error)),
            }
        }
        let Some(number) = newest else {
            let detail = "no slot has a valid checksum".into();
            return Err(StorageError::Corrupt { what: path.display().to_string(), detail });
        };
        let state = State { number, synced_at: Instant::now(), dirty: false };
        Ok((SyncedMark { path, file, state: Mutex::new(state) }, number))
    }

    /// A sync that covers everything up to `number` has returned.
    pub(crate) fn record(&self, number: u64) -> Result<(), StorageError> {
        let mut state = self.state.lock();
        if number <= state.number {
            return Ok(());
        }
        let at = (number % 2) * SLOT_BYTES as u64;
        let written = self.file.write_all_at(&slot(number), at);
        written.map_err(|error| StorageError::file("writing", &self.path, &error))?;
        state.number = number;
        state.dirty = true;
        if state.synced_at.elapsed() >= Duration::from_millis(SYNCED_MARK_INTERVAL_MS) {
            self.sync(&mut state)?;
        }
        Ok(())
    }

    /// Syncs the file, if there is something to sync.
    pub(crate) fn settle(&self) -> Result<(), StorageError> {
        self.sync(&mut self.state.lock())
    }

    fn sync(&self, state: &mut State) -> Result<(), StorageError> {
        if state.dirty {
            self.file.sync_data().map_err(|error| StorageError::file("syncing", &self.path, &error))?;
            state.dirty = false;
        }
        state.synced_at = Instant::now();
        Ok(())
    }
}

fn slot(number: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    let checksum = crc32fast::hash(&bytes[..8]);
    bytes[8..].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

fn read_slot(bytes: &[u8; 12]) -> Option<u64> {
    let number = u64::from_be_bytes(*bytes.first_chunk()?);
    (slot(number) == *bytes).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_number_survives_and_a_torn_slot_costs_one() {
        let directory = tempfile::tempdir().unwrap();
        SyncedMark::create(directory.path()).unwrap();
        let (mark, number) = SyncedMark::open(directory.path()).unwrap();
        assert_eq!(number, 0);
        for number in 1..=7 {
            mark.record(number).unwrap();
        }
        mark.record(3).unwrap();
        assert_eq!(SyncedMark::open(directory.path()).unwrap().1, 7);

        let path = directory.path().join(FILE);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[SLOT_BYTES + 3] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(SyncedMark::open(directory.path()).unwrap().1, 6);

        bytes[3] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(SyncedMark::open(directory.path()), Err(StorageError::Corrupt { .. })));
    }
}
