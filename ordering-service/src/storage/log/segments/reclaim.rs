//! Gives back to the disk what forgotten rows took. A closed segment without live rows is deleted; one with few is written again with
//! only those, under a temporary name, synced, and put in its place. One at a time, by the sweeper's thread: the writer never waits for
//! more than the exchange of the names.
//!
//! Rows that are not purged yet count as live. If some of them are truncated meanwhile, what was written is thrown away.

use std::{
    fs::{self, File},
    io::Write,
};

use super::{
    SegmentMedium,
    block::BlockBuilder,
    catalog::Extent,
    content::Content,
    files::{DEAD, Fault, Files, INDEX, NEW, SEGMENT, read_records, read_slots},
    format::{BlockHeader, Header, Record, Slot},
    index,
};
use crate::{
    raft::types::ShardId,
    storage::{
        error::StorageError,
        limits::{LIVE_PERCENT, RECLAIM_ACTIVE_BYTES, RECLAIM_GAIN_BYTES, REWRITE_BLOCK_BYTES},
        log::medium::Reclaim,
        metrics,
    },
};

/// What still refers to a segment.
type Extents = Vec<(ShardId, u64, Extent)>;

/// A live row.
#[derive(Clone, Copy)]
struct Live {
    shard: ShardId,
    index: u64,
    slot: Slot,
}

pub(super) fn forget(medium: &SegmentMedium, shard: ShardId, indexes: &[u64]) -> Result<(), StorageError> {
    let mut by_segment = std::collections::BTreeMap::<u64, Vec<u64>>::new();
    {
        let shared = medium.shared.read();
        for index in indexes {
            if let Some(extent) = shared.catalog.find(shard, *index) {
                by_segment.entry(extent.segment).or_default().push(*index);
            }
        }
    }
    for (segment, indexes) in &by_segment {
        let mut dead = medium.files.dead(*segment)?;
        indexes.iter().for_each(|index| dead.add(shard, *index));
        medium.files.write_dead(*segment, &dead)?;
    }
    medium.shared.write().catalog.dirty.extend(by_segment.into_keys());
    Ok(())
}

/// One step.
pub(super) fn reclaim(medium: &SegmentMedium) -> Result<Reclaim, StorageError> {
    if medium.pins.any() || medium.writer.lock().fresh {
        return Ok(Reclaim::Done);
    }
    let (segment, extents, cuts, bytes) = {
        let mut shared = medium.shared.write();
        let catalog = &mut shared.catalog;
        catalog.drop_forgotten();
        let active = catalog.active;
        let Some(segment) = catalog.dirty.iter().copied().find(|segment| *segment != active) else {
            drop(shared);
            return close_active(medium);
        };
        catalog.dirty.remove(&segment);
        let Some(bytes) = catalog.closed_bytes(segment) else { return Ok(Reclaim::More) };
        (segment, catalog.extents_in(segment), catalog.needed_cuts(segment), bytes)
    };
    if extents.is_empty() && cuts.is_empty() {
        delete(medium, segment, bytes)?;
        return Ok(Reclaim::More);
    }
    let looked = match look_into(medium, segment, &extents, &cuts, bytes) {
        // Its index may be what is damaged.
        Err(Fault::Damaged(_)) => {
            medium.files.repair(segment)?;
            look_into(medium, segment, &extents, &cuts, bytes)
        }
        looked => looked,
    };
    looked.map_err(|fault| medium.files.fault(segment, fault))?;
    Ok(Reclaim::More)
}

/// Deletes or rewrites a segment, if that is worth it.
fn look_into(
    medium: &SegmentMedium,
    segment: u64,
    extents: &Extents,
    cuts: &[(ShardId, u64)],
    bytes: u64,
) -> Result<(), Fault> {
    let live = live(&medium.files, segment, extents)?;
    let live_bytes: u64 = live.iter().map(|row| u64::from(row.slot.bytes)).sum();
    if live.is_empty() && cuts.is_empty() {
        return delete(medium, segment, bytes).map_err(Fault::Failed);
    }
    if live_bytes * 100 >= bytes * LIVE_PERCENT || live_bytes + RECLAIM_GAIN_BYTES >= bytes {
        return Ok(());
    }
    let (content, written) = copy(&medium.files, segment, cuts, &live)?;
    exchange(medium, segment, extents, &content, bytes, written).map_err(Fault::Failed)
}

/// The rows of a segment that are referred to and not forgotten, in the order in which they are appended again.
fn live(files: &Files, segment: u64, extents: &Extents) -> Result<Vec<Live>, Fault> {
    let dead = files.dead(segment).map_err(Fault::Failed)?;
    let handle = files.handle(segment).map_err(Fault::Failed)?;
    let mut live = Vec::new();
    for (shard, first, extent) in extents {
        let slots = read_slots(&handle.index, extent.slot_at(*first), extent.end - first)?;
        for (index, slot) in (*first..).zip(slots) {
            if !slot.is_hole() && !dead.contains(*shard, index) {
                live.push(Live { shard: *shard, index, slot });
            }
        }
    }
    live.sort_unstable_by_key(|row| (row.shard, row.index));
    Ok(live)
}

