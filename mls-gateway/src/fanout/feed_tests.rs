//! What a feed promises its subscribers.

use bytes::Bytes;
use group_log::{ClientId, Content, Create, GroupKind, MemoryLog, Policy, Submission};

use super::*;

fn group() -> GroupId {
    GroupId::new(&b"g"[..]).unwrap()
}

/// A log with `messages` application messages of `size` bytes after its create.
fn log(messages: usize, size: usize) -> MemoryLog {
    let mut log = MemoryLog::new();
    let mut submit = |content| {
        let author = ClientId::new(&b"a"[..]).unwrap();
        log.apply(&Submission { group_id: group(), author, epoch: 0, parent_state_id: None, content });
    };
    submit(Content::Create(Create {
        kind: GroupKind::Mls,
        policy: Policy::default(),
        group_info: Bytes::from_static(b"info"),
    }));
    for n in 0..messages {
        let mut message = vec![0; size];
        message[..8].copy_from_slice(&(n as u64).to_be_bytes());
        submit(Content::Application { message: message.into() });
    }
    log
}

fn head_at(log: &MemoryLog, seq: u64) -> pb::Head {
    let entry = log.entry(seq).unwrap();
    let mut head = pb::Head::from(log.current().unwrap());
    (head.seq, head.chain_hash) = (seq, entry.chain.to_bytes());
    head
}

fn entries(log: &MemoryLog, first: u64, max: usize) -> Vec<pb::Entry> {
    log.entries(first, max).map(pb::Entry::from).collect()
}

fn feed(log: &MemoryLog, from: u64, budget: &Arc<Budget>) -> Arc<Feed> {
    Feed::new(group(), head_at(log, from), Arc::clone(budget)).unwrap()
}

#[test]
fn subscribers_at_different_places_pull_what_they_lack() {
    let log = log(5, 8);
    let feed = feed(&log, 2, &Budget::with_limit(1 << 20));
    assert!(matches!(feed.pull(2, None), Pull::AtTip(None)));
    assert_eq!(feed.entries(entries(&log, 3, 9)), Verdict::Continue);
    assert!(matches!(feed.pull(1, None), Pull::Behind));
    let Pull::Entries(two) = feed.pull(4, Some(log.entry(4).unwrap().chain)) else {
        panic!("expected entries")
    };
    assert_eq!(two.iter().map(|e| e.seq).collect::<Vec<_>>(), [5, 6]);
    assert!(matches!(feed.pull(7, None), Pull::Ahead));
    feed.caught_up(log.current().unwrap().into());
    assert!(matches!(feed.pull(6, None), Pull::AtTip(Some(head)) if head.seq == 6));
}

#[test]
fn a_cursor_from_another_log_is_noticed_wherever_the_log_is_known() {
    let log = log(5, 8);
    let feed = feed(&log, 2, &Budget::with_limit(1 << 20));
    feed.entries(entries(&log, 3, 9));
    for seq in 2..=6 {
        assert!(matches!(feed.pull(seq, Some(ChainHash([9; 32]))), Pull::Mismatch(_)), "{seq}");
        assert!(!matches!(feed.pull(seq, Some(log.entry(seq).unwrap().chain)), Pull::Mismatch(_)), "{seq}");
    }
}

#[test]
fn what_does_not_fit_its_hash_is_never_passed_on() {
    let log = log(4, 8);
    let feed = feed(&log, 1, &Budget::with_limit(1 << 20));
    let mut forged = entries(&log, 2, 1);
    forged[0].author = Bytes::from_static(b"mallory");
    assert_eq!(feed.entries(forged.clone()), Verdict::OtherNode);
    assert!(matches!(feed.pull(1, None), Pull::AtTip(_)));
    assert_eq!(feed.entries(entries(&log, 3, 1)), Verdict::OtherNode, "a gap");
    assert_eq!(feed.entries(entries(&log, 2, 1)), Verdict::Continue);
    for _ in 1..MISMATCHES_MAX {
        let mut forged = entries(&log, 3, 1);
        forged[0].epoch += 1;
        assert_eq!(feed.entries(forged), Verdict::OtherNode);
    }
    let mut forged = entries(&log, 3, 1);
    forged[0].epoch += 1;
    assert_eq!(feed.entries(forged), Verdict::Stop);
    assert!(matches!(feed.pull(1, None), Pull::Failed(_)));
}

#[test]
fn all_rings_together_stay_within_their_budget_and_the_oldest_entries_go_first() {
    let one = 100 + RING_ENTRY_OVERHEAD;
    let budget = Budget::with_limit(3 * one);
    let log = log(8, 100);
    let (old, new) = (feed(&log, 1, &budget), feed(&log, 1, &budget));
    old.entries(entries(&log, 2, 2));
    new.entries(entries(&log, 2, 2));
    assert_eq!(budget.bytes(), 3 * one);
    assert!(matches!(old.pull(1, None), Pull::Behind));
    assert!(matches!(old.pull(2, None), Pull::Entries(e) if e.len() == 1));
    assert!(matches!(new.pull(1, None), Pull::Entries(e) if e.len() == 2));
    drop(new);
    assert_eq!(budget.bytes(), one);
    old.entries(entries(&log, 4, 5));
    assert_eq!(budget.bytes(), 3 * one);
    assert!(matches!(old.pull(5, None), Pull::Entries(e) if e.len() == 3));
    assert!(matches!(old.pull(4, None), Pull::Behind));
    drop(old);
    assert_eq!(budget.bytes(), 0);
}

#[test]
fn a_node_that_lacks_what_was_accepted_lags_after_a_while() {
    let log = log(3, 8);
    let feed = feed(&log, 1, &Budget::with_limit(1 << 20));
    let start = Instant::now();
    feed.expect(3, start);
    let late = start + FOLLOW_LAG_MAX * 2;
    assert!(!feed.is_lagging(start) && feed.is_lagging(late));
    feed.restarted(late);
    assert!(!feed.is_lagging(late));
    feed.entries(entries(&log, 2, 2));
    assert!(!feed.is_lagging(late + FOLLOW_LAG_MAX * 2));
}
