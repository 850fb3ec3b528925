//! Correct runs: clients that race, lose answers and resubmit against logs in memory, with reads and subscriptions.

use std::collections::BTreeMap;

use bytes::Bytes;
use group_log::{
    ClientId, Commit, Content, Create, Decision, GroupId, GroupKind, MemoryLog, Policy, StateId, Submission,
};
use rand::{Rng, seq::IndexedRandom};

use crate::{
    check::FinalLogs,
    history::{Answer, Call, ContentKey, Delivered, HeadRead, Record, Subscription},
    seed,
};

const GROUPS: usize = 2;
const CLIENTS: usize = 4;
const STEPS: usize = 1500;

/// One client: the position it believes in for each group, and what it is doing.
struct Client {
    view: Vec<(u64, Option<StateId>)>,
    pending: Option<Pending>,
}

struct Pending {
    group: usize,
    submission: Submission,
    start: u64,
    decision: Option<Decision>,
}

struct Run {
    now: u64,
    logs: Vec<MemoryLog>,
    record: Record,
    rng: rand_chacha::ChaCha8Rng,
    drawn: u64,
}

/// A run that keeps every promise; the same for the same seed.
pub(super) fn run(seed: u64) -> (Record, FinalLogs) {
    let logs = vec![MemoryLog::new(); GROUPS];
    let mut run = Run { now: 0, logs, record: Record::default(), rng: seed::rng(seed, 0), drawn: 0 };
    let mut clients: Vec<_> =
        (0..CLIENTS).map(|_| Client { view: vec![(0, None); GROUPS], pending: None }).collect();
    let mut readers: Vec<_> = (0..GROUPS)
        .map(|g| Subscription {
            reader: format!("reader {g}"),
            group: id(g),
            after_seq: 0,
            delivered: Vec::new(),
        })
        .collect();
    // Applied after everybody has given up on them.
    let mut adrift: Vec<Pending> = Vec::new();
    for _ in 0..STEPS {
        match run.rng.random_range(0..20) {
            0 => run.linearizable_read(),
            1..=3 => run.deliver(&mut readers),
            4 => {
                if let Some(lost) = adrift.pop() {
                    run.logs[lost.group].apply(&lost.submission);
                }
            }
            _ => {
                let client = run.rng.random_range(0..CLIENTS);
                run.step(&mut clients[client], &mut adrift);
            }
        }
    }
    for pending in clients.iter_mut().filter_map(|client| client.pending.take()) {
        run.finish(&pending, Answer::Unknown);
    }
    let logs: FinalLogs = run
        .logs
        .iter()
        .enumerate()
        .map(|(g, log)| {
            let entries: Vec<_> = log.entries(1, usize::MAX).collect();
            (id(g), BTreeMap::from(["node-1", "node-2"].map(|name| (name.to_owned(), entries.clone()))))
        })
        .collect();
    run.record.subscriptions = readers;
    (run.record, logs)
}

fn id(group: usize) -> GroupId {
    GroupId::new(format!("group-{group}").into_bytes()).unwrap()
}

impl Run {
    fn moment(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    fn step(&mut self, client: &mut Client, adrift: &mut Vec<Pending>) {
        let Some(mut pending) = client.pending.take() else {
            client.pending = Some(self.begin(client));
            return;
        };
        if pending.decision.is_none() {
            if self.rng.random_bool(0.1) {
                self.finish(&pending, Answer::Unknown);
                adrift.push(pending);
                return;
            }
            pending.decision = Some(self.logs[pending.group].apply(&pending.submission));
            client.pending = Some(pending);
            return;
        }
        if self.rng.random_bool(0.2) {
            // The answer is lost; the same bytes again.
            self.finish(&pending, Answer::Unknown);
            pending.start = self.moment();
            pending.decision = None;
            client.pending = Some(pending);
            return;
        }
        let answer = self.answer(&pending);
        client.view[pending.group] = match &answer {
            Answer::Accepted { epoch, state_id, .. } => (*epoch, Some(*state_id)),
            Answer::Superseded { winner } => (winner.epoch + 1, Some(winner.state_id)),
            _ => (client.view[pending.group].0, None),
        };
        self.finish(&pending, answer);
    }

    fn begin(&mut self, client: &Client) -> Pending {
        let group = self.rng.random_range(0..GROUPS);
        let (epoch, state) = client.view[group];
        self.drawn += 1;
        let message = Bytes::from(format!("message {}", self.drawn));
        let content = match state {
            None => Content::Create(Create {
                kind: GroupKind::Mls,
                policy: Policy::default(),
                group_info: Bytes::from(format!("group info {group}")),
            }),
            Some(_) if self.rng.random_bool(0.6) => Content::Commit(Commit {
                message,
                welcome: Bytes::new(),
                group_info: Bytes::new(),
                recipients: Vec::new(),
            }),
            Some(_) => Content::Application { message },
        };
        let author = ClientId::new(b"somebody".to_vec()).unwrap();
        let epoch = if state.is_none() { 0 } else { epoch };
        let submission = Submission { group_id: id(group), author, epoch, parent_state_id: state, content };
        Pending {
            group,
            submission: Submission { parent_state_id: state.filter(|_| self.rng.random()), ..submission },
            start: self.moment(),
            decision: None,
        }
    }

    fn answer(&self, pending: &Pending) -> Answer {
        match pending.decision.clone().unwrap() {
            Decision::Accepted(a) => {
                Answer::Accepted { seq: a.seq, epoch: a.epoch, state_id: a.state_id, chain: a.chain }
            }
            Decision::Superseded { winner_seq } => {
                Answer::Superseded { winner: Box::new(self.logs[pending.group].entry(winner_seq).unwrap()) }
            }
            Decision::Refused(refusal) => Answer::Refused { reason: format!("{refusal}") },
        }
    }

    fn finish(&mut self, pending: &Pending, answer: Answer) {
        let end = self.moment();
        self.record.calls.push(Call {
            group: pending.submission.group_id.clone(),
            epoch: pending.submission.epoch,
            key: ContentKey::of(&pending.submission.content),
            start: pending.start,
            end,
            answer,
        });
    }

    fn linearizable_read(&mut self) {
        let group = self.rng.random_range(0..GROUPS);
        let start = self.moment();
        let head = self.logs[group].current().map(|head| (head.seq, head.chain));
        let end = self.moment();
        if let Some((seq, chain)) = head {
            self.record.reads.push(HeadRead { group: id(group), start, end, seq, chain });
        }
    }

    fn deliver(&mut self, readers: &mut [Subscription]) {
        let group = *[0, 1].choose(&mut self.rng).unwrap();
        let next = readers[group].after_seq + readers[group].delivered.len() as u64 + 1;
        if let Some(entry) = self.logs[group].entry(next) {
            let at = self.moment();
            readers[group].delivered.push(Delivered { seq: entry.seq, chain: entry.chain, at });
        }
    }
}
