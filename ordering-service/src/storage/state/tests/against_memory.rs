//! The stored form of a group with branches against the rules in memory: the same commands get the same answers, the same log, the
//! same hashes, also over restarts and snapshots.

use group_log::{
    Content as LogContent, EntryId, GroupKind as Kinds, StateId, Submission,
    fork::{
        BranchEntry, Close, Command as ForkCommand, CommitFacts, ForkView, GatewayId, MemoryFork, Report,
    },
};
use proptest::prelude::*;

use super::{
    forks::{a_commit, a_message, author, create_forked, group_command, group_id, leaf, log, on_branch},
    *,
};

/// What may come next. Numbers are taken modulo what there is to choose from.
#[derive(Clone, Debug)]
enum Step {
    /// Make a commit or a message in any known state, and submit it.
    Submit {
        parent: usize,
        message: bool,
        author: u8,
        removes: u8,
        adds: bool,
    },
    /// Make a commit or a message in any known state, for a report some time.
    Branch {
        parent: usize,
        message: bool,
        author: u8,
        removes: u8,
    },
    /// Submit something again, wherever it is.
    Again {
        entry: usize,
    },
    /// Report everything with an even or odd number up to here, or only the newest.
    Report {
        gateway: u8,
        newest: usize,
        complete: bool,
    },
    Close {
        other: bool,
        nonce: u8,
    },
    Ack {
        gateway: u8,
        back: u64,
    },
    Register {
        gateway: u8,
        /// Departures that it has not heard of.
        missed: u64,
    },
    Release {
        gateway: u8,
        /// It names another registration than it has.
        other: bool,
    },
    Evict {
        gateway: u8,
    },
    Policy {
        past_epochs: u32,
    },
    Restart,
    Snapshot,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..20usize, any::<bool>(), 0..4u8, 0..6u8, any::<bool>()).prop_map(
            |(parent, message, author, removes, adds)| Step::Submit { parent, message, author, removes, adds }
        ),
        6 => (0..20usize, any::<bool>(), 0..4u8, 0..6u8)
            .prop_map(|(parent, message, author, removes)| Step::Branch { parent, message, author, removes }),
        2 => (0..40usize).prop_map(|entry| Step::Again { entry }),
        4 => (0..3u8, 0..12usize, any::<bool>())
            .prop_map(|(gateway, newest, complete)| Step::Report { gateway, newest, complete }),
        3 => (any::<bool>(), any::<u8>()).prop_map(|(other, nonce)| Step::Close { other, nonce }),
        3 => (0..3u8, 0..4u64).prop_map(|(gateway, back)| Step::Ack { gateway, back }),
        1 => (0..3u8, 0..2u64).prop_map(|(gateway, missed)| Step::Register { gateway, missed }),
        1 => (0..3u8, any::<bool>()).prop_map(|(gateway, other)| Step::Release { gateway, other }),
        1 => (0..3u8).prop_map(|gateway| Step::Evict { gateway }),
        1 => (0..70u32).prop_map(|past_epochs| Step::Policy { past_epochs }),
        1 => Just(Step::Restart),
        1 => Just(Step::Snapshot),
    ];
    proptest::collection::vec(step, 1..60)
}

struct Pair {
    machine: Machine,
    memory: MemoryFork,
    /// Everything that was ever made, with the epoch it was made in.
    made: Vec<(BranchEntry, u64)>,
    /// States that something can be made in, with their epochs.
    states: Vec<(StateId, u64)>,
}

impl Pair {
    fn new() -> Self {
        let mut pair = Pair {
            machine: Machine::new(1),
            memory: MemoryFork::new(),
            made: Vec::new(),
            states: Vec::new(),
        };
        pair.both(create_forked(Kinds::Demls));
        pair.states.push((pair.memory.current().unwrap().state_id, 0));
        pair
    }

    /// Both decide, and must say the same.
    fn both(&mut self, command: ForkCommand) {
        let expected = Answer::from(self.memory.apply(&command));
        let mut got = self.machine.apply_one(group_command(command.clone()));
        if let Answer::Superseded(superseded) = &mut got {
            let winner = superseded.winner.take().expect("a winner");
            assert!(self.memory.items(winner.seq).next().is_some());
        }
        assert_eq!(got, expected, "{command:?}");
    }

    /// The number of a gateway's registration; 0 if there is none.
    fn number(&self, gateway: GatewayId) -> u64 {
        self.memory.state().gateways.get(&gateway).map_or(0, |registration| registration.number)
    }

    fn make(&mut self, parent: usize, message: bool, author: u8, facts: CommitFacts) -> (BranchEntry, u64) {
        let (state, epoch) = self.states[parent % self.states.len()];
        let text = format!("{} by {author}", self.made.len());
        let content = if message { a_message(&text) } else { a_commit(&text, &["dan"]) };
        let facts = if message { CommitFacts::default() } else { facts };
        let entry = on_branch(state, content, facts);
        if !message {
            self.states.push((entry.id().as_state(), epoch + 1));
        }
        self.made.push((entry.clone(), epoch));
        (entry, epoch)
    }

