//! Heads are stored now and then, and commits that ended epochs are searched for: what comes out is what the rules hold in memory.

use concordat_proto::ordering::v1::PruneGroup;
use group_log::{Decision, MemoryLog, Submission, View};
use proptest::prelude::*;

use super::*;
use crate::storage::state::{batch::Batch, epochs};

#[derive(Clone, Debug)]
enum Step {
    /// A commit at the head, with a GroupInfo or without.
    Commit { group_info: bool },
    /// A message at the head, or one epoch before it.
    Message { late: bool },
    /// Another policy.
    Policy { past_epochs: u32 },
    /// What was submitted before, again.
    Again { which: usize },
    /// Another commit for an epoch that has ended.
    Loser { back: u64 },
    /// Gives up the beginning, as far as that may go.
    Prune { part: u64 },
    /// The same state, from the disk alone.
    Restart,
    /// The same state at another node.
    Snapshot,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => any::<bool>().prop_map(|group_info| Step::Commit { group_info }),
        8 => proptest::bool::weighted(0.2).prop_map(|late| Step::Message { late }),
        1 => (0u32..4).prop_map(|past_epochs| Step::Policy { past_epochs }),
        3 => any::<usize>().prop_map(|which| Step::Again { which }),
        3 => (1u64..60).prop_map(|back| Step::Loser { back }),
        1 => (1u64..5).prop_map(|part| Step::Prune { part }),
        1 => Just(Step::Restart),
        1 => Just(Step::Snapshot),
    ];
    proptest::collection::vec(step, 1..120)
}

/// A shard and the same group in memory.
struct Pair {
    machine: Machine,
    memory: MemoryLog,
    submitted: Vec<Bytes>,
}

impl Pair {
    fn new() -> Self {
        let mut pair = Pair { machine: Machine::new(1), memory: MemoryLog::new(), submitted: Vec::new() };
        pair.both(create("g"));
        pair
    }

    fn both(&mut self, command: Bytes) {
        let Some(Cmd::Group(submission)) = Command::decode(command.clone()).unwrap().command else {
            panic!()
        };
        let submission = Submission::try_from(submission).unwrap();
        let expected = self.memory.apply(&submission);
        self.submitted.push(command.clone());
        match (self.machine.apply_one(command), expected) {
            (Answer::Accepted(got), Decision::Accepted(expected)) => assert_eq!(got, expected.into()),
            (Answer::Refused(_), Decision::Refused(_)) => {}
            (Answer::Superseded(got), Decision::Superseded { winner_seq }) => {
                let kept = winner_seq > self.memory.pruned().unwrap().seq;
                assert_eq!(got.winner.map(|winner| winner.seq), kept.then_some(winner_seq));
            }
            (got, expected) => panic!("{got:?} where {expected:?} was expected"),
        }
    }

    fn step(&mut self, step: Step) {
        let head = *self.memory.current().unwrap();
        let text = format!("entry after {}", head.seq);
        match step {
            Step::Commit { group_info } => {
                let message = Bytes::from(text);
                let group_info = if group_info { message.clone() } else { Bytes::new() };
                let commit = Commit { message, group_info, ..Commit::default() };
                self.both(submission("g", head.epoch, Kind::Commit(commit)));
            }
            Step::Message { late } => {
                self.both(message("g", head.epoch.saturating_sub(u64::from(late)), &text));
            }
            Step::Policy { past_epochs } => self.both(policy("g", head.epoch, past_epochs)),
            Step::Again { which } => self.both(self.submitted[which % self.submitted.len()].clone()),
            Step::Loser { back } => {
                self.both(commit("g", head.epoch.saturating_sub(back), "another", &[]));
            }
            Step::Prune { part } => {
                let upto_seq = head.seq * part / 4;
                self.memory.prune(upto_seq);
                let group_id = Bytes::from_static(b"g");
                self.machine.apply_one(encode(Cmd::PruneGroup(PruneGroup { group_id, upto_seq })));
            }
            Step::Restart => {
                self.machine.state.flush().unwrap();
                let machine = std::mem::replace(&mut self.machine, Machine::new(2));
                self.machine = machine.restart();
            }
            Step::Snapshot => self.machine = self.machine.copy_by_snapshot().machine,
        }
    }

    fn compare(&self) {
        let Pair { machine, memory, .. } = self;
        let head = memory.current().unwrap();
        assert_eq!(machine.reader.head(b"g").unwrap().as_ref(), Some(head));
        let groups = machine.reader.groups_after(None, 10).unwrap();
        assert_eq!(groups, [(Bytes::from_static(b"g"), *head, memory.pruned().unwrap())]);
        let batch = Batch::new(&machine.state).unwrap();
        for epoch in 0..head.epoch + 2 {
            let found = epochs::commit_ending(&batch, b"g", Some(head), epoch).unwrap();
            assert_eq!(found, memory.commit_ending(epoch).unwrap(), "epoch {epoch}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn heads_and_ended_epochs_are_what_the_rules_in_memory_hold(steps in steps()) {
        let mut pair = Pair::new();
        for step in steps {
            pair.step(step);
        }
        pair.compare();
        // From the rows alone, without the heads that were at hand.
        pair.step(Step::Restart);
        pair.compare();
    }
}

#[test]
fn most_entries_of_a_group_write_one_row() {
    let mut machine = Machine::new(1);
    machine.apply([create("g")]);
    let before = machine.dump().len();
    machine.apply((0..160).map(|epoch| commit("g", epoch, &format!("c{epoch}"), &[])));
    assert_eq!(machine.dump().len() - before, 160);
}
