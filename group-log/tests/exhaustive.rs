//! Every sequence of submissions up to a depth, over two groups and three clients, against the naive oracle.
//!
//! A submission that changes nothing leaves the same log behind, and the rules are a function of the log; so after trying every
//! submission at a log, only those that change it are followed further. Nothing is left out by that.

#![allow(clippy::unwrap_used, reason = "a panic is the report")]

mod support;

use std::collections::BTreeMap;

use group_log::{
    Accepted, ChainVerifier, Content, Decision, GroupKind, Limits, MemoryLog, Policy, Refusal, StateId,
    Submission,
    hash::{commit_state_id, create_state_id},
};
use support::{
    application, commit, create_as, group, made_in,
    oracle::{Expected, Oracle, Path},
    policy, proposal, submission,
};

#[test]
fn every_sequence_over_two_groups_and_three_clients_agrees_with_the_oracle() {
    let mut search = Search::new(&["g", "h"], &SHORT);
    search.explore(6);
    println!("{} logs, {} decisions", search.logs, search.decisions);
    assert!(search.logs > 50_000 && search.decisions > 1_000_000);
}

#[test]
fn every_longer_sequence_in_one_group_agrees_with_the_oracle() {
    let mut search = Search::new(&["g"], &LONG);
    search.explore(9);
    println!("{} logs, {} decisions", search.logs, search.decisions);
    assert!(search.logs > 50_000 && search.decisions > 1_000_000);
}

struct Alphabet {
    first_epoch: u64,
    epochs: u64,
    policies: &'static [u32],
    exact_parents: bool,
}

const SHORT: Alphabet = Alphabet { first_epoch: 0, epochs: 2, policies: &[0], exact_parents: false };
const LONG: Alphabet = Alphabet { first_epoch: 3, epochs: 3, policies: &[0, 1], exact_parents: true };

struct Search {
    alphabet: Vec<Submission>,
    names: BTreeMap<StateId, Path>,
    logs_now: Vec<(MemoryLog, Oracle, ChainVerifier)>,
    logs: u64,
    decisions: u64,
}

impl Search {
    fn new(groups: &[&str], alphabet: &Alphabet) -> Self {
        let mut names = BTreeMap::new();
        let submissions: Vec<_> =
            groups.iter().flat_map(|name| submissions(name, alphabet, &mut names)).collect();
        let logs_now = groups.iter().map(|_| Default::default()).collect();
        Search { alphabet: submissions, names, logs_now, logs: 0, decisions: 0 }
    }

    fn explore(&mut self, depth: u32) {
        self.logs += 1;
        for index in 0..self.alphabet.len() {
            let submission = self.alphabet[index].clone();
            let at = usize::from(submission.group_id == group("h"));
            let before = self.logs_now[at].clone();
            let changed = self.step(at, &submission);
            if changed && depth > 0 {
                self.explore(depth - 1);
            }
            if changed {
                self.logs_now[at] = before;
            }
        }
    }

