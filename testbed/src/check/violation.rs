//! What can be wrong with a run.

use std::{fmt, mem::discriminant};

use group_log::{EntryId, GroupId};

use crate::limits::MAX_REPORTED_VIOLATIONS;

/// One promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Two nodes hold different logs.
    #[error("{a} and {b} hold different logs from entry {seq} on")]
    NodesDiffer {
        /// One node.
        a: String,
        /// Another.
        b: String,
        /// The first entry that differs.
        seq: u64,
    },
    /// A log does not follow from its own contents.
    #[error("the log breaks at entry {seq}: {cause}")]
    BrokenLog {
        /// The entry.
        seq: u64,
        /// What does not fit.
        cause: String,
    },
    /// Two commits end one epoch.
    #[error("entries {first} and {second} are both commits of epoch {epoch}")]
    TwoCommits {
        /// The epoch.
        epoch: u64,
        /// The first commit.
        first: u64,
        /// The second.
        second: u64,
    },
    /// One submission is in the log twice.
    #[error("entries {first} and {second} are the same submission")]
    Duplicate {
        /// The first.
        first: u64,
        /// The second.
        second: u64,
    },
    /// An entry that nobody submitted.
    #[error("nobody submitted entry {seq}")]
    Invented {
        /// The entry.
        seq: u64,
    },
    /// A submission was answered for a group that no node holds.
    #[error("an accepted submission's group is in no final log")]
    GroupLost,
    /// An accepted submission is not in the log.
    #[error("accepted as entry {seq}, but the log ends at {last}")]
    AcceptedLost {
        /// The number of the answer.
        seq: u64,
        /// The last entry.
        last: u64,
    },
    /// The log holds something else, or something that differs in `what`, where an answer said that the submission is.
    #[error("accepted as entry {seq}, but the {what} of that entry is another")]
    AcceptedOther {
        /// The number of the answer.
        seq: u64,
        /// What differs.
        what: &'static str,
    },
    /// The log says nothing about an entry that was accepted on a branch.
    #[error("{entry} was accepted on a branch, and the log says nothing about it")]
    ProvisionalLost {
        /// The entry.
        entry: EntryId,
    },
    /// A superseded commit is in the log all the same.
    #[error("superseded, but in the log as entry {seq}")]
    SupersededInLog {
        /// Where it is.
        seq: u64,
    },
    /// A superseded answer names something that did not win.
    #[error("superseded by entry {seq}, which is not the winner of epoch {epoch}: {cause}")]
    WrongWinner {
        /// The number of the named winner.
        seq: u64,
        /// The epoch of the losing commit.
        epoch: u64,
        /// What does not fit.
        cause: &'static str,
    },
    /// Every attempt of a submission was refused, and yet it is in the log.
    #[error("refused at every attempt, but in the log as entry {seq}")]
    RefusedInLog {
        /// Where it is.
        seq: u64,
    },
    /// A refusal speaks of a state of the log that had passed before the call began.
    #[error("refused with {reason}, although entry {known} was known before the call")]
    StaleRefusal {
        /// The reason given.
        reason: String,
        /// What was known.
        known: u64,
    },
    /// An entry was known to be in the log before an earlier one was submitted.
    #[error("entry {later} was known before entry {earlier} was first submitted")]
    RealTime {
        /// The smaller number.
        earlier: u64,
        /// The larger number.
        later: u64,
    },
    /// A subscription left something out, repeated something or came out of order.
    #[error("{reader} received entry {got} where {expected} was next")]
    NotContiguous {
        /// The subscriber.
        reader: String,
        /// The number that was next.
        expected: u64,
        /// The number that came.
        got: u64,
    },
    /// A reader saw something that the log does not hold.
    #[error("{reader} saw entry {seq}, which is not in the log like that")]
    NotInLog {
        /// The reader.
        reader: String,
        /// The number.
        seq: u64,
    },
    /// A reader saw something before it was submitted.
    #[error("{reader} saw entry {seq} before everything up to it was submitted")]
    FromTheFuture {
        /// The reader.
        reader: String,
        /// The number.
        seq: u64,
    },
    /// A linearizable read missed what was known before it began.
    #[error("a linearizable read saw entry {seq}, although entry {known} was known before it began")]
    StaleRead {
        /// What was read.
        seq: u64,
        /// What was known.
        known: u64,
    },
}

/// Everything that is wrong with a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The first findings of each kind, with the first bytes of the group's id.
    pub violations: Vec<(String, Violation)>,
    /// How many there are in all.
    pub total: usize,
}

impl Report {
    pub(super) fn add(&mut self, group: &GroupId, violation: Violation) {
        self.total += 1;
        let alike =
            self.violations.iter().filter(|(_, v)| discriminant(v) == discriminant(&violation)).count();
        if alike < MAX_REPORTED_VIOLATIONS {
            let name = &group.as_bytes()[..group.as_bytes().len().min(8)];
            self.violations.push((hex::encode(name), violation));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.total == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} promises were broken", self.total)?;
        for (group, violation) in &self.violations {
            write!(f, "\n  group {group}: {violation}")?;
        }
        if self.total > self.violations.len() {
            write!(f, "\n  and {} more", self.total - self.violations.len())?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}
