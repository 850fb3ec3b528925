//! What is given up of a log breaks no promise about what was decided, and leaves the rest readable and checkable.
#![allow(clippy::unwrap_used, reason = "a panic is the report")]

mod support;

use std::convert::Infallible;

use group_log::{
    ChainHash, ChainVerifier, Commit, Content, Cursor, CursorError, Decision, GroupKind, MemoryLog, Policy,
    Pruned, Retention, Submission, limits::DEDUPE_WINDOW, limits::MAX_PRUNED_AT_ONCE, prunable, prune,
};
use proptest::prelude::*;
use support::{application, bytes, commit, create, create_as, proposal, seeded, submission};

/// A commit that publishes a GroupInfo, as clients do.
fn published(message: &str) -> Content {
    let Content::Commit(plain) = commit(message) else { unreachable!("made as one") };
    Content::Commit(Commit { group_info: bytes("group info"), ..plain })
}

/// A group with `epochs` commits, each after one message.
fn log(epochs: u64) -> MemoryLog {
    let mut log = MemoryLog::new();
    log.apply(&submission("g", "ann", 0, create("info")));
    for epoch in 0..epochs {
        log.apply(&submission("g", "bob", epoch, application(&format!("message {epoch}"))));
        log.apply(&submission("g", "ann", epoch, published(&format!("commit {epoch}"))));
    }
    log
}

#[derive(Clone, Debug)]
enum Step {
    Submit { what: u8, text: u8, behind: u64 },
    Prune { upto: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0..4u8, 0..6u8, 0..3u64).prop_map(|(what, text, behind)| Step::Submit { what, text, behind }),
        1 => (0..60u64).prop_map(|upto| Step::Prune { upto }),
    ];
    proptest::collection::vec(step, 1..80)
}

fn submitted(log: &MemoryLog, what: u8, text: u8, behind: u64) -> Submission {
    let text = format!("text {text}");
    let content = match what {
        0 => application(&text),
        1 => proposal(&text),
        2 => commit(&text),
        _ => published(&text),
    };
    let epoch = log.current().unwrap().epoch.saturating_sub(behind);
    submission("g", "ann", epoch, content)
}

proptest! {
    #![proptest_config(seeded(400))]

    #[test]
    fn a_pruned_log_decides_like_one_that_keeps_everything(steps in steps()) {
        let (mut whole, mut pruned) = (log(1), log(1));
        let mut before = Vec::new();
        for step in steps {
            match step {
                Step::Submit { what, text, behind } => {
                    let submission = submitted(&whole, what, text, behind);
                    prop_assert_eq!(pruned.apply(&submission), whole.apply(&submission));
                    before.push(submission);
                }
                Step::Prune { upto } => drop(pruned.prune(upto)),
            }
            prop_assert_eq!(pruned.current(), whole.current());
        }
        pruned.prune(u64::MAX);
        before.push(submission("g", "ann", 0, create("info")));
        before.push(submission("g", "ann", 0, create("another")));
        for submission in before {
            prop_assert_eq!(pruned.apply(&submission), whole.apply(&submission));
        }
    }

    #[test]
    fn what_is_left_is_one_chain_up_to_the_head(steps in steps()) {
        let mut log = log(3);
        for step in steps {
            match step {
                Step::Submit { what, text, behind } => drop(log.apply(&submitted(&log, what, text, behind))),
                Step::Prune { upto } => drop(log.prune(upto)),
            }
        }
        let Pruned { seq, chain, .. } = log.prune(0);
        let mut verifier = ChainVerifier::after(seq, chain, None);
        let left = log.read(&Cursor::Canonical { seq, chain: Some(chain) }, usize::MAX).unwrap();
        for entry in &left {
            prop_assert_eq!(verifier.push(entry), Ok(()));
        }
        let head = log.current().unwrap();
        prop_assert_eq!((verifier.seq(), verifier.chain()), (head.seq, head.chain));
        prop_assert!(left.iter().any(|entry| entry.seq == head.group_info_seq), "the GroupInfo stays");
    }
}

