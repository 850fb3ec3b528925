//! The segments against the medium in memory.

mod crash;
mod damage;
mod reclaiming;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use openraft::{EntryPayload, impls::leader_id_adv::LeaderId};
use proptest::prelude::*;
use tempfile::TempDir;

use super::SegmentMedium;
use crate::{
    raft::types::{Proposed, ShardId},
    storage::{
        LogEntry, LogId, Vote,
        error::StorageError,
        log::{
            medium::{Change, Medium, Reclaim},
            memory::MemoryMedium,
        },
    },
};

const SHARDS: ShardId = 3;
const DISK: [u8; 16] = [5; 16];
/// Small, so that a few entries fill a segment.
const SEGMENT: u64 = 6000;

/// What happens to a log. Numbers are relative to what there is.
#[derive(Clone, Debug)]
enum Op {
    Append { shard: ShardId, count: u64, size: usize },
    Truncate { shard: ShardId, back: u64 },
    Mark { shard: ShardId, which: u8 },
    Purge { shard: ShardId, share: f64 },
    Forget { shard: ShardId, every: u64 },
    ForgetAll { shard: ShardId },
    Sync,
    Reclaim,
    Reopen,
}

fn ops(length: usize) -> impl Strategy<Value = Vec<Op>> {
    let shard = || 0..SHARDS;
    let size = prop_oneof![Just(0usize), 1..200usize, 200..900usize, Just(9000)];
    let op = prop_oneof![
        8 => (shard(), 1..9u64, size).prop_map(|(shard, count, size)| Op::Append { shard, count, size }),
        2 => (shard(), 1..12u64).prop_map(|(shard, back)| Op::Truncate { shard, back }),
        2 => (shard(), 0..3u8).prop_map(|(shard, which)| Op::Mark { shard, which }),
        2 => (shard(), 0.0..1.0f64).prop_map(|(shard, share)| Op::Purge { shard, share }),
        2 => (shard(), 1..5u64).prop_map(|(shard, every)| Op::Forget { shard, every }),
        1 => shard().prop_map(|shard| Op::ForgetAll { shard }),
        2 => Just(Op::Sync),
        2 => Just(Op::Reclaim),
        1 => Just(Op::Reopen),
    ];
    proptest::collection::vec(op, 1..length)
}

/// A log on the disk, the same in memory, and what was ever forgotten.
struct Pair {
    directory: TempDir,
    segments: Option<SegmentMedium>,
    memory: MemoryMedium,
    term: u64,
    /// Rows that may be missing, and what they held.
    forgotten: BTreeMap<(ShardId, u64), LogEntry>,
}

fn open(path: &Path) -> Result<SegmentMedium, StorageError> {
    SegmentMedium::open(path, DISK, SEGMENT)
}

