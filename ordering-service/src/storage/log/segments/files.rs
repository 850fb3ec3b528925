//! The files of the log's folder: their names, the few that are held open, and reading rows from them.

use std::{
    fs::{self, File},
    io,
    num::NonZeroUsize,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;

use super::{
    dead::Dead,
    format::{Found, Record, Seal, Slot, read_record},
    index::{self, Lists},
    scan::scan_closed,
};
use crate::{
    raft::types::ShardId,
    storage::{
        error::StorageError,
        limits::{OPEN_SEGMENTS, READ_GAP_BYTES, READ_PIECE_BYTES},
        marker::replace_file,
    },
};

pub(super) const SEGMENT: &str = "segment";
pub(super) const INDEX: &str = "index";
pub(super) const DEAD: &str = "dead";
/// What is behind the name of a file that is not complete yet.
pub(super) const NEW: &str = "new";

/// The log's folder.
pub(super) struct Files {
    pub(super) directory: PathBuf,
    disk_id: [u8; 16],
    open: Mutex<LruCache<u64, Arc<Handle>>>,
    repairing: Mutex<()>,
}

/// A closed segment and its index, open for reading. They stay what they were when they are replaced.
pub(super) struct Handle {
    pub(super) segment: File,
    pub(super) index: File,
}

/// Why rows were not read.
#[derive(Debug)]
pub(super) enum Fault {
    /// What is there is not what should be.
    Damaged(String),
    Failed(StorageError),
}

impl Files {
    pub(super) fn new(directory: PathBuf, disk_id: [u8; 16]) -> Self {
        let open = NonZeroUsize::new(OPEN_SEGMENTS).unwrap_or(NonZeroUsize::MIN);
        Files { directory, disk_id, open: Mutex::new(LruCache::new(open)), repairing: Mutex::default() }
    }

    pub(super) fn seal(&self, segment: u64) -> Seal {
        Seal { disk_id: self.disk_id, segment }
    }

    pub(super) fn name(segment: u64, kind: &str) -> String {
        format!("{segment:010}.{kind}")
    }

    pub(super) fn path(&self, segment: u64, kind: &str) -> PathBuf {
        self.directory.join(Files::name(segment, kind))
    }

    /// Numbers of the files of one kind, in order. Others are none of ours.
    pub(super) fn numbers(&self, kind: &str) -> Result<Vec<u64>, StorageError> {
        let listing = |error: io::Error| StorageError::file("listing", &self.directory, &error);
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(listing)? {
            let name = entry.map_err(listing)?.file_name();
            let number =
                name.to_str().and_then(|name| name.strip_suffix(kind)?.strip_suffix('.')?.parse().ok());
            numbers.extend(number.filter(|number| name == *Files::name(*number, kind)));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Makes names durable.
    pub(super) fn sync_directory(&self) -> Result<(), StorageError> {
        let synced = File::open(&self.directory).and_then(|directory| directory.sync_all());
        synced.map_err(|error| StorageError::file("syncing", &self.directory, &error))
    }

    /// Removes a file, if it is there.
    pub(super) fn remove(&self, segment: u64, kind: &str) -> Result<(), StorageError> {
        let path = self.path(segment, kind);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StorageError::file("removing", &path, &error))
            }
            _ => Ok(()),
        }
    }

    /// A whole segment.
    pub(super) fn load(&self, segment: u64) -> Result<Bytes, StorageError> {
        let path = self.path(segment, SEGMENT);
        fs::read(&path).map(Bytes::from).map_err(|error| reading(&path, &error))
    }

    /// A closed segment for reading.
    pub(super) fn handle(&self, segment: u64) -> Result<Arc<Handle>, StorageError> {
        let mut open = self.open.lock();
        if let Some(handle) = open.get(&segment) {
            return Ok(handle.clone());
        }
        let open_file = |kind| {
            let path = self.path(segment, kind);
            File::open(&path).map_err(|error| reading(&path, &error))
        };
        let handle = Arc::new(Handle { segment: open_file(SEGMENT)?, index: open_file(INDEX)? });
        open.put(segment, handle.clone());
        Ok(handle)
    }

    /// Its files were replaced or removed.
    pub(super) fn release(&self, segment: u64) {
        self.open.lock().pop(&segment);
    }

    /// Writes an index. It is not synced: it can be made again.
    pub(super) fn write_index(&self, segment: u64, kind: &str, bytes: &[u8]) -> Result<(), StorageError> {
        let path = self.path(segment, kind);
        fs::write(&path, bytes).map_err(|error| StorageError::file("writing", &path, &error))
    }

    /// What the index of a closed segment says before its table, made again from the segment if need be.
    pub(super) fn lists(&self, segment: u64) -> Result<Lists, StorageError> {
        let path = self.path(segment, SEGMENT);
        let bytes = fs::metadata(&path).map_err(|error| reading(&path, &error))?.len();
        match self.stored_lists(segment) {
            Ok(Some(lists)) if lists.segment_bytes == bytes => Ok(lists),
            Ok(_) => self.repair(segment),
            Err(error) => Err(error),
        }
    }

    fn stored_lists(&self, segment: u64) -> Result<Option<Lists>, StorageError> {
        let path = self.path(segment, INDEX);
        let read = || -> io::Result<Option<Lists>> {
            let file = File::open(&path)?;
            let length = file.metadata()?.len();
            let mut fixed = [0; index::FIXED_BYTES];
            file.read_exact_at(&mut fixed, 0)?;
            let head = index::FIXED_BYTES + index::lists_bytes(&fixed);
            if head as u64 > length {
                return Ok(None);
            }
            let mut bytes = vec![0; head];
            file.read_exact_at(&mut bytes, 0)?;
            Ok(index::decode(&self.seal(segment), bytes.into(), length).ok())
        };
        match read() {
            Ok(lists) => Ok(lists),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => {
                Ok(None)
            }
            Err(error) => Err(StorageError::file("reading", &path, &error)),
        }
    }

    /// Makes the index of a closed segment again.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] if the segment itself is damaged.
    pub(super) fn repair(&self, segment: u64) -> Result<Lists, StorageError> {
        let _one_at_a_time = self.repairing.lock();
        let (seal, file) = (self.seal(segment), self.load(segment)?);
        let content = scan_closed(&seal, &file)
            .map_err(|error| StorageError::row(self.path(segment, SEGMENT).display(), error))?;
        tracing::warn!(segment, "the index of a segment is made again");
        let (bytes, lists) = index::encode(&seal, file.len() as u64, &content);
        replace_file(&self.directory, &Files::name(segment, INDEX), &bytes)?;
        self.release(segment);
        Ok(lists)
    }

    /// The rows of a segment that were forgotten.
    pub(super) fn dead(&self, segment: u64) -> Result<Dead, StorageError> {
        let path = self.path(segment, DEAD);
        match fs::read(&path) {
            Ok(bytes) => Ok(Dead::decode(&self.seal(segment), bytes.into()).unwrap_or_else(|error| {
                tracing::warn!(%error, file = %path.display(), "rows that were forgotten stay on the disk");
                Dead::default()
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Dead::default()),
            Err(error) => Err(StorageError::file("reading", &path, &error)),
        }
    }

    pub(super) fn write_dead(&self, segment: u64, dead: &Dead) -> Result<(), StorageError> {
        replace_file(&self.directory, &Files::name(segment, DEAD), &dead.encode(&self.seal(segment)))
    }

    pub(super) fn fault(&self, segment: u64, fault: Fault) -> StorageError {
        match fault {
            Fault::Damaged(detail) => self.corrupt(segment, detail),
            Fault::Failed(error) => error,
        }
    }

    /// Damage to what was synced.
    pub(super) fn corrupt(&self, segment: u64, detail: impl ToString) -> StorageError {
        let what = self.path(segment, SEGMENT).display().to_string();
        StorageError::Corrupt { what, detail: detail.to_string() }
    }
}

/// A file that has to be there can not be read.
fn reading(path: &Path, error: &io::Error) -> StorageError {
    if error.kind() == io::ErrorKind::NotFound {
        return StorageError::Corrupt { what: path.display().to_string(), detail: "it is missing".into() };
    }
    StorageError::file("reading", path, error)
}

/// Reads a part of an index's table.
pub(super) fn read_slots(index: &File, at: u64, count: u64) -> Result<Vec<Slot>, Fault> {
    let mut bytes = vec![0; count as usize * Slot::ENCODED_BYTES];
    read_exactly(index, &mut bytes, at)?;
    Ok(index::slots(&bytes))
}

/// Reads records, neighbours together. Stops before the next read once `enough` bytes are read.
pub(super) fn read_records(
    file: &File,
    shard: ShardId,
    first: u64,
    slots: &[Slot],
    enough: usize,
) -> Result<Vec<Found>, Fault> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    let mut rest = slots;
    while !rest.is_empty() && (found.is_empty() || bytes < enough) {
        let together = neighbours(rest, enough.saturating_sub(bytes));
        let (group, later) = rest.split_at(together);
        let begin = group[0].offset as usize;
        let end = group[together - 1].offset as usize + group[together - 1].bytes as usize;
        let mut read = vec![0; end - begin];
        read_exactly(file, &mut read, begin as u64)?;
        let read = Bytes::from(read);
        for slot in group {
            let at = slot.offset as usize - begin;
            let record = read.slice(at..at + slot.bytes as usize);
            found.push(check(record, shard, first + found.len() as u64, slot)?);
        }
        bytes += read.len();
        rest = later;
    }
    Ok(found)
}

/// How many of the first slots lie close enough together to be read at once.
fn neighbours(slots: &[Slot], enough: usize) -> usize {
    let begin = u64::from(slots[0].offset);
    let end = |slot: &Slot| u64::from(slot.offset) + u64::from(slot.bytes);
    let limit = enough.min(READ_PIECE_BYTES) as u64;
    let close = slots.windows(2).take_while(|pair| {
        let gap = u64::from(pair[1].offset).checked_sub(end(&pair[0]));
        gap.is_some_and(|gap| gap <= READ_GAP_BYTES) && end(&pair[1]) - begin <= limit
    });
    1 + close.count()
}

fn check(bytes: Bytes, shard: ShardId, index: u64, slot: &Slot) -> Result<Found, Fault> {
    let damaged = |what: String| Fault::Damaged(format!("entry {index} of shard {shard}: {what}"));
    let found = read_record(&bytes, slot.offset as usize).map_err(|error| damaged(error.to_string()))?;
    if found.slot != *slot || found.shard != shard || found.record != (Record::Entry { index }) {
        return Err(damaged(format!("{:?} of shard {} is in its place", found.record, found.shard)));
    }
    Ok(found)
}

fn read_exactly(file: &File, bytes: &mut [u8], at: u64) -> Result<(), Fault> {
    file.read_exact_at(bytes, at).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Fault::Damaged(format!("it ends before {}", at + bytes.len() as u64)),
        _ => {
            let what = "reading the log".into();
            Fault::Failed(StorageError::Io { what, detail: error.to_string() })
        }
    })
}
