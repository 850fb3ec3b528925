//! A client notices a log that no honest server can have.
#![allow(clippy::unwrap_used, reason = "a panic is the report")]

mod support;

use group_log::{
    ChainError, ChainVerifier, Entry, MemoryLog, StateId,
    hash::{chain_hash, commit_state_id},
};
use support::{commit, create, submission};

#[test]
fn a_gap_is_named() {
    let mut log = MemoryLog::new();
    log.apply(&submission("g", "ann", 0, create("info")));
    log.apply(&submission("g", "ann", 0, commit("a")));
    let second = log.entry(2).unwrap();
    assert_eq!(ChainVerifier::new().push(&second), Err(ChainError::Seq { expected: 1, got: 2 }));
}

/// An entry that a lying server adds after `log`, with a chain hash that fits.
fn forged(log: &MemoryLog, epoch: u64, state_id: StateId) -> Entry {
    let head = *log.current().unwrap();
    let mut entry = Entry {
        seq: head.seq + 1,
        chain: head.chain,
        epoch,
        state_id,
        author: Some(support::client("eve")),
        content: commit("e"),
    };
    entry.chain = chain_hash(&head.chain, &(&entry).into());
    entry
}

#[test]
fn a_second_commit_for_an_epoch_is_noticed_even_with_fitting_hashes() {
    let mut log = MemoryLog::new();
    log.apply(&submission("g", "ann", 0, create("info")));
    let parent = log.current().unwrap().state_id;
    log.apply(&submission("g", "ann", 0, commit("a")));
    let second = forged(&log, 0, commit_state_id(&parent, b"e"));
    let mut verifier = ChainVerifier::new();
    verifier.push_all(&log.entries(1, 2).collect::<Vec<_>>()).unwrap();
    assert_eq!(verifier.push(&second), Err(ChainError::Epoch { seq: 3, expected: 1, got: 0 }));
}

#[test]
fn a_claimed_state_is_noticed_even_with_fitting_hashes() {
    let mut log = MemoryLog::new();
    log.apply(&submission("g", "ann", 0, create("info")));
    let head = *log.current().unwrap();
    let claimed = forged(&log, 0, StateId([0xff; 32]));
    let expected = commit_state_id(&head.state_id, b"e");
    let mut verifier = ChainVerifier::after(1, head.chain, Some((0, head.state_id)));
    let error = verifier.push(&claimed).unwrap_err();
    assert_eq!(error, ChainError::State { seq: 2, expected, got: StateId([0xff; 32]) });
    assert_eq!(verifier.push(&forged(&log, 0, expected)), Ok(()), "after an error nothing has changed");
}
