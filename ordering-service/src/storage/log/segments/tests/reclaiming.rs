//! Reclaiming gives back room and loses nothing that is kept.

use std::fs;

use proptest::prelude::*;

use super::{Op, Pair, ops, segment_files};
use crate::storage::log::medium::{Change, Medium, Reclaim};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn rows_that_are_kept_stay_whatever_is_forgotten_and_reclaimed(ops in ops(60)) {
        let mut pair = Pair::new();
        for op in &ops {
            pair.run(op);
            if matches!(op, Op::Reclaim | Op::Reopen | Op::Truncate { .. }) {
                pair.check();
            }
        }
        pair.sync();
        pair.reclaim();
        pair.check();
        pair.reopen();
        pair.check();
        for shard in 0..super::SHARDS {
            prop_assert_eq!(pair.segments().kept(shard).unwrap(), pair.memory.kept(shard).unwrap());
        }
    }
}

fn bytes(pair: &Pair) -> u64 {
    segment_files(pair.directory.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum()
}

fn fill(pair: &mut Pair, segments: usize) {
    while segment_files(pair.directory.path()).len() < segments {
        pair.run(&Op::Append { shard: 1, count: 4, size: 300 });
        pair.run(&Op::Append { shard: 2, count: 1, size: 300 });
        pair.sync();
    }
}

fn purge_all(pair: &mut Pair) {
    for shard in [1, 2] {
        let (_, next) = pair.bounds(shard);
        let last = pair.memory.read(shard, next - 1..next, usize::MAX).unwrap().remove(0).log_id;
        pair.write(&[(shard, Change::Purged(last))]);
    }
    pair.sync();
}

#[test]
fn a_segment_without_live_rows_is_deleted_and_one_with_few_is_rewritten() {
    let mut pair = Pair::new();
    fill(&mut pair, 12);
    purge_all(&mut pair);
    let before = bytes(&pair);
    pair.run(&Op::Forget { shard: 1, every: 1 });
    pair.run(&Op::Reclaim);
    pair.check();
    // Of five rows one is left, in every segment.
    assert_eq!(segment_files(pair.directory.path()).len(), 12);
    assert!(bytes(&pair) < before / 2, "{before} bytes before, {} after", bytes(&pair));
    pair.reopen();
    pair.check();

    pair.run(&Op::Forget { shard: 2, every: 1 });
    pair.run(&Op::Reclaim);
    pair.check();
    assert_eq!(segment_files(pair.directory.path()).len(), 1, "the one that is written to");
    pair.reopen();
    pair.check();
    pair.run(&Op::Append { shard: 1, count: 3, size: 10 });
    pair.check();
}

#[test]
fn what_a_snapshot_keeps_elsewhere_is_deleted_at_once() {
    let mut pair = Pair::new();
    fill(&mut pair, 8);
    purge_all(&mut pair);
    for shard in [1, 2] {
        pair.run(&Op::ForgetAll { shard });
    }
    pair.run(&Op::Reclaim);
    assert_eq!(segment_files(pair.directory.path()).len(), 1);
    pair.reopen();
    pair.check();
}

#[test]
fn a_pin_keeps_what_is_forgotten_after_it() {
    let mut pair = Pair::new();
    fill(&mut pair, 6);
    purge_all(&mut pair);
    let pin = pair.segments().pin();
    let kept = pair.memory.kept(1).unwrap();
    pair.run(&Op::Forget { shard: 1, every: 1 });
    pair.run(&Op::ForgetAll { shard: 2 });
    assert_eq!(pair.segments().reclaim().unwrap(), Reclaim::Done);
    for index in kept {
        let found = pair.segments().read(1, index..index + 1, usize::MAX).unwrap();
        assert_eq!(found, [pair.forgotten[&(1, index)].clone()]);
    }
    drop(pin);
    pair.run(&Op::Reclaim);
    assert_eq!(segment_files(pair.directory.path()).len(), 1);
}

#[test]
fn truncated_rows_do_not_come_back_when_the_segment_that_cut_them_is_deleted() {
    let mut pair = Pair::new();
    let append = Op::Append { shard: 1, count: 4, size: 300 };
    let other = Op::Append { shard: 2, count: 1, size: 3000 };
    pair.run(&append);
    pair.run(&other);
    pair.run(&other);
    // In another segment: entries 2 and 3 give way to others, which are purged and forgotten.
    pair.run(&Op::Truncate { shard: 1, back: 2 });
    pair.run(&append);
    pair.sync();
    purge_all(&mut pair);
    pair.run(&other);
    pair.run(&other);
    pair.sync();
    assert!(segment_files(pair.directory.path()).len() >= 3);
    let gone: Vec<u64> = pair.note_forgotten(1, 2..6, 1);
    pair.segments().forget(1, &gone).unwrap();
    pair.memory.forget(1, &gone).unwrap();
    pair.run(&Op::Forget { shard: 2, every: 1 });
    pair.run(&Op::Reclaim);
    pair.check();
    pair.reopen();
    pair.check();
    assert_eq!(pair.segments().kept(1).unwrap(), [0, 1]);
}

#[test]
fn a_rewriting_that_was_cut_short_changes_nothing() {
    let mut pair = Pair::new();
    fill(&mut pair, 4);
    let first = segment_files(pair.directory.path()).remove(0);
    for name in ["segment.new", "index.new"] {
        fs::write(first.with_extension(name), b"the beginning of").unwrap();
    }
    // As after a crash between the two exchanges of names: the index is another file's.
    let index = first.with_extension("index");
    let other = segment_files(pair.directory.path()).remove(1).with_extension("index");
    fs::copy(other, index).unwrap();
    pair.reopen();
    pair.check();
    assert!(!first.with_extension("segment.new").exists());
}
