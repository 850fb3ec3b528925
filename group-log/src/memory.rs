//! The log of one group in memory: for tests, for simulations, and for whatever needs a log without a disk.

use std::{collections::BTreeMap, convert::Infallible};

use crate::{
    content::{CommitRef, Content, Entry, Record, Submission},
    cursor::{Cursor, CursorError, check_cursor},
    head::Head,
    ids::{ClientId, EntryId},
    limits::Limits,
    retention::{Pruned, prune},
    rules::{Change, Decision, admit, apply},
    turns::Offer,
    view::View,
};

const CONSISTENT: &str = "a log in memory keeps everything that the rules gave it";

/// One group's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryLog {
    head: Option<Head>,
    records: BTreeMap<u64, Record>,
    contents: BTreeMap<u64, Content>,
    commits: BTreeMap<u64, CommitRef>,
    recent: BTreeMap<EntryId, u64>,
    turn_order: Vec<ClientId>,
    pruned: Pruned,
}

impl MemoryLog {
    /// A group that does not exist yet.
    pub fn new() -> Self {
        MemoryLog::default()
    }

    /// What would become of a submission at time 0. For groups that do not take turns.
    pub fn admit(&self, submission: &Submission, limits: &Limits) -> Decision {
        self.admit_offer(submission, Offer::default(), limits)
    }

    /// What would become of a submission.
    pub fn admit_offer(&self, submission: &Submission, offer: Offer, limits: &Limits) -> Decision {
        admit(self, submission, offer, limits).expect(CONSISTENT)
    }

    /// Decides about a submission at time 0 and keeps it if it is accepted. For groups that do not take turns.
    pub fn apply(&mut self, submission: &Submission) -> Decision {
        self.apply_offer(submission, Offer::default())
    }

    /// Decides about a submission and keeps it if it is accepted.
    pub fn apply_offer(&mut self, submission: &Submission, offer: Offer) -> Decision {
        let (decision, change) = apply(self, submission, offer).expect(CONSISTENT);
        if let Some(change) = change {
            self.store(change, submission.content.clone());
        }
        decision
    }

    /// Stores what [`apply`] gave.
    pub fn store(&mut self, change: Change, content: Content) {
        if let Some((epoch, commit)) = change.commit_ending {
            self.commits.insert(epoch, commit);
        }
        if let Some(id) = change.recent_delete {
            self.recent.remove(&id);
        }
        if let Some(id) = change.recent_put {
            self.recent.insert(id, change.seq);
        }
        if let Some(order) = change.turn_order {
            self.turn_order = order;
        }
        self.records.insert(change.seq, change.record);
        self.contents.insert(change.seq, content);
        self.head = Some(change.head);
    }

    /// Gives up entries up to `upto`, as far as they may go. Returns what is gone then.
    pub fn prune(&mut self, upto: u64) -> Pruned {
        while let Some(step) = prune(self, upto).expect(CONSISTENT) {
            step.contents.for_each(|seq| drop(self.contents.remove(&seq)));
            step.records.for_each(|seq| drop(self.records.remove(&seq)));
            self.pruned = step.pruned;
        }
        self.pruned
    }

    /// Entries of which something is kept beside the commits.
    pub fn records_len(&self) -> usize {
        self.records.len()
    }

    /// The newest position, or nothing if the group does not exist.
    pub fn current(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// The entry with this number.
    pub fn entry(&self, seq: u64) -> Option<Entry> {
        let content = self.contents.get(&seq)?.clone();
        Some(self.records.get(&seq)?.clone().into_entry(seq, content))
    }

    /// Up to `max` entries from the number `first` on, in order.
    pub fn entries(&self, first: u64, max: usize) -> impl Iterator<Item = Entry> + '_ {
        self.contents.range(first..).take(max).filter_map(|(seq, _)| self.entry(*seq))
    }

    /// Up to `max` entries after a cursor.
    pub fn read(&self, cursor: &Cursor, max: usize) -> Result<Vec<Entry>, CursorError> {
        let Some(head) = &self.head else { return Ok(Vec::new()) };
        let first = check_cursor(self, head, cursor).expect(CONSISTENT)?;
        Ok(self.entries(first, max).collect())
    }

    /// Ids that are kept in order to recognise submissions. At most [`DEDUPE_WINDOW`](crate::limits::DEDUPE_WINDOW).
    pub fn recent_len(&self) -> usize {
        self.recent.len()
    }
}

impl View for MemoryLog {
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

    fn turn_holder(&self, index: u32) -> Result<Option<ClientId>, Infallible> {
        Ok(self.turn_order.get(index as usize).cloned())
    }

    fn record(&self, seq: u64) -> Result<Option<Record>, Infallible> {
        Ok(self.records.get(&seq).cloned())
    }

    fn pruned(&self) -> Result<Pruned, Infallible> {
        Ok(self.pruned)
    }
}
