//! A crash may cost the tail that was never synced, and nothing else.

use std::fs;

use bytes::Bytes;
use proptest::prelude::*;

use super::{Op, Pair, ops, segment_files};
use crate::storage::log::{
    medium::Medium,
    segments::format::{BLOCK_HEADER_BYTES, Header, Seal},
};

/// What a crash leaves behind the place up to which data arrived.
#[derive(Clone, Copy, Debug)]
enum Rest {
    Nothing,
    Zeros,
    Rubbish,
}

fn rests() -> impl Strategy<Value = Rest> {
    prop_oneof![Just(Rest::Nothing), Just(Rest::Zeros), Just(Rest::Rubbish)]
}

/// Where the log ended after a write: segment and bytes.
type Place = (u64, u64);

fn place(pair: &Pair) -> Place {
    let writer = pair.segments().writer.lock();
    (writer.segment, writer.end)
}

/// Writes without syncing, then loses what is behind some byte of the newest file.
fn crash(pair: &mut Pair, unsynced: &[Op], share: f64, rest: Rest) {
    pair.sync();
    let synced = place(pair);
    let mut writes = Vec::new();
    for op in unsynced.iter().filter(|op| !matches!(op, Op::ForgetAll { .. } | Op::Forget { .. })) {
        let changes = pair.changes(op);
        if !changes.is_empty() {
            pair.write(&changes);
            writes.push((place(pair), changes.len()));
        }
    }
    let (newest, end) = place(pair);
    let safe = if newest == synced.0 { synced.1 } else { 0 };
    let kept_bytes = safe + ((end - safe) as f64 * share) as u64;
    drop(pair.segments.take());

    let path = segment_files(pair.directory.path()).pop().unwrap();
    let mut whole = fs::read(&path).unwrap();
    assert!(whole.drain(end as usize..).all(|byte| byte == 0), "prepared space is zero");
    let mut bytes = whole.clone();
    bytes.truncate(kept_bytes as usize);
    match rest {
        Rest::Nothing => {}
        Rest::Zeros => bytes.resize(end as usize + 100, 0),
        Rest::Rubbish => bytes.resize(end as usize, 0xa5),
    }
    // Zeros may be what was lost.
    let arrived = whole.iter().zip(&bytes).take_while(|(was, is)| was == is).count() as u64;
    fs::write(&path, bytes).unwrap();
    let survives = |(segment, end): Place| segment < newest || end <= arrived;
    let kept: usize = writes.iter().filter(|(at, _)| survives(*at)).map(|(_, changes)| changes).sum();
    pair.memory.crash(kept);
    pair.segments = Some(super::open(pair.directory.path()).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn what_was_synced_survives_a_crash_at_any_byte_and_the_rest_survives_up_to_some_write(
        before in ops(25), unsynced in ops(8), share in 0.0..=1.0f64, rest in rests(), after in ops(12)
    ) {
        let mut pair = Pair::new();
        before.iter().for_each(|op| pair.run(op));
        crash(&mut pair, &unsynced, share, rest);
        pair.check();
        // The log goes on behind the cut, and can crash again.
        after.iter().for_each(|op| pair.run(op));
        pair.check();
        crash(&mut pair, &unsynced, 1.0 - share, rest);
        pair.check();
    }
}

/// What comes next does not fit beside it.
const FILLS_A_SEGMENT: Op = Op::Append { shard: 1, count: 8, size: 700 };

/// A log that ended when its second segment had just been begun, and where it was last synced, at the end of the first.
fn at_a_segments_end() -> (Pair, Place) {
    let mut pair = Pair::new();
    pair.run(&FILLS_A_SEGMENT);
    pair.sync();
    let synced = place(&pair);
    pair.run(&FILLS_A_SEGMENT);
    assert!(place(&pair).0 > synced.0, "another segment is begun");
    drop(pair.segments.take());
    (pair, synced)
}

#[test]
fn a_segment_that_was_never_begun_for_good_gives_way_to_the_one_before() {
    let (mut pair, (first, _)) = at_a_segments_end();
    let newest = segment_files(pair.directory.path()).pop().unwrap();
    for cut in [0, 1, 40] {
        let bytes = fs::read(&newest).unwrap();
        fs::write(&newest, &bytes[..cut]).unwrap();
        pair.segments = Some(super::open(pair.directory.path()).unwrap());
        pair.memory.crash(0);
        pair.check();
        assert_eq!(place(&pair).0, first);
        pair.run(&FILLS_A_SEGMENT);
        assert!(place(&pair).0 > first);
        drop(pair.segments.take());
    }
}

#[test]
fn a_crash_while_a_segment_is_ended_loses_nothing() {
    let (mut pair, (_, end)) = at_a_segments_end();
    pair.memory.crash(0);
    // The next one was not begun yet, and the mark of this one's end arrived in part, with prepared space behind it, or whole.
    let files = segment_files(pair.directory.path());
    fs::remove_file(&files[1]).unwrap();
    let whole = fs::read(&files[0]).unwrap();
    assert_eq!(whole.len() as u64, end + BLOCK_HEADER_BYTES as u64);
    crate::storage::synced::SyncedMark::create(pair.directory.path()).unwrap();
    for (arrived, zeros) in
        [(0, 0), (1, 0), (BLOCK_HEADER_BYTES - 1, 30), (BLOCK_HEADER_BYTES, 30), (BLOCK_HEADER_BYTES, 0)]
    {
        let mut bytes = whole[..end as usize + arrived].to_vec();
        bytes.resize(bytes.len() + zeros, 0);
        fs::write(&files[0], bytes).unwrap();
        pair.reopen();
        pair.check();
    }
    // After its end nothing is appended to it.
    pair.run(&FILLS_A_SEGMENT);
    pair.sync();
    assert_eq!(fs::read(&files[0]).unwrap(), whole);
    pair.check();
    pair.reopen();
    pair.check();
}

#[test]
fn segments_of_the_format_without_an_end_are_read() {
    let mut pair = Pair::new();
    for _ in 0..3 {
        pair.run(&Op::Append { shard: 1, count: 8, size: 700 });
    }
    pair.sync();
    pair.reopen();
    drop(pair.segments.take());
    let files = segment_files(pair.directory.path());
    assert_eq!(files.len(), 3);
    for (number, path) in (1..).zip(&files) {
        // As the first version wrote them.
        let seal = Seal { disk_id: super::DISK, segment: number };
        let bytes = Bytes::from(fs::read(path).unwrap());
        let (header, length) = Header::decode(&seal, &bytes).unwrap();
        let end = if number == 3 { bytes.len() } else { bytes.len() - BLOCK_HEADER_BYTES };
        let mut older = Header { has_end: false, ..header }.encode(&seal);
        older.extend_from_slice(&bytes[length..end]);
        fs::write(path, older).unwrap();
        let _ = fs::remove_file(path.with_extension("index"));
    }
    pair.reopen();
    pair.check();
    pair.run(&Op::Append { shard: 1, count: 8, size: 700 });
    pair.sync();
    pair.reopen();
    pair.check();
}

#[test]
fn an_index_that_was_lost_is_made_again() {
    let mut pair = Pair::new();
    for _ in 0..6 {
        pair.run(&Op::Append { shard: 1, count: 8, size: 700 });
        pair.run(&Op::Truncate { shard: 1, back: 3 });
    }
    pair.sync();
    let indexes = |pair: &Pair| {
        let files = fs::read_dir(pair.directory.path().join("log")).unwrap();
        let paths = files.map(|file| file.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|kind| kind == "index")).collect::<Vec<_>>()
    };
    let all = indexes(&pair);
    assert!(all.len() > 3);
    // Lost before, and zeros while it is read: a file that never reached the disk whole.
    fs::remove_file(&all[0]).unwrap();
    let length = fs::metadata(&all[1]).unwrap().len() as usize;
    let mut bytes = fs::read(&all[1]).unwrap();
    bytes[length - 60..].fill(0);
    fs::write(&all[1], bytes).unwrap();
    pair.reopen();
    pair.check();
    assert_eq!(indexes(&pair).len(), all.len());
    assert_eq!(pair.segments().kept(1).unwrap(), pair.memory.kept(1).unwrap());
}