fn delete(medium: &SegmentMedium, segment: u64, bytes: u64) -> Result<(), StorageError> {
    {
        let mut shared = medium.shared.write();
        shared.catalog.remove_closed(segment);
        medium.files.release(segment);
    }
    medium.files.remove(segment, SEGMENT)?;
    medium.files.remove(segment, INDEX)?;
    medium.files.sync_directory()?;
    medium.files.remove(segment, DEAD)?;
    freed(medium, bytes);
    Ok(())
}

/// Asks for another active segment if most rows of this one are dead. Counts rows, because their places are the writer's.
fn close_active(medium: &SegmentMedium) -> Result<Reclaim, StorageError> {
    if medium.writer.lock().end < RECLAIM_ACTIVE_BYTES {
        return Ok(Reclaim::Done);
    }
    let (segment, rows) = {
        let catalog = &medium.shared.read().catalog;
        if !catalog.dirty.contains(&catalog.active) {
            return Ok(Reclaim::Done);
        }
        let extents = catalog.extents_in(catalog.active);
        (catalog.active, extents.iter().map(|(_, first, extent)| extent.end - first).sum::<u64>())
    };
    let dead = medium.files.dead(segment)?.rows();
    if rows.saturating_sub(dead) * 100 >= rows.max(1) * LIVE_PERCENT {
        return Ok(Reclaim::Done);
    }
    medium.writer.lock().full = true;
    Ok(Reclaim::AfterWrite)
}

/// Puts a segment that was written again in the place of the old one.
fn exchange(
    medium: &SegmentMedium,
    segment: u64,
    extents: &Extents,
    content: &Content,
    bytes: u64,
    written: u64,
) -> Result<(), StorageError> {
    let files = &medium.files;
    let (index_bytes, lists) = index::encode(&files.seal(segment), written, content);
    files.write_index(segment, &format!("{INDEX}.{NEW}"), &index_bytes)?;
    {
        // Under the lock, so that nobody finds a place in the one file and reads it in the other.
        let mut shared = medium.shared.write();
        if shared.catalog.extents_in(segment) != *extents {
            shared.catalog.dirty.insert(segment);
            drop(shared);
            files.remove(segment, &format!("{SEGMENT}.{NEW}"))?;
            return files.remove(segment, &format!("{INDEX}.{NEW}"));
        }
        for kind in [SEGMENT, INDEX] {
            let (from, to) = (files.path(segment, &format!("{kind}.{NEW}")), files.path(segment, kind));
            fs::rename(&from, &to).map_err(|error| StorageError::file("renaming", &from, &error))?;
        }
        shared.catalog.replace_closed(segment, &lists);
        files.release(segment);
    }
    files.sync_directory()?;
    files.remove(segment, DEAD)?;
    freed(medium, bytes.saturating_sub(written));
    Ok(())
}

/// Writes a segment again with its live rows only, synced, under a temporary name. Gives what it holds and how long it is.
fn copy(
    files: &Files,
    segment: u64,
    cuts: &[(ShardId, u64)],
    live: &[Live],
) -> Result<(Content, u64), Fault> {
    let path = files.path(segment, &format!("{SEGMENT}.{NEW}"));
    let failed = |error: &std::io::Error| Fault::Failed(StorageError::file("writing", &path, error));
    let seal = files.seal(segment);
    let source = files.handle(segment).map_err(Fault::Failed)?;
    let mut file = File::create(&path).map_err(|error| failed(&error))?;
    let header = Header { base: 0, rewritten: true, has_end: true, marks: Default::default() }.encode(&seal);
    file.write_all(&header).map_err(|error| failed(&error))?;
    let (mut content, mut end, mut number) = (Content::new(true), header.len() as u64, 0);
    let mut block = BlockBuilder::new();
    for (shard, from) in cuts {
        block.mark(*shard, Record::Truncate { from: *from }).map_err(Fault::Failed)?;
    }
    let mut write = |block: &mut BlockBuilder| -> Result<(), Fault> {
        if block.is_empty() {
            return Ok(());
        }
        number += 1;
        block.write(&file, &seal, number, 0).map_err(|error| failed(&error))?;
        for effect in block.effects(end) {
            match effect.record {
                Record::Entry { index } => {
                    content.append(effect.shard, index, effect.slot);
                }
                Record::Truncate { from } => content.truncate(effect.shard, from),
                _ => {}
            }
        }
        end += block.bytes() as u64;
        block.clear();
        Ok(())
    };
    for row in live {
        let found = read_records(&source.segment, row.shard, row.index, &[row.slot], 1)?;
        for found in found {
            block.copy(row.shard, row.index, &found.whole, row.slot.checksum);
        }
        if block.bytes() >= REWRITE_BLOCK_BYTES {
            write(&mut block)?;
        }
    }
    write(&mut block)?;
    let last = BlockHeader::end(number + 1, 0).encode(&seal);
    file.write_all(&last).map_err(|error| failed(&error))?;
    end += last.len() as u64;
    file.sync_all().map_err(|error| failed(&error))?;
    Ok((content, end))
}

fn freed(medium: &SegmentMedium, bytes: u64) {
    ::metrics::counter!(metrics::LOG_RECLAIMED_BYTES_TOTAL).increment(bytes);
    medium.measure();
}
