//! The segment that is written to.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    sync::Arc,
};

use super::{
    block::BlockBuilder,
    files::{Files, SEGMENT},
    format::Header,
};
use crate::storage::error::StorageError;

/// Where the log goes on. Only one thread writes.
pub(super) struct Writer {
    pub(super) file: Arc<File>,
    pub(super) segment: u64,
    /// Bytes in the file.
    pub(super) end: u64,
    /// Number of the last block.
    pub(super) number: u64,
    /// Number of the last block that is synced.
    pub(super) synced: u64,
    /// The file's name is not synced.
    pub(super) fresh: bool,
    /// There are blocks in it.
    pub(super) begun: bool,
    /// The next block begins a segment, whatever its size.
    pub(super) full: bool,
    /// Gathers the next block.
    pub(super) block: BlockBuilder,
}

impl Writer {
    /// Begins a segment.
    pub(super) fn begin(
        files: &Files,
        segment: u64,
        header: &Header,
        reserve: u64,
    ) -> Result<Self, StorageError> {
        let path = files.path(segment, SEGMENT);
        let bytes = header.encode(&files.seal(segment));
        let begin = || -> io::Result<File> {
            let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
            file.write_all(&bytes)?;
            Ok(file)
        };
        let file = begin().map_err(|error| StorageError::file("creating", &path, &error))?;
        reserve_space(&file, reserve);
        let end = bytes.len() as u64;
        Ok(Writer::going_on(Arc::new(file), segment, end, header.base, true))
    }

    /// Goes on behind what is there and synced.
    pub(super) fn going_on(file: Arc<File>, segment: u64, end: u64, number: u64, fresh: bool) -> Self {
        let block = BlockBuilder::new();
        Writer { file, segment, end, number, synced: number, fresh, begun: !fresh, full: false, block }
    }

    /// Writes the block that has gathered, which stays as it is. Gives the place where it begins.
    pub(super) fn write(&mut self, files: &Files) -> Result<u64, StorageError> {
        let seal = files.seal(self.segment);
        let written = self.block.write(&*self.file, &seal, self.number + 1, self.synced);
        written.map_err(|error| StorageError::file("writing", &files.path(self.segment, SEGMENT), &error))?;
        let begin = self.end;
        self.end += self.block.bytes() as u64;
        self.number += 1;
        self.begun = true;
        Ok(begin)
    }

    /// Makes durable what was written. Gives the number of the last block.
    pub(super) fn sync(&mut self, files: &Files) -> Result<u64, StorageError> {
        let synced = self.file.sync_data();
        synced.map_err(|error| StorageError::file("syncing", &files.path(self.segment, SEGMENT), &error))?;
        if self.fresh {
            files.sync_directory()?;
            self.fresh = false;
        }
        self.synced = self.number;
        Ok(self.number)
    }
}

/// Asks for the space of a whole segment in one piece, behind the end of the file. A file system that can not do that, or has no more
/// room, says so when the space is needed.
pub(super) fn reserve_space(file: &File, bytes: u64) {
    let reserved = rustix::fs::fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, bytes);
    if let Err(error) = reserved {
        tracing::debug!(%error, "no space is reserved for a segment");
    }
}
