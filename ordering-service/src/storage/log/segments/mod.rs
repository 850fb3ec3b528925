//! The log of all shards in segment files: what is appended is written once, into the newest file, and stays where it is.
//!
//! | file in `log/` | holds | synced |
//! |---|---|---|
//! | `N.segment` | the changes of all shards, batch by batch, after the marks of every shard as they were ([`format`](self::format)) | with every batch |
//! | `N.index` | the places of the rows of a segment that is written no more ([`index`](self::index)) | no: it can be made again |
//! | `N.dead` | which of its rows were forgotten ([`dead`](self::dead)) | yes, replaced whole |
//!
//! Opening reads the newest segment, because each begins with the marks of every shard, and the first lines of the indexes. In memory are
//! the ranges of rows in every segment ([`catalog`](self::catalog)) and the places of the rows in the newest one. Rows of older ones are
//! found through their indexes, and every row is checked against its checksum when it is read.
//!
//! Blocks of changes are numbered. The number of the newest synced one is kept outside ([`SyncedMark`]) and in every later block, so that
//! a tail that was never synced, which is cut off, can be told from one that was, whose loss is an error ([`open`](self::open)).

mod block;
mod catalog;
mod content;
mod dead;
mod files;
mod format;
mod index;
mod open;
mod reclaim;
mod scan;
#[cfg(test)]
mod tests;
mod writer;

use std::{fs::File, ops::Range, path::Path, sync::Arc};

use parking_lot::{Mutex, RwLock};

use self::{
    block::mark_of,
    catalog::Catalog,
    files::{Fault, Files, Handle, INDEX, read_records, read_slots},
    format::{Header, Slot},
    writer::Writer,
};
use super::{
    LogEntry,
    codec::{decode_entry, entry_bytes},
    medium::{Change, LogHead, Medium, Pin, Pins, Reclaim},
};
use crate::{
    raft::types::ShardId,
    storage::{
        error::StorageError,
        limits::{BLOCK_BYTES, READ_SLOTS},
        metrics,
        synced::SyncedMark,
    },
};

/// The longest segment, so that the places of rows fit into 4 bytes.
const MAX_SEGMENT_BYTES: u64 = 1 << 30;

/// Segment files as the medium of logs.
pub(crate) struct SegmentMedium {
    files: Files,
    segment_bytes: u64,
    /// Locked before `shared`.
    writer: Mutex<Writer>,
    shared: RwLock<Shared>,
    synced: SyncedMark,
    pins: Pins,
}

/// What readers need.
struct Shared {
    catalog: Catalog,
    /// The active segment.
    file: Arc<File>,
}

/// Rows that lie in one segment.
enum Piece {
    Active { segment: u64, file: Arc<File>, slots: Vec<Slot> },
    Closed { segment: u64, handle: Arc<Handle>, at: u64, count: u64 },
}

impl SegmentMedium {
    /// Opens the log in a data directory, or begins one if there never was any.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] if something that was synced is missing or damaged.
    pub(crate) fn open(
        directory: &Path,
        disk_id: [u8; 16],
        segment_bytes: u64,
    ) -> Result<Self, StorageError> {
        let segment_bytes = segment_bytes.min(MAX_SEGMENT_BYTES);
        let files = Files::new(directory.join("log"), disk_id);
        let mark = SyncedMark::exists(directory).then(|| SyncedMark::open(directory)).transpose()?;
        let (catalog, writer) = open::open(&files, mark.as_ref().map(|(_, number)| *number), segment_bytes)?;
        let synced = match mark {
            Some((mark, _)) => mark,
            None if writer.number > 0 => {
                let what = directory.join("synced").display().to_string();
                return Err(StorageError::Corrupt { what, detail: "it is missing beside a log".into() });
            }
            None => {
                SyncedMark::create(directory)?;
                SyncedMark::open(directory)?.0
            }
        };
        synced.record(writer.number)?;
        let shared = Shared { catalog, file: writer.file.clone() };
        let (writer, shared) = (Mutex::new(writer), RwLock::new(shared));
        let medium = SegmentMedium { files, segment_bytes, writer, shared, synced, pins: Pins::default() };
        metrics::begin_log();
        medium.measure();
        Ok(medium)
    }

