//! Holds what clients saw against what the logs hold in the end.
//!
//! The log is the version order: every entry has a number, so there is no order to search for, and unknown outcomes resolve by looking
//! whether the entry is there. What remains is to compare, in O(n log n):
//!
//! - [`logs`](self): every node holds the same log, and its hashes, epochs and states follow from one another; one commit an epoch;
//! - answers: an accepted entry is in the log, once, where the answer said; a superseded or refused one is not, and the winner that the
//!   answer named is the true one;
//! - order: what was known to be in a log before something else was submitted stands before it;
//! - reads and subscriptions: ordered, unique, without a gap, never ahead of the log, never stale where they promise not to be.
//!
//! That is for groups without branches; [`check_branches`] is for the others.

mod answers;
mod branches;
mod logs;
mod observed;
mod order;
mod violation;

use std::collections::{BTreeMap, HashMap};

use group_log::{Entry, GroupId, StateId};

pub use branches::{BranchSummary, check_branches, unrecorded};
pub use violation::{Report, Violation};

use crate::history::{Answer, ContentKey, Record};

/// What every node holds in the end, by group and node name.
pub type FinalLogs = BTreeMap<GroupId, BTreeMap<String, Vec<Entry>>>;

/// What a correct run consisted of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Groups.
    pub groups: usize,
    /// Entries in all final logs.
    pub entries: usize,
    /// Commits among them.
    pub commits: usize,
    /// Attempts that were accepted (resubmissions included).
    pub accepted: usize,
    /// Attempts that were superseded.
    pub superseded: usize,
    /// Attempts that were refused.
    pub refused: usize,
    /// Attempts without an answer.
    pub unknown: usize,
    /// Of these, submissions that are in the log.
    pub unknown_in_log: usize,
    /// Entries delivered to subscribers.
    pub delivered: usize,
    /// Linearizable reads.
    pub reads: usize,
}

/// Checks a whole run.
pub fn check(record: &Record, logs: &FinalLogs) -> Result<Summary, Report> {
    let mut report = Report::default();
    let mut groups: BTreeMap<&GroupId, GroupView<'_>> =
        logs.iter().map(|(id, copies)| (id, logs::check(id, copies, &mut report))).collect();
    observed::collect(record, &mut groups, &mut report);
    for (id, group) in &mut groups {
        order::check(id, group, &mut report);
    }
    answers::check(record, &groups, &mut report);
    observed::check(record, &groups, &mut report);
    if report.is_empty() { Ok(summary(record, &groups)) } else { Err(report) }
}

/// One group's final log, and when each entry was submitted and seen.
struct GroupView<'a> {
    entries: &'a [Entry],
    /// Epoch and state after each entry.
    after: Vec<(u64, StateId)>,
    /// Number of the entry that carries this.
    by_key: HashMap<ContentKey, u64>,
    /// For each entry: when it was first submitted.
    first_start: Vec<Option<u64>>,
    /// For each entry: when somebody first knew that it is in the log.
    first_seen: Vec<Option<u64>>,
    /// `(moment, number)`: at that moment it was known that the log reaches at least to that number. Both ascend.
    known: Vec<(u64, u64)>,
    /// For each entry: the latest first submission among it and all before it.
    latest_start: Vec<u64>,
}

impl GroupView<'_> {
    fn entry(&self, seq: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(seq).ok()?.checked_sub(1)?)
    }

    /// The number that the log was known to reach before `moment`.
    fn known_before(&self, moment: u64) -> u64 {
        let later = self.known.partition_point(|(at, _)| *at < moment);
        later.checked_sub(1).map_or(0, |i| self.known[i].1)
    }

    /// Whether some entry up to `seq` had not even been submitted at `moment`.
    fn is_from_the_future(&self, seq: u64, moment: u64) -> bool {
        usize::try_from(seq)
            .ok()
            .and_then(|seq| self.latest_start.get(seq.checked_sub(1)?))
            .is_some_and(|latest| *latest > moment)
    }
}

fn summary(record: &Record, groups: &BTreeMap<&GroupId, GroupView<'_>>) -> Summary {
    let mut summary = Summary {
        groups: groups.len(),
        entries: groups.values().map(|g| g.entries.len()).sum(),
        commits: groups.values().flat_map(|g| g.entries).filter(|e| is_commit(e)).count(),
        delivered: record.subscriptions.iter().map(|s| s.delivered.len()).sum(),
        reads: record.reads.len(),
        ..Summary::default()
    };
    for call in &record.calls {
        match &call.answer {
            Answer::Accepted { .. } => summary.accepted += 1,
            Answer::Superseded { .. } => summary.superseded += 1,
            Answer::Refused { .. } => summary.refused += 1,
            Answer::Unknown => {
                summary.unknown += 1;
                let in_log = groups.get(&call.group).is_some_and(|g| g.by_key.contains_key(&call.key));
                summary.unknown_in_log += usize::from(in_log);
            }
        }
    }
    summary
}

fn is_commit(entry: &Entry) -> bool {
    entry.content.kind() == group_log::EntryKind::Commit
}

#[cfg(test)]
mod tests;
