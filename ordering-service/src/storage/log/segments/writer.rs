//! The segment that is written to.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    sync::Arc,
};

use super::{
    block::BlockBuilder,
    files::{Files, SEGMENT},
    format::{BlockHeader, Header},
};
use crate::storage::{
    error::StorageError,
    limits::{PREPARE_BLOCK_BYTES, PREPARED_BYTES},
};

static ZEROS: [u8; PREPARED_BYTES] = [0; PREPARED_BYTES];

/// Where the log goes on. Only one thread writes.
pub(super) struct Writer {
    pub(super) file: Arc<File>,
    pub(super) segment: u64,
    /// Bytes of the header and of blocks in the file.
    pub(super) end: u64,
    /// Bytes of the file that were written before, the zeros behind the last block included.
    prepared: u64,
    /// Bytes that a segment should have.
    limit: u64,
    /// Number of the last block.
    pub(super) number: u64,
    /// Number of the last block that is synced.
    pub(super) synced: u64,
    /// That block ends the segment.
    ended: bool,
    /// The file's name is not synced.
    pub(super) fresh: bool,
    /// There are blocks in it.
    pub(super) begun: bool,
    /// The next block begins a segment, whatever its size.
    pub(super) full: bool,
    /// Gathers the next block.
    pub(super) block: BlockBuilder,
}

/// What is known of a segment before anything more is written to it.
pub(super) struct Start {
    pub(super) file: Arc<File>,
    pub(super) segment: u64,
    /// Bytes that it should have.
    pub(super) limit: u64,
    /// Bytes that it has.
    pub(super) end: u64,
    /// Number of the last block before that.
    pub(super) number: u64,
    /// That block ends the segment: the next one belongs into another.
    pub(super) ended: bool,
    /// Its name is not synced.
    pub(super) fresh: bool,
}

impl Writer {
    /// Begins a segment.
    pub(super) fn begin(
        files: &Files,
        segment: u64,
        header: &Header,
        limit: u64,
    ) -> Result<Self, StorageError> {
        let path = files.path(segment, SEGMENT);
        let bytes = header.encode(&files.seal(segment));
        let begin = || -> io::Result<File> {
            let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
            file.write_all(&bytes)?;
            Ok(file)
        };
        let file = begin().map_err(|error| StorageError::file("creating", &path, &error))?;
        reserve_space(&file, limit);
        let end = bytes.len() as u64;
        let (file, number) = (Arc::new(file), header.base);
        Ok(Writer::going_on(Start { file, segment, limit, end, number, ended: false, fresh: true }))
    }

    /// Goes on behind what is there and synced.
    pub(super) fn going_on(from: Start) -> Self {
        let Start { file, segment, limit, end, number, ended, fresh } = from;
        let block = BlockBuilder::new();
        let (prepared, synced, begun, full) = (end, number, !fresh, ended);
        Writer { file, segment, end, prepared, limit, number, synced, ended, fresh, begun, full, block }
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
        if self.end > self.prepared {
            self.prepare();
        }
        Ok(begin)
    }

    /// Writes zeros behind a small block. The sync of a block that is written over them has only data to write, while one that makes the
    /// file longer waits for the file system's journal, too: small blocks are synced one by one, and large ones bear that.
    fn prepare(&mut self) {
        self.prepared = self.end;
        if self.block.bytes() > PREPARE_BLOCK_BYTES {
            return;
        }
        // Not needed: if the disk refuses it, it will refuse a block, and that is an error.
        let room = usize::try_from(self.limit.saturating_sub(self.end)).unwrap_or(usize::MAX);
        let zeros = &ZEROS[..room.min(ZEROS.len())];
        match self.file.write_all_at(zeros, self.end) {
            Ok(()) => self.prepared += zeros.len() as u64,
            Err(error) => tracing::debug!(%error, "no space is prepared in a segment"),
        }
    }

    /// Nothing more is written to this segment: marks its end, and gives back what was reserved or prepared and not needed. Durable when it
    /// returns. Gives the number of the last block.
    pub(super) fn close(&mut self, files: &Files) -> Result<u64, StorageError> {
        let mut close = || {
            self.write_end(files)?;
            self.file.set_len(self.end)?;
            self.file.sync_all()
        };
        let closed = close();
        closed.map_err(|error| StorageError::file("closing", &files.path(self.segment, SEGMENT), &error))?;
        self.is_synced(files)
    }

    fn write_end(&mut self, files: &Files) -> io::Result<()> {
        if self.ended {
            return Ok(());
        }
        let end = BlockHeader::end(self.number + 1, self.synced).encode(&files.seal(self.segment));
        (&*self.file).write_all(&end)?;
        self.end += end.len() as u64;
        self.number += 1;
        self.ended = true;
        Ok(())
    }

    /// Makes durable what was written. Gives the number of the last block.
    pub(super) fn sync(&mut self, files: &Files) -> Result<u64, StorageError> {
        let synced = self.file.sync_data();
        synced.map_err(|error| StorageError::file("syncing", &files.path(self.segment, SEGMENT), &error))?;
        self.is_synced(files)
    }

    fn is_synced(&mut self, files: &Files) -> Result<u64, StorageError> {
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
