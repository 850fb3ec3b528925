//! One lie each, told into a run that was correct.

use std::mem::discriminant;

use bytes::Bytes;
use group_log::{ChainHash, Content, Entry, EntryKind, StateId};

use super::simulated;
use crate::{
    check::{FinalLogs, Violation, check},
    history::{Answer, Call, HeadRead, Record},
};

/// Tells a lie into several correct runs. Each must be rejected, for the right reason among others.
fn caught(expected: &Violation, mut lie: impl FnMut(&mut Record, &mut FinalLogs)) {
    for seed in 1..=5 {
        let (mut record, mut logs) = simulated::run(seed);
        lie(&mut record, &mut logs);
        let report = check(&record, &logs).expect_err("the lie was not noticed");
        let found = report.violations.iter().any(|(_, v)| discriminant(v) == discriminant(expected));
        assert!(found, "expected something like `{expected}`, got: {report}");
    }
}

fn on_every_node(logs: &mut FinalLogs, mut change: impl FnMut(&mut Vec<Entry>)) {
    logs.first_entry().unwrap().get_mut().values_mut().for_each(&mut change);
}

fn first_group_call<'a>(
    record: &'a mut Record,
    logs: &FinalLogs,
    wanted: impl Fn(&Call) -> bool,
) -> &'a mut Call {
    let group = logs.keys().next().unwrap();
    record.calls.iter_mut().find(|c| c.group == *group && wanted(c)).unwrap()
}

fn accepted(call: &Call) -> bool {
    matches!(call.answer, Answer::Accepted { .. })
}

fn accepted_commit(call: &Call) -> bool {
    accepted(call) && call.key.kind == EntryKind::Commit
}

const OTHER_CHAIN: ChainHash = ChainHash([9; 32]);

#[test]
fn nodes_with_different_logs() {
    caught(&Violation::NodesDiffer { a: String::new(), b: String::new(), seq: 0 }, |_, logs| {
        logs.first_entry().unwrap().get_mut().get_mut("node-2").unwrap().pop();
    });
}

#[test]
fn a_lost_tail_that_was_acknowledged() {
    caught(&Violation::AcceptedLost { seq: 0, last: 0 }, |_, logs| {
        on_every_node(logs, |log| log.truncate(log.len() / 2));
    });
}

#[test]
fn a_lost_group() {
    caught(&Violation::GroupLost, |_, logs| {
        logs.pop_first();
    });
}

#[test]
fn an_entry_whose_bytes_were_changed() {
    caught(&Violation::BrokenLog { seq: 0, cause: String::new() }, |_, logs| {
        on_every_node(logs, |log| {
            let entry = log.iter_mut().find(|e| e.content.kind() == EntryKind::Application).unwrap();
            entry.content = Content::Application { message: Bytes::from_static(b"changed") };
        });
    });
}

#[test]
fn two_commits_of_one_epoch() {
    caught(&Violation::TwoCommits { epoch: 0, first: 0, second: 0 }, |_, logs| {
        on_every_node(logs, |log| {
            let mut commits = log.iter_mut().filter(|e| e.content.kind() == EntryKind::Commit);
            let epoch = commits.next().unwrap().epoch;
            commits.next().unwrap().epoch = epoch;
        });
    });
}

#[test]
fn one_submission_twice_in_the_log() {
    caught(&Violation::Duplicate { first: 0, second: 0 }, |_, logs| {
        on_every_node(logs, |log| {
            let again = Entry { seq: log.len() as u64 + 1, ..log[1].clone() };
            log.push(again);
        });
    });
}

#[test]
fn an_entry_that_nobody_submitted() {
    caught(&Violation::Invented { seq: 0 }, |record, logs| {
        let key = first_group_call(record, logs, accepted).key.clone();
        record.calls.retain(|call| call.key != key);
    });
}

#[test]
fn one_number_for_two_acknowledged_submissions() {
    caught(&Violation::AcceptedOther { seq: 0, what: "" }, |record, logs| {
        let stolen = first_group_call(record, logs, accepted).answer.clone();
        let last = record
            .calls
            .iter_mut()
            .rev()
            .find(|c| accepted_commit(c) && c.group == *logs.keys().next().unwrap());
        last.unwrap().answer = stolen;
    });
}

#[test]
fn an_acknowledgement_with_another_chain_hash_or_state() {
    let expected = Violation::AcceptedOther { seq: 0, what: "" };
    caught(&expected, |record, logs| {
        if let Answer::Accepted { chain, .. } = &mut first_group_call(record, logs, accepted).answer {
            *chain = OTHER_CHAIN;
        }
    });
    caught(&expected, |record, logs| {
        if let Answer::Accepted { state_id, .. } = &mut first_group_call(record, logs, accepted_commit).answer
        {
            *state_id = StateId([7; 32]);
        }
    });
}

