//! Groups that take turns are stored as the rules in memory hold them, through restarts and snapshots.

use concordat_proto::ordering::v1::Command as WireCommand;
use group_log::{
    ClientId, Commit as LogCommit, Content as LogContent, Create as LogCreate, Decision, GroupId,
    GroupKind as Kinds, MemoryLog, Offer, Policy as LogPolicy, Submission, Turns,
};
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Commit { by: u8, members_only: bool },
    Order { turn_ms: u32, order: Vec<u8> },
    NoOrder,
    Wait(u64),
    Restart,
    Snapshot,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let order = Just((0..5u8).collect::<Vec<_>>()).prop_shuffle();
    let step = prop_oneof![
        8 => (0..5u8, prop::bool::weighted(0.1)).prop_map(|(by, members_only)| Step::Commit { by, members_only }),
        4 => (0..300u64).prop_map(Step::Wait),
        2 => (10..200u32, order, 0..6usize).prop_map(|(turn_ms, mut order, members)| {
            order.truncate(members);
            Step::Order { turn_ms, order }
        }),
        1 => Just(Step::NoOrder),
        1 => Just(Step::Restart),
        1 => Just(Step::Snapshot),
    ];
    proptest::collection::vec(step, 1..60)
}

fn client(n: u8) -> ClientId {
    ClientId::new(format!("client {n}").into_bytes()).unwrap()
}

struct Pair {
    machine: Machine,
    memory: MemoryLog,
    made: usize,
}

impl Pair {
    fn both(&mut self, author: ClientId, content: LogContent, members_only: bool) {
        let epoch = self.memory.current().map_or(0, |head| head.epoch);
        let group_id = GroupId::new(&b"turns"[..]).unwrap();
        let submission = Submission { group_id, author, epoch, parent_state_id: None, content };
        let offer = Offer { at_ms: self.machine.at_ms, members_only };
        let expected = self.memory.apply_offer(&submission, offer);
        let group = GroupSubmission { members_only, ..submission.into() };
        let command = WireCommand { command: Some(Cmd::Group(group)) };
        match (self.machine.apply_one(command.encode_to_vec().into()), expected) {
            (Answer::Accepted(got), Decision::Accepted(expected)) => assert_eq!(got, expected.into()),
            (Answer::Refused(got), Decision::Refused(expected)) => assert_eq!(got, (&expected).into()),
            (got, expected) => panic!("got {got:?}, expected {expected:?}"),
        }
        assert_eq!(self.machine.reader.head(b"turns").unwrap().as_ref(), self.memory.current());
        let rows = self.machine.dump().iter().filter(|(key, _)| key[0] == 0x1a).count();
        let members = self.memory.current().and_then(|head| head.turn).map_or(0, |turn| turn.members);
        assert_eq!(rows, members as usize, "nothing is left of orders before");
    }

    fn step(&mut self, step: Step) {
        self.made += 1;
        let text = Bytes::from(self.made.to_string());
        match step {
            Step::Commit { by, members_only } => {
                let (welcome, group_info, recipients) = (Bytes::new(), Bytes::new(), Vec::new());
                let commit = LogCommit { message: text, welcome, group_info, recipients };
                self.both(client(by), LogContent::Commit(commit), members_only);
            }
            Step::Order { turn_ms, order } => {
                let turns = Some(Turns { turn_ms, order: order.into_iter().map(client).collect() });
                let policy = LogPolicy { past_epochs: self.made as u32 % 60, ..LogPolicy::default() };
                self.both(client(0), LogContent::PolicyChange { policy, turns }, false);
            }
            Step::NoOrder => {
                let policy = LogPolicy { past_epochs: self.made as u32 % 60, ..LogPolicy::default() };
                self.both(client(0), LogContent::PolicyChange { policy, turns: None }, false);
            }
            Step::Wait(ms) => self.machine.at_ms += ms,
            Step::Restart => {
                let (at_ms, machine) =
                    (self.machine.at_ms, std::mem::replace(&mut self.machine, Machine::new(1)));
                machine.state.flush().unwrap();
                self.machine = Machine { at_ms, ..machine.restart() };
            }
            Step::Snapshot => {
                let copy = self.machine.copy_by_snapshot().machine;
                self.machine = Machine { at_ms: self.machine.at_ms, ..copy };
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    #[test]
    fn stored_turns_and_turns_in_memory_are_the_same(steps in steps()) {
        let mut pair = Pair { machine: Machine::new(1), memory: MemoryLog::new(), made: 0 };
        let group_info = Bytes::from_static(b"info");
        let create = LogCreate { kind: Kinds::Mls, policy: LogPolicy::default(), group_info };
        pair.both(client(0), LogContent::Create(create), false);
        for step in steps {
            pair.step(step);
        }
    }
}

#[test]
fn another_members_turn_is_said_without_consensus_and_an_own_one_is_not() {
    let mut machine = Machine::new(1);
    machine.apply_one(create("g"));
    let turns = concordat_proto::log::v1::Turns { turn_ms: 100, order: vec!["alice".into(), "bob".into()] };
    let policy = Some(Policy { turns: Some(turns), ..Policy::default() });
    machine.apply_one(submission("g", 0, Kind::PolicyChange(PolicyChange { policy })));
    let Some(Cmd::Group(alices)) = Command::decode(commit("g", 0, "c", &[])).unwrap().command else {
        panic!("expected a submission")
    };
    let bobs = GroupSubmission { author: "bob".into(), ..alices.clone() };
    let begin = machine.at_ms;
    let refused = |group: &GroupSubmission, at_ms| {
        let decided = machine.reader.decided(group, at_ms).unwrap();
        decided.map(|outcome| reason(&outcome.outcome.unwrap()))
    };
    assert_eq!(refused(&alices, begin), None);
    assert_eq!(refused(&bobs, begin), Some(Some(Reason::NotYourTurn)));
    assert_eq!(refused(&alices, begin + 100), Some(Some(Reason::NotYourTurn)));
    assert_eq!(refused(&bobs, begin + 100), None);
    assert_eq!(refused(&GroupSubmission { members_only: true, ..bobs }, begin), None);
}
