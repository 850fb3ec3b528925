//! Reading continues exactly where it stopped, or says why it can not.
#![allow(clippy::unwrap_used, reason = "a panic is the report")]

mod support;

use group_log::{ChainHash, Cursor, CursorError, MemoryLog, StateId};
use support::{application, commit, create, submission};

fn log(second: &str) -> MemoryLog {
    let mut log = MemoryLog::new();
    log.apply(&submission("g", "ann", 0, create("info")));
    log.apply(&submission("g", "ann", 0, commit(second)));
    log.apply(&submission("g", "bob", 1, application("hello")));
    log
}

fn numbers(log: &MemoryLog, cursor: Cursor) -> Vec<u64> {
    log.read(&cursor, usize::MAX).unwrap().iter().map(|entry| entry.seq).collect()
}

#[test]
fn every_place_with_or_without_its_hash_continues_with_the_next_entry() {
    let log = log("a");
    assert_eq!(numbers(&log, Cursor::START), [1, 2, 3]);
    assert_eq!(numbers(&log, Cursor::Canonical { seq: 0, chain: Some(ChainHash::START) }), [1, 2, 3]);
    for seq in 1..=3 {
        let chain = Some(log.entry(seq).unwrap().chain);
        let rest: Vec<_> = (seq + 1..=3).collect();
        assert_eq!(numbers(&log, Cursor::Canonical { seq, chain }), rest);
        assert_eq!(numbers(&log, Cursor::Canonical { seq, chain: None }), rest);
    }
    assert_eq!(numbers(&log, Cursor::at(log.current().unwrap())), [0; 0]);
}

#[test]
fn a_place_in_another_log_is_a_mismatch_that_names_both_hashes() {
    let (ours, theirs) = (log("a"), log("b"));
    for seq in 2..=3 {
        let (expected, got) = (ours.entry(seq).unwrap().chain, theirs.entry(seq).unwrap().chain);
        let error = ours.read(&Cursor::Canonical { seq, chain: Some(got) }, 10).unwrap_err();
        assert_eq!(error, CursorError::Mismatch { seq, expected, got });
    }
    let common = ours.entry(1).unwrap().chain;
    assert_eq!(numbers(&theirs, Cursor::Canonical { seq: 1, chain: Some(common) }), [2, 3]);
    let start = Cursor::Canonical { seq: 0, chain: Some(common) };
    assert!(matches!(ours.read(&start, 10), Err(CursorError::Mismatch { seq: 0, .. })));
}

#[test]
fn a_place_beyond_the_end_is_ahead() {
    let log = log("a");
    for chain in [None, Some(ChainHash([9; 32]))] {
        let error = log.read(&Cursor::Canonical { seq: 4, chain }, 10).unwrap_err();
        assert_eq!(error, CursorError::Ahead { head_seq: 3, got: 4 });
    }
}

#[test]
fn a_place_on_a_branch_is_not_a_place_in_the_canonical_log() {
    let log = log("a");
    let fork = log.entry(1).unwrap().state_id;
    let error = log.read(&Cursor::Branch { fork, state: StateId([1; 32]), n: 2 }, 10).unwrap_err();
    assert_eq!(error, CursorError::OtherChain { fork });
}