#[test]
fn the_newest_group_info_and_what_follows_it_stay() {
    let mut log = log(4);
    let head = *log.current().unwrap();
    assert_eq!((head.seq, head.group_info_seq, prunable(&head)), (9, 9, 8));
    assert_eq!(log.prune(u64::MAX).seq, 8);
    assert_eq!(log.entries(0, 100).map(|entry| entry.seq).collect::<Vec<_>>(), [9]);
}

#[test]
fn nothing_goes_while_nobody_could_come_back() {
    let mut log = log(4);
    log.apply(&submission("g", "ann", 4, commit("without a GroupInfo")));
    assert_eq!(log.prune(u64::MAX), Pruned::default());
    log.apply(&submission("g", "ann", 5, published("with one")));
    assert_eq!(log.prune(u64::MAX).seq, 10);
}

#[test]
fn a_demls_group_is_kept_whole() {
    let mut log = MemoryLog::new();
    log.apply(&submission("g", "ann", 0, create_as(GroupKind::Demls, Policy::default(), "info")));
    log.apply(&submission("g", "ann", 0, published("commit")));
    assert_eq!(log.prune(u64::MAX), Pruned::default());
}

#[test]
fn a_cursor_before_the_first_entry_left_is_told_where_the_log_begins() {
    let (whole, mut log) = (log(4), log(4));
    log.prune(5);
    for seq in 0..5 {
        let chain = whole.entry(seq).map(|entry| entry.chain);
        for chain in [None, chain] {
            let error = log.read(&Cursor::Canonical { seq, chain }, 10).unwrap_err();
            assert_eq!(error, CursorError::Pruned { oldest: 6, got: seq });
        }
    }
    for seq in 5..=9 {
        let chain = whole.entry(seq).unwrap().chain;
        let read = |chain| log.read(&Cursor::Canonical { seq, chain }, 10);
        assert_eq!(read(Some(chain)).unwrap().len() as u64, 9 - seq);
        assert_eq!(read(None).unwrap().len() as u64, 9 - seq);
        let mismatch = read(Some(ChainHash([7; 32]))).unwrap_err();
        assert!(matches!(mismatch, CursorError::Mismatch { .. }), "{mismatch}");
    }
}

#[test]
fn records_outside_the_window_go_with_their_contents() {
    let epochs = DEDUPE_WINDOW / 2 + 1500;
    let mut log = log(epochs);
    let head = *log.current().unwrap();
    assert_eq!(log.records_len() as u64, head.seq);
    let pruned = log.prune(u64::MAX);
    assert_eq!((pruned.seq, pruned.records), (head.seq - 1, head.seq - DEDUPE_WINDOW));
    assert_eq!(log.records_len() as u64, DEDUPE_WINDOW + 1, "those of the window, and the first");

    let same = |epoch, content| submission("g", "ann", epoch, content);
    let accepted = |decision| matches!(decision, Decision::Accepted(_));
    assert!(accepted(log.apply(&same(0, create("info")))));
    assert!(accepted(log.apply(&same(7, published("commit 7")))));
    assert_eq!(log.apply(&same(7, published("other"))), Decision::Superseded { winner_seq: 17 });
    let recent = submission("g", "bob", epochs - 3, application(&format!("message {}", epochs - 3)));
    assert!(accepted(log.apply(&recent)));
    assert_eq!(log.current(), Some(&head), "all of it was known");
    assert!(accepted(log.apply(&same(epochs, application("new")))));
}

#[test]
fn one_step_is_bounded_and_the_same_again_goes_on() {
    let log = log(MAX_PRUNED_AT_ONCE);
    let step = prune(&log, u64::MAX).unwrap().unwrap();
    assert_eq!(step.contents, 1..=MAX_PRUNED_AT_ONCE);
    assert_eq!(prune(&log, 0).unwrap(), None);
    assert_eq!(prune(&MemoryLog::new(), 9).unwrap(), None);
    let stored = Pruned::decode(&step.pruned.encode()).unwrap();
    assert_eq!(stored, step.pruned);
    assert!(Pruned::decode(&step.pruned.encode()[1..]).is_err());
}