    fn submit(&mut self, entry: BranchEntry, epoch: u64) {
        let BranchEntry { parent, content, facts, .. } = entry;
        let parent_state_id = Some(parent);
        let submission =
            Submission { group_id: group_id(), author: author(), epoch, parent_state_id, content };
        self.both(ForkCommand::Submit { submission, facts });
    }

    fn step(mut self, step: Step) -> Self {
        let gateway = |n: u8| GatewayId([n + 1; 16]);
        let facts = |author: u8, removes: u8, adds: bool, n: usize| CommitFacts {
            author: (author > 0).then(|| leaf(author)),
            removes: (removes > 3).then(|| leaf(removes - 3)).into_iter().collect(),
            adds: if adds { vec![leaf(100 + n as u8)] } else { Vec::new() },
        };
        let made = self.made.len();
        match step {
            Step::Submit { parent, message, author, removes, adds } => {
                let (entry, epoch) = self.make(parent, message, author, facts(author, removes, adds, made));
                self.submit(entry, epoch);
            }
            Step::Branch { parent, message, author, removes } => {
                self.make(parent, message, author, facts(author, removes, false, made));
            }
            Step::Again { entry } if made > 0 => {
                let (entry, epoch) = self.made[entry % made].clone();
                self.submit(entry, epoch);
            }
            Step::Again { .. } => {}
            Step::Report { gateway: n, newest, complete } => {
                let entries = self.made.iter().skip(made.saturating_sub(newest));
                let entries = entries.map(|(entry, _)| entry.clone()).collect();
                self.both(ForkCommand::Report(Report { gateway: gateway(n), entries, complete }));
            }
            Step::Close { other, nonce } => {
                let collection = self.memory.state().collections + u64::from(other);
                self.both(ForkCommand::Close(Close { collection, nonce: [nonce; 32] }));
            }
            Step::Ack { gateway: n, back } => {
                let position = self.memory.current().unwrap().seq.saturating_sub(back);
                let registration = self.number(gateway(n));
                self.both(ForkCommand::Ack { gateway: gateway(n), registration, position });
            }
            Step::Register { gateway: n, missed } => {
                let position = self.memory.current().unwrap().seq;
                let departures = self.memory.state().departures.saturating_sub(missed);
                self.both(ForkCommand::Register { gateway: gateway(n), position, departures });
            }
            Step::Release { gateway: n, other } => {
                let registration = self.number(gateway(n)) + u64::from(other);
                self.both(ForkCommand::Release { gateway: gateway(n), registration });
            }
            Step::Evict { gateway: n } => self.both(ForkCommand::Evict { gateway: gateway(n) }),
            Step::Policy { past_epochs } => {
                let policy = group_log::Policy { past_epochs, ..group_log::Policy::default() };
                let content = LogContent::PolicyChange { policy, turns: None };
                let epoch = self.memory.current().unwrap().epoch;
                let submission = Submission {
                    group_id: group_id(),
                    author: author(),
                    epoch,
                    parent_state_id: None,
                    content,
                };
                self.both(ForkCommand::Submit { submission, facts: CommitFacts::default() });
            }
            Step::Restart => {
                self.machine.state.flush().unwrap();
                self.machine = self.machine.restart();
            }
            Step::Snapshot => self.machine = self.machine.copy_by_snapshot().machine,
        }
        self
    }

    /// Everything that is stored is what the rules in memory hold.
    fn compare(&self) {
        let Pair { machine, memory, .. } = self;
        assert_eq!(machine.reader.head(b"forked").unwrap().as_ref(), memory.current());
        assert_eq!(&machine.reader.fork_state(b"forked").unwrap(), memory.state());
        let facts = |id: &EntryId| {
            let made = self.made.iter().find(|(entry, _)| entry.id() == *id);
            made.map(|(entry, _)| entry.facts.clone()).unwrap_or_default()
        };
        let stored = log(&machine.reader);
        assert_eq!(stored.len() as u64, memory.current().unwrap().seq);
        for entry in stored.into_iter().skip(1) {
            let (_, record, _) = memory.items(entry.seq).next().unwrap();
            assert_eq!(Some(entry.clone()), memory.log_entry(entry.seq, facts(&record.id)));
        }
        let state = memory.state();
        let open = machine.reader.open_collections(10).unwrap();
        assert_eq!(open.len(), usize::from(state.collecting.is_some()));
        assert_eq!(machine.reader.groups_that_owe(10).unwrap(), usize::from(!state.owed.is_empty()));
        let known: Vec<_> = machine.reader.gateways(10).unwrap().iter().map(|gateway| gateway.id).collect();
        assert_eq!(known, state.gateways.keys().copied().collect::<Vec<_>>());
        for gateway in known {
            assert_eq!(machine.reader.groups_of(&gateway, None, 10).unwrap(), ["forked"]);
        }
        let waiting = memory.candidates().unwrap();
        let waiting_rows = machine.dump().iter().filter(|(key, _)| key[0] == 0x16).count();
        assert_eq!(waiting_rows, waiting.len(), "nothing is left of candidates");
        let members = machine.dump().iter().filter(|(key, _)| key[0] == 0x17).count();
        assert_eq!(members, memory.members().len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn stored_groups_and_groups_in_memory_are_the_same(steps in steps()) {
        let mut pair = Pair::new();
        for step in steps {
            pair = pair.step(step);
        }
        pair.compare();
    }
}