impl Pair {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let segments = Some(open(directory.path()).unwrap());
        Pair { directory, segments, memory: MemoryMedium::new(), term: 1, forgotten: BTreeMap::new() }
    }

    fn segments(&self) -> &SegmentMedium {
        self.segments.as_ref().unwrap()
    }

    fn write(&self, changes: &[(ShardId, Change)]) {
        self.segments().write(changes).unwrap();
        self.memory.write(changes).unwrap();
    }

    fn sync(&self) {
        self.segments().sync().unwrap();
        self.memory.sync().unwrap();
    }

    /// The first index that is not purged, and the one behind the last.
    fn bounds(&self, shard: ShardId) -> (u64, u64) {
        let head = self.memory.open_log(shard).unwrap();
        let begin = head.purged.map_or(0, |purged| purged.index + 1);
        (begin, head.last.map_or(begin, |last| last.index + 1))
    }

    fn entry(&self, shard: ShardId, index: u64, size: usize) -> LogEntry {
        let log_id = LogId::new(LeaderId { term: self.term, node_id: 1 }, index);
        let mut command = vec![index as u8; size];
        command.extend_from_slice(format!("{shard} {} {index}", self.term).as_bytes());
        let payload = match size {
            0 => EntryPayload::Blank,
            _ => EntryPayload::Normal(Proposed { at_ms: index, command: command.into() }),
        };
        LogEntry { log_id, payload }
    }

    /// The changes of an operation that writes.
    fn changes(&mut self, op: &Op) -> Vec<(ShardId, Change)> {
        self.term += 1;
        let (shard, change) = match *op {
            Op::Append { shard, count, size } => {
                let (_, next) = self.bounds(shard);
                let entries = (next..next + count).map(|index| self.entry(shard, index, size));
                (shard, Change::Append(entries.collect()))
            }
            Op::Truncate { shard, back } => {
                let (begin, next) = self.bounds(shard);
                (shard, Change::Truncate(next.saturating_sub(back).max(begin)..next))
            }
            Op::Mark { shard, which } => {
                let (_, next) = self.bounds(shard);
                let change = match which {
                    0 => Change::Vote(Vote::new(self.term, 1)),
                    1 => Change::Committed(LogId::new(LeaderId { term: 1, node_id: 1 }, next)),
                    _ => Change::Generation(self.term),
                };
                (shard, change)
            }
            Op::Purge { shard, share } => {
                let (begin, next) = self.bounds(shard);
                let upto = begin + ((next - begin) as f64 * share) as u64;
                match self.memory.read(shard, upto..upto + 1, usize::MAX).unwrap().pop() {
                    Some(entry) => (shard, Change::Purged(entry.log_id)),
                    None => return Vec::new(),
                }
            }
            Op::ForgetAll { shard } => {
                let (begin, _) = self.bounds(shard);
                let Some(upto) = begin.checked_sub(1) else { return Vec::new() };
                self.note_forgotten(shard, 0..begin, 1);
                (shard, Change::ForgetAll(upto))
            }
            _ => return Vec::new(),
        };
        vec![(shard, change)]
    }

    fn note_forgotten(&mut self, shard: ShardId, range: std::ops::Range<u64>, every: u64) -> Vec<u64> {
        let kept = self.memory.kept(shard).unwrap();
        let gone: Vec<u64> =
            kept.into_iter().filter(|index| range.contains(index) && index % every == 0).collect();
        for index in &gone {
            let entry = self.memory.read(shard, *index..index + 1, usize::MAX).unwrap().pop().unwrap();
            self.forgotten.insert((shard, *index), entry);
        }
        gone
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Sync => self.sync(),
            Op::Forget { shard, every } => {
                // As the sweeper does: only what is durably purged.
                self.sync();
                let (begin, _) = self.bounds(shard);
                let gone = self.note_forgotten(shard, 0..begin, every);
                self.segments().forget(shard, &gone).unwrap();
                self.memory.forget(shard, &gone).unwrap();
            }
            Op::ForgetAll { .. } => {
                self.sync();
                let changes = self.changes(op);
                self.write(&changes);
                self.sync();
            }
            Op::Reclaim => self.reclaim(),
            Op::Reopen => {
                self.sync();
                self.reopen();
            }
            _ => {
                let changes = self.changes(op);
                self.write(&changes);
            }
        }
    }

    fn reclaim(&self) {
        loop {
            match self.segments().reclaim().unwrap() {
                Reclaim::Done => break,
                Reclaim::More => {}
                Reclaim::AfterWrite => {
                    self.write(&[(0, Change::Vote(Vote::new(self.term, 1)))]);
                    self.sync();
                }
            }
        }
        self.memory.reclaim().unwrap();
    }

    fn reopen(&mut self) {
        drop(self.segments.take());
        self.segments = Some(open(self.directory.path()).unwrap());
    }

    /// Both say the same of everything that was not forgotten, and of that nothing wrong.
    fn check(&self) {
        same(self.segments(), &self.memory, &self.forgotten).unwrap();
    }
}

/// Compares. An error of the segments is given back.
fn same(
    segments: &SegmentMedium,
    memory: &MemoryMedium,
    forgotten: &BTreeMap<(ShardId, u64), LogEntry>,
) -> Result<(), StorageError> {
    for shard in 0..SHARDS {
        let head = memory.open_log(shard).unwrap();
        assert_eq!(segments.open_log(shard)?, head, "shard {shard}");
        let kept: BTreeSet<u64> = memory.kept(shard).unwrap().into_iter().collect();
        let end = kept.last().map_or(0, |last| last + 1);
        for index in 0..end + 10 {
            let found = segments.read(shard, index..index + 1, usize::MAX)?.pop();
            let expected = memory.read(shard, index..index + 1, usize::MAX).unwrap().pop();
            match forgotten.get(&(shard, index)) {
                Some(was) if !kept.contains(&index) => {
                    assert!(found.is_none_or(|found| found == *was), "entry {index} of shard {shard}");
                }
                _ => assert_eq!(found, expected, "entry {index} of shard {shard}"),
            }
        }
        if let Some(last) = head.last {
            for max_bytes in [usize::MAX, 2000, 0] {
                let range = head.first..last.index + 1;
                let expected = memory.read(shard, range.clone(), max_bytes).unwrap();
                assert_eq!(segments.read(shard, range, max_bytes)?, expected, "shard {shard}");
            }
        }
    }
    Ok(())
}

/// Segment files of a data directory, in order.
fn segment_files(directory: &Path) -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir(directory.join("log")).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|kind| kind == "segment")).collect();
    files.sort();
    files
}