#[test]
fn a_group_keeps_what_it_chooses_within_what_the_cluster_allows() {
    let hours = |hours: u64| Some(hours * 60 * 60 * 1000);
    let unlimited = Retention::default();
    let unasked = Retention { max_entries: Some(100), max_age_ms: hours(24) };
    let most = Retention { max_entries: Some(500), max_age_ms: hours(48) };
    let own = |retain_entries, retain_hours| Policy { retain_entries, retain_hours, ..Policy::default() };
    let kept = |entries, age| Retention { max_entries: entries, max_age_ms: age };
    for (default, policy, most, expected) in [
        (unlimited, own(0, 0), unlimited, unlimited),
        (unlimited, own(7, 0), unlimited, kept(Some(7), None)),
        (unlimited, own(0, 0), most, most),
        (unasked, own(0, 0), most, unasked),
        (unasked, own(7, 0), most, kept(Some(7), hours(24))),
        (unasked, own(0, 30), most, kept(Some(100), hours(30))),
        (unasked, own(501, 49), most, most),
        (unasked, own(501, 49), unlimited, kept(Some(501), hours(49))),
        (most, own(0, 0), unasked, unasked),
    ] {
        assert_eq!(default.of_group(&policy, &most), expected, "{default:?} {policy:?} {most:?}");
    }
}

#[test]
fn what_a_group_chooses_is_in_its_hashes_and_nothing_is_if_it_chooses_nothing() {
    let chain = |policy| {
        let mut log = MemoryLog::new();
        log.apply(&submission("g", "ann", 0, create_as(GroupKind::Mls, policy, "info")));
        log.current().unwrap().chain
    };
    let plain = Policy::default();
    let policies = [
        plain,
        Policy { retain_entries: 1, ..plain },
        Policy { retain_hours: 1, ..plain },
        Policy { retain_entries: 1, retain_hours: 1, ..plain },
    ];
    let chains: std::collections::BTreeSet<_> = policies.into_iter().map(chain).collect();
    assert_eq!(chains.len(), policies.len());
}

#[test]
fn entries_are_due_by_number_or_by_age_whichever_gives_up_more() {
    let log = log(10);
    let head = *log.current().unwrap();
    assert_eq!(head.seq, 21);
    // Entry n came at n seconds.
    let due = |max_entries, max_age_ms, pruned: u64| {
        let pruned = Pruned { seq: pruned, ..Pruned::default() };
        let made_at = |seq: u64| {
            assert!((pruned.seq + 1..=head.seq).contains(&seq), "asked for entry {seq}");
            Ok::<_, Infallible>(Some(seq * 1000))
        };
        Retention { max_entries, max_age_ms }.due(&head, &pruned, 21_000, made_at).unwrap()
    };
    assert_eq!(due(None, None, 0), None);
    assert_eq!(due(Some(15), None, 0), Some(6));
    assert_eq!(due(Some(15), None, 6), None);
    assert_eq!(due(Some(100), None, 0), None);
    assert_eq!(due(Some(0), None, 0), Some(20), "never the newest GroupInfo");
    assert_eq!(due(None, Some(10_000), 0), Some(11));
    assert_eq!(due(None, Some(10_000), 11), None);
    assert_eq!(due(None, Some(30_000), 0), None);
    assert_eq!(due(None, Some(0), 0), Some(20));
    assert_eq!(due(Some(15), Some(10_000), 0), Some(11));
    assert_eq!(due(Some(5), Some(10_000), 0), Some(16));
    let unknown = Retention { max_entries: None, max_age_ms: Some(1) };
    let none = unknown.due(&head, &Pruned::default(), u64::MAX, |_| Ok::<_, Infallible>(None));
    assert_eq!(none, Ok(None), "an age that is not known is none");
}
