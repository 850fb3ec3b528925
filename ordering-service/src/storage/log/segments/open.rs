//! Opening: what the files say is put together, a torn tail that was never synced is cut off, and the lack of anything that was synced is
//! an error.

use std::{
    fs::{self, OpenOptions},
    io::{Seek, SeekFrom},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    catalog::Catalog,
    files::{DEAD, Files, INDEX, NEW, SEGMENT},
    format::{BlockHeader, Header},
    scan::{Scanned, Tear, scan},
    writer::{Start, Writer, reserve_space},
};
use crate::storage::{error::StorageError, limits::LIVE_PERCENT};

/// The log as it was left. `synced` is the number of the newest block known to be synced, or None if there never was a log.
pub(super) fn open(
    files: &Files,
    synced: Option<u64>,
    segment_bytes: u64,
) -> Result<(Catalog, Writer), StorageError> {
    let creating = |error| StorageError::file("creating", &files.directory, &error);
    fs::create_dir_all(&files.directory).map_err(creating)?;
    for kind in [SEGMENT, INDEX, DEAD] {
        let unfinished = format!("{kind}.{NEW}");
        for segment in files.numbers(&unfinished)? {
            files.remove(segment, &unfinished)?;
        }
    }
    let segments = files.numbers(SEGMENT)?;
    for kind in [INDEX, DEAD] {
        for segment in files.numbers(kind)?.into_iter().filter(|segment| !segments.contains(segment)) {
            files.remove(segment, kind)?;
        }
    }
    let Some((newest, closed)) = segments.split_last() else {
        return match synced {
            Some(synced) => Err(missing(files, synced, 0)),
            None => begin(files, segment_bytes),
        };
    };
    let bytes = files.load(*newest)?;
    match Header::decode(&files.seal(*newest), &bytes) {
        Ok(_) => put_together(files, *newest, closed, &bytes, synced, segment_bytes),
        Err(why) => {
            let newest_synced = BlockHeader::newest_synced(&files.seal(*newest), &bytes, 0);
            without_newest(files, *newest, closed, Tear { why, newest_synced }, synced, segment_bytes)
        }
    }
}

/// The very first segment.
fn begin(files: &Files, segment_bytes: u64) -> Result<(Catalog, Writer), StorageError> {
    let header = Header { base: 0, rewritten: false, has_end: true, marks: Default::default() };
    let mut writer = Writer::begin(files, 1, &header, segment_bytes)?;
    writer.sync(files)?;
    Ok((Catalog::new(1), writer))
}

/// The newest segment was being begun when the process ended: nothing of it was synced. The one before goes on.
fn without_newest(
    files: &Files,
    newest: u64,
    closed: &[u64],
    tear: Tear,
    synced: Option<u64>,
    segment_bytes: u64,
) -> Result<(Catalog, Writer), StorageError> {
    let Some((before, closed)) = closed.split_last() else {
        if synced.is_some() || tear.newest_synced > Some(0) {
            return Err(files.corrupt(newest, tear.why));
        }
        files.remove(newest, SEGMENT)?;
        return begin(files, segment_bytes);
    };
    let bytes = files.load(*before)?;
    let known = synced.max(tear.newest_synced);
    let opened = put_together(files, *before, closed, &bytes, known, segment_bytes)?;
    files.remove(*before, INDEX)?;
    files.remove(newest, SEGMENT)?;
    files.sync_directory()?;
    Ok(opened)
}

fn put_together(
    files: &Files,
    newest: u64,
    closed: &[u64],
    bytes: &Bytes,
    synced: Option<u64>,
    segment_bytes: u64,
) -> Result<(Catalog, Writer), StorageError> {
    let mut catalog = Catalog::new(newest);
    for segment in closed {
        let lists = files.lists(*segment)?;
        catalog.add_closed(*segment, &lists);
    }
    let mut began = false;
    let scanned = scan(&files.seal(newest), bytes, |header, effect| {
        if !began {
            catalog.set_marks(header.marks.clone());
            began = true;
        }
        catalog.apply(effect);
    });
    let Scanned { header, end, number, ended, tear } =
        scanned.map_err(|tear| files.corrupt(newest, tear.why))?;
    if !began {
        catalog.set_marks(header.marks);
    }
    if header.rewritten {
        return Err(files.corrupt(newest, "it is the last one, but one that has no marks"));
    }
    // What was synced must be there: as this file's blocks know it, and as the evidence beside the log does.
    let known = tear.as_ref().and_then(|tear| tear.newest_synced).max(synced).unwrap_or(0);
    if number < known {
        return Err(match tear {
            Some(tear) => files.corrupt(newest, format!("at byte {end}: {}", tear.why)),
            None => missing(files, known, number),
        });
    }
    mark_dirty(files, &mut catalog)?;

    let path = files.path(newest, SEGMENT);
    let go_on = || {
        let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
        if tear.is_some() {
            file.set_len(end as u64)?;
        }
        // What is there may have been written by a process that ended before its sync.
        file.sync_data()?;
        file.seek(SeekFrom::Start(end as u64))?;
        Ok(file)
    };
    let file = go_on().map_err(|error| StorageError::file("opening", &path, &error))?;
    files.sync_directory()?;
    reserve_space(&file, segment_bytes);
    let (file, end, fresh) = (Arc::new(file), end as u64, false);
    let start = Start { file, segment: newest, limit: segment_bytes, end, number, ended, fresh };
    Ok((catalog, Writer::going_on(start)))
}

fn missing(files: &Files, synced: u64, found: u64) -> StorageError {
    StorageError::Corrupt {
        what: format!("the log in {}", files.directory.display()),
        detail: format!("blocks up to {synced} were synced, but only those up to {found} can be read"),
    }
}

/// Finds the segments that were left without rows, or with few.
fn mark_dirty(files: &Files, catalog: &mut Catalog) -> Result<(), StorageError> {
    let with_dead = files.numbers(DEAD)?;
    for (segment, rows) in catalog.rows_by_segment() {
        let dead = if with_dead.binary_search(&segment).is_ok() { files.dead(segment)?.rows() } else { 0 };
        if rows.saturating_sub(dead) * 100 < rows.max(1) * LIVE_PERCENT {
            catalog.dirty.insert(segment);
        }
    }
    if with_dead.binary_search(&catalog.active).is_ok() {
        catalog.dirty.insert(catalog.active);
    }
    Ok(())
}