    /// Submits, compares with the oracle, and says whether the log has grown.
    fn step(&mut self, at: usize, submission: &Submission) -> bool {
        self.decisions += 1;
        let (log, oracle, verifier) = &mut self.logs_now[at];
        let expected = oracle.decide(submission, &self.names);
        let asked = log.admit(submission, &Limits::REPLICATED);
        let before = log.current().map_or(0, |head| head.seq);
        let decision = log.apply(submission);
        assert_eq!(asked, decision, "asking and applying must agree on {submission:?}");

        let history = || format!("{submission:?}\nafter {:#?}", oracle.accepted);
        match (&decision, &expected) {
            (Decision::Accepted(got), Expected::Accepted { seq, new, epoch, state }) => {
                let Accepted { seq: got_seq, epoch: got_epoch, state_id, chain } = got;
                assert_eq!((got_seq, got_epoch), (seq, epoch), "{}", history());
                assert_eq!(self.names.get(state_id), Some(state), "{}", history());
                let head = log.current().unwrap();
                assert_eq!(head.seq, before + u64::from(*new), "{}", history());
                let entry = log.entry(*seq).unwrap();
                assert_eq!(entry.chain, *chain);
                if *new {
                    assert_eq!(entry.author.as_ref(), Some(&submission.author));
                    assert_eq!((&entry.content, entry.epoch), (&submission.content, submission.epoch));
                    assert_eq!((head.epoch, head.state_id, head.chain), (*epoch, *state_id, *chain));
                    verifier.push(&entry).unwrap();
                    assert_eq!(verifier.position(), Some((*epoch, *state_id)));
                    oracle.accepted.push(submission.clone());
                }
                *new
            }
            (Decision::Superseded { winner_seq: got }, Expected::Superseded { winner_seq }) => {
                assert_eq!(got, winner_seq, "{}", history());
                false
            }
            (Decision::Refused(refusal), Expected::Refused(reason)) => {
                assert_eq!(name(refusal), *reason, "{}", history());
                false
            }
            (got, expected) => panic!("got {got:?}, expected {expected:?} for {}", history()),
        }
    }
}

fn name(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::GroupNotFound => "not found",
        Refusal::GroupExists { .. } => "exists",
        Refusal::GroupClosed { .. } => "closed",
        Refusal::EpochAhead { .. } => "ahead",
        Refusal::EpochTooOld { .. } => "too old",
        Refusal::WrongState { .. } => "wrong state",
        other => panic!("nothing here can be refused for {other}"),
    }
}

/// Every submission that three clients make to one group, and the name of every state they can lead to.
fn submissions(name: &str, alphabet: &Alphabet, names: &mut BTreeMap<StateId, Path>) -> Vec<Submission> {
    let Alphabet { first_epoch, epochs, policies, exact_parents } = *alphabet;
    let contents =
        |epoch: u64| [("ann", commit(&format!("a{epoch}"))), ("bob", commit(&format!("b{epoch}")))];
    let policy_at_first = Policy { past_epochs: 1, ..Policy::default() };
    let creates = ["one", "two"].map(|info| create_as(GroupKind::Mls, policy_at_first, info));

    // The states that can be reached: one create or the other, then at each epoch one commit or the other.
    let roots = ["one", "two"].map(|info| create_state_id(&group(name), first_epoch, info.as_bytes()));
    let mut paths: Vec<(StateId, Path)> =
        roots.into_iter().zip(&creates).map(|(root, create)| (root, vec![create.clone()])).collect();
    names.extend(paths.iter().cloned());
    for epoch in first_epoch..first_epoch + epochs {
        let grow = |(state, path): &(StateId, Path)| {
            contents(epoch).map(|(_, content)| {
                let Content::Commit(commit) = &content else { unreachable!() };
                (commit_state_id(state, &commit.message), [path.clone(), vec![content]].concat())
            })
        };
        paths = paths.iter().flat_map(grow).collect();
        names.extend(paths.iter().cloned());
    }

    let [one, two] = creates;
    let mut all = vec![submission(name, "ann", first_epoch, one), submission(name, "bob", first_epoch, two)];
    for epoch in first_epoch..first_epoch + epochs {
        all.extend(contents(epoch).map(|(author, content)| submission(name, author, epoch, content)));
        all.push(submission(name, "cyn", epoch, application("hello")));
        all.push(submission(name, "cyn", epoch, proposal("please")));
    }
    all.extend(policies.iter().map(|past| submission(name, "bob", first_epoch, policy(*past))));
    all.push(submission(name, "ann", first_epoch + 1, Content::Close));
    if exact_parents {
        let other = commit_state_id(&roots[0], b"b3");
        let third = submission(name, "cyn", first_epoch + 1, commit("b4"));
        all.push(made_in(other, third));
        all.push(made_in(other, submission(name, "cyn", first_epoch + 1, application("there"))));
    }
    all
}
