//! A run with branches, decided by the real rules: accepted as it is, rejected with one lie in it.

use std::{collections::BTreeMap, mem::discriminant};

use bytes::Bytes;
use group_log::{
    ClientId, Commit, Content, Create, EntryId, GroupId, GroupKind, Policy, StateId, Submission,
    fork::{BranchEntry, Close, Command, CommitFacts, GatewayId, MemoryFork, Report as Reported},
    hash,
};

use crate::{
    check::{Violation, check_branches},
    history::{BranchCall, Told},
    ordering::WholeLogs,
};

const GATEWAY: GatewayId = GatewayId([1; 16]);

struct Run {
    fork: MemoryFork,
    group: GroupId,
    calls: Vec<BranchCall>,
}

fn author() -> ClientId {
    ClientId::new(b"somebody".to_vec()).unwrap()
}

fn commit(name: &str) -> Content {
    Content::Commit(Commit {
        message: Bytes::copy_from_slice(name.as_bytes()),
        welcome: Bytes::new(),
        group_info: Bytes::new(),
        recipients: Vec::new(),
    })
}

impl Run {
    fn told(&mut self, id: EntryId, told: Told) {
        self.calls.push(BranchCall { group: self.group.clone(), id, told });
    }

    /// By the quorum. Gives the state after it.
    fn submit(&mut self, epoch: u64, parent: Option<StateId>, content: Content) -> StateId {
        let group_id = self.group.clone();
        let submission = Submission {
            group_id,
            author: author(),
            epoch,
            parent_state_id: parent,
            content: content.clone(),
        };
        self.fork.apply(&Command::Submit { submission, facts: CommitFacts::default() });
        let head = *self.fork.current().unwrap();
        let made_in = parent.unwrap_or(head.state_id);
        self.told(hash::entry_id(&made_in, &content), Told::Accepted { seq: head.seq });
        head.state_id
    }

    /// On a branch, reported later.
    fn branch(&mut self, parent: StateId, content: Content) -> BranchEntry {
        let entry = BranchEntry { parent, author: author(), content, facts: CommitFacts::default() };
        self.told(entry.id(), Told::Provisional);
        entry
    }
}

/// One branch wins, one loses at the same close, and one comes when the chain has moved on.
fn run() -> (Vec<BranchCall>, WholeLogs) {
    let group = GroupId::new(b"group".to_vec()).unwrap();
    let mut run = Run { fork: MemoryFork::new(), group: group.clone(), calls: Vec::new() };
    let create =
        Create { kind: GroupKind::Demls, policy: Policy::default(), group_info: Bytes::from_static(b"info") };
    let first = run.submit(0, None, Content::Create(create));
    run.fork.apply(&Command::Register { gateway: GATEWAY, position: 1, departures: 0 });
    let (one, two) = (run.branch(first, commit("one")), run.branch(first, commit("two")));
    let said = run.branch(one.id().as_state(), Content::Application { message: Bytes::from_static(b"hi") });
    let late = run.branch(first, commit("three"));
    let report = |entries| Command::Report(Reported { gateway: GATEWAY, entries, complete: true });
    run.fork.apply(&report(vec![one, two, said]));
    let collection = run.fork.state().collecting.as_ref().unwrap().number;
    run.fork.apply(&Command::Close(Close { collection, nonce: [5; 32] }));
    let head = *run.fork.current().unwrap();
    run.submit(head.epoch, Some(head.state_id), commit("four"));
    run.fork.apply(&report(vec![late]));
    let seqs: Vec<u64> = run.fork.items(1).map(|(seq, ..)| seq).collect();
    let log: Vec<_> =
        seqs.into_iter().filter_map(|seq| run.fork.log_entry(seq, CommitFacts::default())).collect();
    let copies = BTreeMap::from(["node-1", "node-2"].map(|name| (name.to_owned(), log.clone())));
    (run.calls, BTreeMap::from([(group, copies)]))
}

fn caught(expected: &Violation, lie: impl FnOnce(&mut Vec<BranchCall>, &mut WholeLogs)) {
    let (mut calls, mut logs) = run();
    lie(&mut calls, &mut logs);
    let report = check_branches(&calls, &logs).expect_err("the lie was not noticed");
    let found = report.violations.iter().any(|(_, found)| discriminant(found) == discriminant(expected));
    assert!(found, "expected something like `{expected}`, got: {report}");
}

#[test]
fn a_correct_run_with_branches_passes() {
    let (calls, logs) = run();
    let summary = check_branches(&calls, &logs).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!((summary.groups, summary.provisional, summary.late), (1, 4, 0));
    assert!(summary.adopted >= 1 && summary.aside >= 2 && summary.adopted + summary.aside == 4);
}

#[test]
fn an_entry_that_a_branch_had_accepted_and_that_no_log_speaks_of() {
    let lost = EntryId::from(StateId([8; 32]));
    caught(&Violation::ProvisionalLost { entry: lost }, |calls, _| {
        let group = calls[0].group.clone();
        calls.push(BranchCall { group, id: lost, told: Told::Provisional });
    });
}

#[test]
fn a_side_that_was_cut_off_the_log() {
    caught(&Violation::ProvisionalLost { entry: EntryId::from(StateId([8; 32])) }, |_, logs| {
        for log in logs.first_entry().unwrap().get_mut().values_mut() {
            log.pop();
        }
    });
}

#[test]
fn an_adopted_commit_whose_author_was_told_that_it_lost() {
    caught(&Violation::SupersededInLog { seq: 0 }, |calls, logs| {
        let copies = logs.first_key_value().unwrap().1;
        let adopted = copies["node-1"].iter().find(|entry| entry.epoch == 0 && entry.seq > 1).unwrap();
        let id = EntryId::from(adopted.state_id);
        for call in calls.iter_mut().filter(|call| call.id == id) {
            call.told = Told::Superseded;
        }
    });
}

#[test]
fn two_commits_of_one_epoch_and_a_log_that_does_not_follow() {
    let two = |_: &mut Vec<BranchCall>, logs: &mut WholeLogs| {
        for log in logs.first_entry().unwrap().get_mut().values_mut() {
            let commits = log.iter_mut().filter(|entry| entry.item.kind() == group_log::EntryKind::Commit);
            commits.for_each(|entry| entry.epoch = 0);
        }
    };
    caught(&Violation::TwoCommits { epoch: 0, first: 0, second: 0 }, two);
    caught(&Violation::BrokenLog { seq: 0, cause: String::new() }, two);
}

#[test]
fn an_entry_on_a_branch_that_nobody_submitted() {
    caught(&Violation::Invented { seq: 0 }, |calls, _| {
        calls.retain(|call| call.told != Told::Provisional);
    });
}

#[test]
fn a_number_that_is_another_entrys() {
    caught(&Violation::AcceptedOther { seq: 0, what: "" }, |calls, _| {
        let call = calls.iter_mut().rev().find(|call| matches!(call.told, Told::Accepted { .. })).unwrap();
        call.told = Told::Accepted { seq: 1 };
    });
}
