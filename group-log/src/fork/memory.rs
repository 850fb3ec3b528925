//! The replicated state of one group with its branches, in memory: for tests, simulations, and a gateway's copy of the canonical log.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
};

use crate::{
    content::{CommitRef, Content, Record},
    fork::{
        Answer, Command, apply,
        facts::{CommitFacts, LeafId},
        follow::{FollowError, LogEntry, follow},
        marks::{Item, Mark},
        state::{BranchEntry, Candidate, ForkState, Recorded},
        view::{Appended, ForkChange, ForkView, Payload},
    },
    head::Head,
    ids::{ClientId, EntryId, GroupId},
    view::View,
};

const CONSISTENT: &str = "a log in memory keeps everything that the rules gave it";

/// One group's replicated state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryFork {
    head: Option<Head>,
    items: BTreeMap<u64, (Record, Item)>,
    commits: BTreeMap<u64, CommitRef>,
    recent: BTreeMap<EntryId, u64>,
    fork: ForkState,
    recorded: BTreeMap<EntryId, Recorded>,
    candidates: BTreeMap<EntryId, Candidate>,
    reported: BTreeMap<EntryId, BranchEntry>,
    members: BTreeSet<LeafId>,
}

impl MemoryFork {
    /// A group that does not exist yet.
    pub fn new() -> Self {
        MemoryFork::default()
    }

    /// Decides about a command and keeps what it changes.
    pub fn apply(&mut self, command: &Command) -> Answer {
        let (answer, change) = apply(self, command).expect(CONSISTENT);
        if let Some(change) = change {
            self.store(command, change);
        }
        answer
    }

    /// Stores what [`apply`] gave for this command.
    pub fn store(&mut self, command: &Command, change: ForkChange) {
        if let Command::Report(report) = command {
            for (id, &index) in &change.kept {
                self.reported.insert(*id, report.entries[index].clone());
            }
        }
        let mut items = Vec::new();
        for appended in &change.appended {
            items.push(match (&appended.payload, command) {
                (Payload::Mark(mark), _) => Item::Mark(mark.clone()),
                (Payload::Reported(id), _) => Item::Content(self.reported[id].content.clone()),
                (Payload::Submission, Command::Submit { submission, .. }) => {
                    Item::Content(submission.content.clone())
                }
                (Payload::Submission, _) => unreachable!("only a submission has its payload in itself"),
            });
        }
        self.keep(change, items);
    }

    fn keep(&mut self, change: ForkChange, items: Vec<Item>) {
        for (Appended { change, .. }, item) in change.appended.into_iter().zip(items) {
            self.commits.extend(change.commit_ending);
            change.recent_delete.map(|id| self.recent.remove(&id));
            self.recent.extend(change.recent_put.map(|id| (id, change.seq)));
            self.items.insert(change.seq, (change.record, item));
            self.head = Some(change.head);
        }
        if let Some(fork) = change.fork {
            self.fork = fork;
        }
        self.recorded.extend(change.recorded);
        if change.candidates_cleared {
            self.candidates.clear();
        }
        self.candidates.extend(change.candidates.into_iter().map(|candidate| (candidate.id, candidate)));
        for (leaf, is_member) in change.members {
            if is_member {
                self.members.insert(leaf)
            } else {
                self.members.remove(&leaf)
            };
        }
    }

    /// The newest position, or nothing if the group does not exist.
    pub fn current(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// The fork state.
    pub fn state(&self) -> &ForkState {
        &self.fork
    }

    /// What the log says about an entry.
    pub fn verdict(&self, id: &EntryId) -> Option<Recorded> {
        self.recorded.get(id).copied()
    }

    /// The members that are known at the head.
    pub fn members(&self) -> &BTreeSet<LeafId> {
        &self.members
    }

    /// Entries from the number `first` on, in order.
    pub fn items(&self, first: u64) -> impl Iterator<Item = (u64, &Record, &Item)> {
        self.items.range(first..).map(|(seq, (record, item))| (*seq, record, item))
    }

    /// An entry that was ever reported.
    pub fn reported(&self, id: &EntryId) -> Option<&BranchEntry> {
        self.reported.get(id)
    }

    /// The entry with this number as a follower needs it. `facts` are those of a commit or create.
    pub fn log_entry(&self, seq: u64, facts: CommitFacts) -> Option<LogEntry> {
        let (record, item) = self.items.get(&seq)?;
        let Record { chain, epoch, state_id, author, .. } = record.clone();
        let bodies = match item {
            Item::Mark(Mark::Side { ids, .. } | Mark::Late { ids }) => {
                ids.iter().filter_map(|id| self.reported.get(id).cloned()).collect()
            }
            _ => Vec::new(),
        };
        Some(LogEntry { seq, chain, epoch, state_id, author, item: item.clone(), facts, bodies })
    }

    /// Takes in the next entry of another's log.
    pub fn follow(&mut self, group_id: &GroupId, entry: &LogEntry) -> Result<(), FollowError> {
        let change = follow(self, group_id, entry).expect(CONSISTENT)?;
        let bodies = entry.bodies.iter();
        self.reported.extend(bodies.map(|body| (body.id(), body.clone())));
        self.keep(change, vec![entry.item.clone()]);
        Ok(())
    }
}

impl View for MemoryFork {
    type Error = Infallible;

    fn head(&self) -> Result<Option<Head>, Infallible> {
        Ok(self.head)
    }

    fn commit_ending(&self, epoch: u64) -> Result<Option<CommitRef>, Infallible> {
        Ok(self.commits.get(&epoch).copied())
    }

    fn recent(&self, id: &EntryId) -> Result<Option<u64>, Infallible> {
        Ok(self.recent.get(id).copied())
    }

    fn turn_holder(&self, _: u32) -> Result<Option<ClientId>, Infallible> {
        // Groups that may be split take no turns.
        Ok(None)
    }

    fn record(&self, seq: u64) -> Result<Option<Record>, Infallible> {
        Ok(self.items.get(&seq).map(|(record, _)| record.clone()))
    }
}

impl ForkView for MemoryFork {
    fn fork(&self) -> Result<ForkState, Infallible> {
        Ok(self.fork.clone())
    }

    fn recorded(&self, id: &EntryId) -> Result<Option<Recorded>, Infallible> {
        Ok(self.recorded.get(id).copied())
    }

    fn candidate(&self, id: &EntryId) -> Result<Option<Candidate>, Infallible> {
        Ok(self.candidates.get(id).cloned())
    }

    fn candidates(&self) -> Result<Vec<Candidate>, Infallible> {
        let mut candidates: Vec<_> = self.candidates.values().cloned().collect();
        candidates.sort_by_key(|candidate| candidate.ordinal);
        Ok(candidates)
    }

    fn candidate_content(&self, id: &EntryId) -> Result<Option<Content>, Infallible> {
        Ok(self.reported.get(id).map(|entry| entry.content.clone()))
    }

    fn is_member(&self, leaf: &LeafId) -> Result<bool, Infallible> {
        Ok(self.members.contains(leaf))
    }
}
