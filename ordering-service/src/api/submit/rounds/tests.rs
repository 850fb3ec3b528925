use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, channel::mpsc};
use openraft::{
    impls::leader_id_adv::LeaderId,
    raft::{WriteResponse, responder::Responder as _},
};

use super::*;
use crate::raft::types::{Applied, LogId};

/// A log that decides nothing by itself: the test does.
#[derive(Default)]
struct Paper {
    singles: Mutex<Vec<WriteResponder>>,
    rounds: Mutex<Vec<(Vec<Proposed>, mpsc::UnboundedSender<Written>)>>,
    stopped: bool,
}

type Written = Result<WriteResult<TypeConfig>, Fatal<TypeConfig>>;

impl Log for Arc<Paper> {
    async fn write(&self, _: Proposed, responder: WriteResponder) {
        if !self.stopped {
            self.singles.lock().push(responder);
        }
    }

    async fn write_many(&self, proposed: Vec<Proposed>) -> Result<Results, Fatal<TypeConfig>> {
        if self.stopped {
            return Err(Fatal::Stopped);
        }
        let (decide, results) = mpsc::unbounded();
        self.rounds.lock().push((proposed, decide));
        Ok(results.boxed())
    }
}

impl Paper {
    /// The bytes of the commands in each round.
    fn commands(&self) -> Vec<Vec<u8>> {
        let of = |(round, _): &(Vec<Proposed>, _)| round.iter().map(|one| one.command[0]).collect();
        self.rounds.lock().iter().map(of).collect()
    }

    /// Decides a round.
    fn decide(&self, round: usize) {
        let (proposed, decide) = &self.rounds.lock()[round];
        for proposed in proposed {
            let log_id = position(proposed.command[0].into());
            decide.unbounded_send(Ok(Ok(WriteResponse { log_id, response: Applied::default() }))).unwrap();
        }
    }

    /// Decides one that was proposed by itself.
    fn decide_single(&self) {
        let responder = self.singles.lock().pop().unwrap();
        let (log_id, data) = (position(0), Applied::default());
        responder.on_complete(Ok(ClientWriteResponse { log_id, data, membership: None }));
    }
}

fn position(index: u64) -> LogId {
    LogId::new(LeaderId { term: 1, node_id: 1 }, index)
}

/// The tokens that were answered, with the position in the log, or without one if nobody can tell.
#[derive(Default)]
struct Answers(Mutex<Vec<(u64, Option<u64>)>>);

impl ResultSink<ClientWriteResult<TypeConfig>> for Answers {
    fn complete(&self, token: u64, result: ClientWriteResult<TypeConfig>) {
        self.0.lock().push((token, result.ok().map(|written| written.log_id.index)));
    }

    fn abandoned(&self, token: u64) {
        self.0.lock().push((token, None));
    }
}

struct Test {
    log: Arc<Paper>,
    rounds: Arc<Rounds<Arc<Paper>>>,
    answers: Arc<Answers>,
}

impl Test {
    fn new(log: Paper) -> Self {
        let log = Arc::new(log);
        Test { rounds: Rounds::new(log.clone()), log, answers: Arc::default() }
    }

    /// Proposes commands with these bytes. Their tokens are the same numbers.
    async fn propose(&self, commands: impl IntoIterator<Item = u8>) {
        for command in commands {
            let proposed = Proposed { at_ms: 0, command: Bytes::from(vec![command]) };
            let proposal = Proposal { proposed, sink: self.answers.clone(), token: command.into() };
            self.rounds.propose(proposal).await;
        }
    }

    /// Lets all tasks run that can.
    async fn settle(&self) {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
}

const SINGLY: u8 = limits::PROPOSED_SINGLY as u8;

#[tokio::test(start_paused = true)]
async fn a_few_go_to_raft_one_by_one() {
    let test = Test::new(Paper::default());
    for _ in 0..5 {
        test.propose(0..SINGLY).await;
        assert_eq!(test.log.singles.lock().len(), limits::PROPOSED_SINGLY);
        (0..SINGLY).for_each(|_| test.log.decide_single());
    }
    test.settle().await;
    assert!(test.log.rounds.lock().is_empty());
    assert_eq!(test.answers.0.lock().len(), 5 * limits::PROPOSED_SINGLY);
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_a_round_is_decided_makes_the_next_and_each_gets_its_own_answer() {
    let test = Test::new(Paper::default());
    test.propose(0..SINGLY).await;
    test.propose([100]).await;
    test.settle().await;
    assert_eq!(test.log.commands(), [[100]]);
    test.propose([101, 102, 103]).await;
    test.settle().await;
    assert_eq!(test.log.commands().len(), 1, "the first is not decided");
    test.log.decide(0);
    test.settle().await;
    assert_eq!(test.log.commands(), [&[100][..], &[101, 102, 103]]);
    test.log.decide(1);
    test.settle().await;
    let expected: Vec<_> = (100..104).map(|number| (number, Some(number))).collect();
    assert_eq!(*test.answers.0.lock(), expected);

    // With nothing under way they go one by one again.
    (0..SINGLY).for_each(|_| test.log.decide_single());
    test.propose([7]).await;
    assert_eq!(test.log.singles.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn rounds_overlap_where_the_network_is_slow() {
    let test = Test::new(Paper::default());
    test.propose(0..SINGLY).await;
    for number in 100..105 {
        test.propose([number]).await;
        // The clock goes on by itself when nothing else can run.
        tokio::time::sleep(limits::ROUND_MAX + Duration::from_millis(1)).await;
    }
    assert_eq!(test.log.commands(), [[100], [101], [102], [103], [104]]);
    (0..5).for_each(|round| test.log.decide(round));
    test.settle().await;
    assert_eq!(test.answers.0.lock().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn what_raft_leaves_without_a_result_is_told_that_nobody_knows() {
    let test = Test::new(Paper::default());
    test.propose(0..SINGLY).await;
    test.propose([100, 101]).await;
    test.settle().await;
    // Raft stops with a round under way.
    test.log.rounds.lock().clear();
    test.settle().await;
    assert!(test.answers.0.lock().iter().all(|(_, position)| position.is_none()));

    let test = Test::new(Paper { stopped: true, ..Paper::default() });
    test.propose([1, 2, 3]).await;
    assert_eq!(*test.answers.0.lock(), [(1, None), (2, None), (3, None)]);
}

#[test]
fn a_proposal_counts_until_it_is_answered() {
    let test = Test::new(Paper::default());
    test.propose([1, 2]).now_or_never().unwrap();
    assert_eq!(test.rounds.under_way.load(Ordering::Relaxed), 2);
    test.log.decide_single();
    assert_eq!(test.rounds.under_way.load(Ordering::Relaxed), 1);
    test.log.singles.lock().clear();
    assert_eq!(test.rounds.under_way.load(Ordering::Relaxed), 0);
    assert_eq!(*test.answers.0.lock(), [(2, Some(0)), (1, None)]);
}