#[test]
fn a_superseded_commit_that_is_in_the_log() {
    caught(&Violation::SupersededInLog { seq: 0 }, |record, logs| {
        let winner =
            logs.values().next().unwrap()["node-1"].iter().find(|e| e.content.kind() == EntryKind::Commit);
        let winner = Box::new(winner.unwrap().clone());
        first_group_call(record, logs, accepted_commit).answer = Answer::Superseded { winner };
    });
}

#[test]
fn a_winner_that_did_not_win() {
    let expected = Violation::WrongWinner { seq: 0, epoch: 0, cause: "" };
    let superseded = |call: &Call| matches!(call.answer, Answer::Superseded { .. });
    caught(&expected, |record, logs| {
        let others: Vec<_> = logs.values().next().unwrap()["node-1"].clone();
        let call = first_group_call(record, logs, superseded);
        let other =
            others.iter().find(|e| e.content.kind() == EntryKind::Commit && e.epoch != call.epoch).unwrap();
        call.answer = Answer::Superseded { winner: Box::new(other.clone()) };
    });
    caught(&expected, |record, logs| {
        if let Answer::Superseded { winner } = &mut first_group_call(record, logs, superseded).answer {
            winner.chain = OTHER_CHAIN;
        }
    });
}

#[test]
fn a_refused_submission_that_is_in_the_log() {
    caught(&Violation::RefusedInLog { seq: 0 }, |record, logs| {
        let key = first_group_call(record, logs, accepted_commit).key.clone();
        for call in record.calls.iter_mut().filter(|c| c.key == key) {
            call.answer = Answer::Refused { reason: "MALFORMED".into() };
        }
    });
}

#[test]
fn a_refusal_out_of_the_past() {
    caught(&Violation::StaleRefusal { reason: String::new(), known: 0 }, |record, logs| {
        let late = record.calls.iter().map(|c| c.end).max().unwrap() + 1;
        let mut call = first_group_call(record, logs, accepted_commit).clone();
        (call.start, call.end) = (late, late + 1);
        call.key.message = Bytes::from_static(b"new");
        call.answer = Answer::Refused { reason: "EPOCH_AHEAD".into() };
        record.calls.push(call.clone());
        call.answer = Answer::Refused { reason: "GROUP_NOT_FOUND".into() };
        record.calls.push(call);
    });
}

#[test]
fn an_entry_before_one_that_was_acknowledged_before_it_was_submitted() {
    caught(&Violation::RealTime { earlier: 0, later: 0 }, |record, logs| {
        let late = record.calls.iter().map(|c| c.end).max().unwrap() + 1;
        let key = first_group_call(record, logs, accepted_commit).key.clone();
        for call in record.calls.iter_mut().filter(|c| c.key == key) {
            (call.start, call.end) = (late, late + 1);
        }
    });
}

#[test]
fn a_subscription_with_a_gap_a_repetition_or_another_order() {
    let expected = Violation::NotContiguous { reader: String::new(), expected: 0, got: 0 };
    caught(&expected, |record, _| {
        record.subscriptions[0].delivered.remove(3);
    });
    caught(&expected, |record, _| {
        let again = record.subscriptions[0].delivered[3];
        record.subscriptions[0].delivered.insert(4, again);
    });
    caught(&expected, |record, _| record.subscriptions[0].delivered.swap(2, 3));
    caught(&expected, |record, _| record.subscriptions[0].after_seq = 1);
}

#[test]
fn a_subscription_that_saw_another_log() {
    caught(&Violation::NotInLog { reader: String::new(), seq: 0 }, |record, _| {
        record.subscriptions[0].delivered[3].chain = OTHER_CHAIN;
    });
    caught(&Violation::NotInLog { reader: String::new(), seq: 0 }, |record, _| {
        let delivered = &mut record.subscriptions[0].delivered;
        let mut beyond = *delivered.last().unwrap();
        for _ in 0..10_000 {
            beyond.seq += 1;
            delivered.push(beyond);
        }
    });
}

#[test]
fn a_delivery_before_the_submission() {
    caught(&Violation::FromTheFuture { reader: String::new(), seq: 0 }, |record, _| {
        record.subscriptions[0].delivered.last_mut().unwrap().at = 0;
    });
}

#[test]
fn a_linearizable_read_that_is_stale() {
    caught(&Violation::StaleRead { seq: 0, known: 0 }, |record, logs| {
        let late = record.calls.iter().map(|c| c.end).max().unwrap() + 1;
        let (group, copies) = logs.first_key_value().unwrap();
        let chain = copies["node-1"][0].chain;
        record.reads.push(HeadRead { group: group.clone(), start: late, end: late + 1, seq: 1, chain });
    });
}
