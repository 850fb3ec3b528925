//! Everything that clients asked and were told during a run, in the order in which it happened.
//!
//! Time is a counter that every event of the run increments: if one call ended before another began, its end has the smaller number.
//! That is the real-time order that linearizability is about, without ties and without a clock.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use group_log::{ChainHash, Content, Entry, EntryId, EntryKind, GroupId, StateId};
use parking_lot::Mutex;

/// A moment of a run.
pub type Moment = u64;

/// What a submission was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is in the log.
    Accepted {
        /// Its number.
        seq: u64,
        /// The group's epoch after it.
        epoch: u64,
        /// The group's state after it.
        state_id: StateId,
        /// Chain hash of its entry.
        chain: ChainHash,
    },
    /// Another commit was first.
    Superseded {
        /// The entry that came with the answer.
        winner: Box<Entry>,
    },
    /// It can not be accepted.
    Refused {
        /// A name of `concordat.log.v1.Reason` without its prefix.
        reason: String,
    },
    /// No answer: a lost connection, a timeout, a server that did not know. The log tells what became of it.
    Unknown,
}

/// One attempt to submit something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The group.
    pub group: GroupId,
    /// The epoch it was made for.
    pub epoch: u64,
    /// What it carries. Every submission of a run is unique; the same again is a resubmission.
    pub key: ContentKey,
    /// When it was sent.
    pub start: Moment,
    /// When the answer was there, or the caller gave up.
    pub end: Moment,
    /// The answer.
    pub answer: Answer,
}

/// What a submission to a group with branches was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// By the quorum: it is in the log.
    Accepted {
        /// Its number.
        seq: u64,
    },
    /// It is on a branch.
    Provisional,
    /// Another commit ended its epoch.
    Superseded,
    /// It was on a branch that was put aside.
    OnSide,
    /// It can not be accepted here and now; elsewhere or later it may be.
    Refused {
        /// A name of `concordat.log.v1.Reason` without its prefix.
        reason: String,
    },
    /// No answer.
    Unknown,
}

/// One attempt to submit something to a group with branches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchCall {
    /// The group.
    pub group: GroupId,
    /// What was submitted.
    pub id: EntryId,
    /// The answer.
    pub told: Told,
}

/// What recognises a submission in a log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentKey {
    /// Its kind.
    pub kind: EntryKind,
    /// Its own MLS message; empty for kinds that carry none.
    pub message: Bytes,
}

impl ContentKey {
    /// The key of `content`.
    pub fn of(content: &Content) -> Self {
        let message = match content {
            Content::Create(create) => create.group_info.clone(),
            Content::Proposal { message } | Content::Application { message } => message.clone(),
            Content::Commit(commit) => commit.message.clone(),
            Content::PolicyChange { policy, turns: _ } => {
                Bytes::from(policy.past_epochs.to_be_bytes().to_vec())
            }
            Content::Close => Bytes::new(),
        };
        Self { kind: content.kind(), message }
    }
}

/// One entry as a subscriber received it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// Its number.
    pub seq: u64,
    /// Its chain hash.
    pub chain: ChainHash,
    /// When it was there.
    pub at: Moment,
}

/// Everything that one subscription delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Who read, for messages.
    pub reader: String,
    /// The group.
    pub group: GroupId,
    /// The position it was opened at.
    pub after_seq: u64,
    /// What came, in the order in which it came.
    pub delivered: Vec<Delivered>,
}

/// One linearizable read of a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadRead {
    /// The group.
    pub group: GroupId,
    /// When it was asked.
    pub start: Moment,
    /// When the answer was there.
    pub end: Moment,
    /// The head's number.
    pub seq: u64,
    /// The head's chain hash.
    pub chain: ChainHash,
}

/// What was recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// All attempts to submit, in no particular order.
    pub calls: Vec<Call>,
    /// All subscriptions.
    pub subscriptions: Vec<Subscription>,
    /// All linearizable reads.
    pub reads: Vec<HeadRead>,
    /// All attempts to submit to groups with branches.
    pub branch_calls: Vec<BranchCall>,
}

/// Records a run. Shared by all its clients.
#[derive(Debug, Default)]
pub struct History {
    now: AtomicU64,
    record: Mutex<Record>,
}

impl History {
    /// An empty history.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next moment.
    pub fn moment(&self) -> Moment {
        self.now.fetch_add(1, Ordering::SeqCst)
    }

    /// Records an attempt.
    pub fn call(&self, call: Call) {
        self.record.lock().calls.push(call);
    }

    /// Records an attempt in a group with branches.
    pub fn branch_call(&self, call: BranchCall) {
        self.record.lock().branch_calls.push(call);
    }

    /// Records a subscription that has ended.
    pub fn subscription(&self, subscription: Subscription) {
        self.record.lock().subscriptions.push(subscription);
    }

    /// Records a linearizable read.
    pub fn read(&self, read: HeadRead) {
        self.record.lock().reads.push(read);
    }

    /// Takes everything recorded so far.
    pub fn take(&self) -> Record {
        std::mem::take(&mut *self.record.lock())
    }
}