    /// Writes the block that has gathered, into the next segment if it does not fit.
    fn write_block(&self, writer: &mut Writer) -> Result<(), StorageError> {
        let too_long = writer.end + writer.block.bytes() as u64 > self.segment_bytes;
        if writer.full || (writer.begun && too_long) {
            self.begin_segment(writer)?;
        }
        let begin = writer.write(&self.files)?;
        {
            let mut shared = self.shared.write();
            writer.block.effects(begin).for_each(|effect| shared.catalog.apply(effect));
        }
        writer.block.clear();
        Ok(())
    }

    fn begin_segment(&self, writer: &mut Writer) -> Result<(), StorageError> {
        let segment = writer.segment;
        // Synced, so that what was written since the last sync is not told from the tail of the file that follows.
        self.synced.record(writer.close(&self.files)?)?;
        let (index, lists, marks) = {
            let catalog = &self.shared.read().catalog;
            let (index, lists) = index::encode(&self.files.seal(segment), writer.end, &catalog.content);
            (index, lists, catalog.all_marks())
        };
        self.files.write_index(segment, INDEX, &index)?;
        let header = Header { base: writer.number, rewritten: false, has_end: true, marks };
        let mut next = Writer::begin(&self.files, segment + 1, &header, self.segment_bytes)?;
        std::mem::swap(&mut next.block, &mut writer.block);
        *writer = next;
        {
            let mut shared = self.shared.write();
            shared.catalog.close_active(&lists, segment + 1);
            shared.file = writer.file.clone();
        }
        ::metrics::gauge!(metrics::LOG_BYTES)
            .set((self.shared.read().catalog.closed_total() + writer.end) as f64);
        Ok(())
    }

    fn measure(&self) {
        let active = self.writer.lock().end;
        ::metrics::gauge!(metrics::LOG_BYTES)
            .set((self.shared.read().catalog.closed_total() + active) as f64);
    }

    /// The place of the row at `range.start`, and of as many behind it as lie in the same segment.
    fn piece(&self, shard: ShardId, range: &Range<u64>) -> Result<Option<Piece>, StorageError> {
        let shared = self.shared.read();
        let Some(extent) = shared.catalog.find(shard, range.start) else { return Ok(None) };
        let end = extent.end.min(range.end).min(range.start.saturating_add(READ_SLOTS));
        let segment = extent.segment;
        if segment == shared.catalog.active {
            let slot = |index| shared.catalog.content.slot(shard, extent.run, index);
            let slots = (range.start..end).map_while(slot).collect();
            return Ok(Some(Piece::Active { segment, file: shared.file.clone(), slots }));
        }
        // Opened under the lock: place and file belong together.
        let handle = self.files.handle(segment)?;
        let (at, count) = (extent.slot_at(range.start), end - range.start);
        Ok(Some(Piece::Closed { segment, handle, at, count }))
    }

    /// Reads what one segment holds of a range, up to about `enough` bytes.
    fn read_piece(
        &self,
        shard: ShardId,
        range: &Range<u64>,
        enough: usize,
    ) -> Result<Vec<LogEntry>, StorageError> {
        let mut repaired = false;
        loop {
            let Some(piece) = self.piece(shard, range)? else { return Ok(Vec::new()) };
            let (segment, closed) = match &piece {
                Piece::Active { segment, .. } => (*segment, false),
                Piece::Closed { segment, .. } => (*segment, true),
            };
            match piece.read(shard, range.start, enough) {
                Ok(entries) => return Ok(entries),
                // Its index may be what is damaged.
                Err(Fault::Damaged(_)) if closed && !repaired => {
                    self.files.repair(segment)?;
                    repaired = true;
                }
                Err(fault) => return Err(self.files.fault(segment, fault)),
            }
        }
    }
}

impl Piece {
    fn read(&self, shard: ShardId, first: u64, enough: usize) -> Result<Vec<LogEntry>, Fault> {
        let listed;
        let (file, slots) = match self {
            Piece::Active { file, slots, .. } => (&**file, slots),
            Piece::Closed { handle, at, count, .. } => {
                listed = read_slots(&handle.index, *at, *count)?;
                (&handle.segment, &listed)
            }
        };
        let present = slots.iter().take_while(|slot| !slot.is_hole()).count();
        let found = read_records(file, shard, first, &slots[..present], enough)?;
        let decoded = found.into_iter().map(|found| decode_entry(found.body));
        decoded.collect::<Result<_, _>>().map_err(|error| Fault::Damaged(error.to_string()))
    }
}

impl Medium for SegmentMedium {
    fn open_log(&self, shard: ShardId) -> Result<LogHead, StorageError> {
        let (marks, tail) = {
            let catalog = &self.shared.read().catalog;
            (catalog.marks(shard), catalog.tail(shard))
        };
        let begin = marks.purged.map_or(0, |purged| purged.index + 1);
        let (first, last) = match tail {
            None => (begin, None),
            Some((first, end)) => {
                let last = self.read(shard, end - 1..end, usize::MAX)?.pop();
                (first, last.map(|last| last.log_id))
            }
        };
        Ok(LogHead {
            vote: marks.vote,
            committed: marks.committed,
            purged: marks.purged,
            generation: marks.generation,
            first,
            last,
        })
    }

    fn write(&self, changes: &[(ShardId, Change)]) -> Result<(), StorageError> {
        let writer = &mut *self.writer.lock();
        for (shard, change) in changes {
            let entries = match change {
                Change::Append(entries) => &entries[..],
                change => {
                    if let Some(mark) = mark_of(change) {
                        writer.block.mark(*shard, mark)?;
                    }
                    continue;
                }
            };
            for entry in entries {
                writer.block.entry(*shard, entry)?;
                if writer.block.bytes() >= BLOCK_BYTES {
                    self.write_block(writer)?;
                }
            }
        }
        if writer.block.is_empty() { Ok(()) } else { self.write_block(writer) }
    }

    fn sync(&self) -> Result<(), StorageError> {
        let number = self.writer.lock().sync(&self.files)?;
        self.synced.record(number)
    }

    fn settle(&self) -> Result<(), StorageError> {
        self.synced.settle()
    }

    fn read(
        &self,
        shard: ShardId,
        range: Range<u64>,
        max_bytes: usize,
    ) -> Result<Vec<LogEntry>, StorageError> {
        let (mut entries, mut bytes, mut next) = (Vec::new(), 0, range.start);
        while next < range.end {
            let piece = self.read_piece(shard, &(next..range.end), max_bytes.saturating_sub(bytes))?;
            if piece.is_empty() {
                break;
            }
            for entry in piece {
                bytes += entry_bytes(&entry);
                if bytes > max_bytes && !entries.is_empty() {
                    return Ok(entries);
                }
                next = entry.log_id.index + 1;
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    fn kept(&self, shard: ShardId) -> Result<Vec<u64>, StorageError> {
        let (extents, forgotten) = {
            let catalog = &self.shared.read().catalog;
            (catalog.extents(shard).collect::<Vec<_>>(), catalog.marks(shard).forgotten)
        };
        let mut kept = Vec::new();
        for (first, extent) in extents {
            let dead = self.files.dead(extent.segment)?;
            for index in (first..extent.end).filter(|index| Some(*index) > forgotten) {
                if !dead.contains(shard, index) && !self.read(shard, index..index + 1, usize::MAX)?.is_empty()
                {
                    kept.push(index);
                }
            }
        }
        Ok(kept)
    }

    fn forget(&self, shard: ShardId, indexes: &[u64]) -> Result<(), StorageError> {
        reclaim::forget(self, shard, indexes)
    }

    fn reclaim(&self) -> Result<Reclaim, StorageError> {
        reclaim::reclaim(self)
    }

    fn pin(&self) -> Pin {
        self.pins.pin()
    }
}
