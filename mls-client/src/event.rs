//! What happens in a client's groups.

use std::fmt;

use group_log::{GroupId, StateId};

use crate::{
    store::{LeftReason, Place},
    transport::Mode,
};

/// Something that happened in a group. Sent after it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The group.
    pub group: GroupId,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, PartialEq, Eq)]
pub enum EventKind {
    /// This client is a member now: it created the group, took in a Welcome, or its external commit was accepted.
    Joined {
        /// The first epoch that it takes part in.
        epoch: u64,
    },
    /// An application message of another member was decrypted.
    MessageReceived {
        /// Its number among this client's messages of the group; where nothing forks, that of its entry.
        seq: u64,
        /// Where it is: in the canonical log, on a branch, or on the side.
        place: Place,
        /// The epoch it was sent in.
        epoch: u64,
        /// The identity in the sender's credential.
        sender: Vec<u8>,
        /// What was said.
        body: Vec<u8>,
    },
    /// A message of this client is in the log.
    MessageSent {
        /// Its number among this client's messages of the group; where nothing forks, that of its entry.
        seq: u64,
        /// Where it is: in the canonical log, on a branch, or on the side.
        place: Place,
        /// The epoch it was sent in.
        epoch: u64,
        /// What was said.
        body: Vec<u8>,
    },
    /// A message of this client was refused for good, and is sent no more.
    MessageRefused {
        /// What was said.
        body: Vec<u8>,
        /// Why, with the remedy.
        reason: String,
    },
    /// A message in the log could not be decrypted.
    MessageUnreadable {
        /// Number of its entry.
        seq: u64,
        /// The epoch it was sent in.
        epoch: u64,
        /// Who submitted it, as the gateway authenticated it.
        author: Vec<u8>,
        /// Why.
        reason: String,
    },
    /// A member is in the group that was not in it before.
    MemberAdded {
        /// The identity in its credential.
        member: Vec<u8>,
    },
    /// A member is no longer in the group.
    MemberRemoved {
        /// The identity in its credential.
        member: Vec<u8>,
    },
    /// A commit was accepted.
    EpochChanged {
        /// Number of the commit's entry.
        seq: u64,
        /// The new epoch.
        epoch: u64,
        /// The exact new state.
        state_id: StateId,
        /// The new epoch's authenticator (RFC 9420 section 8.7): equal at all members that agree.
        authenticator: Vec<u8>,
        /// Who committed, as the gateway authenticated it.
        by: Vec<u8>,
    },
    /// A commit of this client lost its epoch to another one.
    Superseded {
        /// Number of the winner's entry.
        seq: u64,
        /// Who committed the winner, as the gateway authenticated it.
        by: Vec<u8>,
    },
    /// A gateway without a quorum accepted a commit: this client stands in the state after it, provisionally.
    BranchAdvanced {
        /// The new epoch.
        epoch: u64,
        /// The exact new state.
        state_id: StateId,
        /// The new epoch's authenticator.
        authenticator: Vec<u8>,
        /// Who committed, as its gateway authenticated it.
        by: Vec<u8>,
    },
    /// Entries of branches lost, or came too late. Whoever was entitled to them has read them.
    PutAside {
        /// Number of the entry that says so.
        seq: u64,
        /// How many.
        entries: usize,
        /// They came when the states to read them with may be gone.
        late: bool,
    },
    /// The branch that this client stood on has lost, and it went back.
    WentBack {
        /// Where it stood.
        from: StateId,
        /// The canonical head; nothing if this client is not a member there and waits to be added again.
        to: Option<StateId>,
    },
    /// Everybody has read up to a position: states that nobody needs any more were deleted.
    StatesDeleted {
        /// Number of an entry.
        position: u64,
        /// How many states were deleted.
        deleted: usize,
    },
    /// Somebody has proposed something that waits to be committed.
    Proposed {
        /// Number of the proposal's entry.
        seq: u64,
    },
    /// The group's policy changed.
    PolicyChanged {
        /// Application messages are accepted for this many epochs before the current one.
        past_epochs: u32,
        /// Members take turns to commit, each of so many milliseconds at most; nothing: anybody may commit.
        turn_ms: Option<u32>,
    },
    /// The gateway serves the group in another way now.
    ModeChanged {
        /// The way.
        mode: Mode,
    },
    /// This client was away for longer than the log is kept, and has come back by an external commit: it never sees these entries.
    EntriesMissed {
        /// Number of the first.
        first: u64,
        /// Number of the last.
        last: u64,
    },
    /// This client is no longer a member. Its secrets of the group are deleted.
    Left {
        /// How that came.
        reason: LeftReason,
    },
    /// The group was closed for good.
    Closed,
    /// A commit could not be processed: this client cannot follow the group any further until it rejoins.
    Stuck {
        /// Number of the commit's entry.
        seq: u64,
        /// Why.
        reason: String,
    },
    /// A Welcome for this client could not be used. Whoever sent it has to invite again.
    WelcomeUnusable {
        /// Why.
        reason: String,
    },
    /// The log does not fit together, or is not the one that was seen before. It is not followed any further.
    LogRejected {
        /// What does not fit.
        reason: String,
    },
}

// What was said must not end up in a log by accident.
impl fmt::Debug for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EventKind::Joined { epoch } => write!(f, "Joined({epoch})"),
            EventKind::MessageReceived { seq, epoch, body, .. } => {
                write!(f, "MessageReceived(seq {seq}, epoch {epoch}, {} bytes)", body.len())
            }
            EventKind::MessageSent { seq, epoch, body, .. } => {
                write!(f, "MessageSent(seq {seq}, epoch {epoch}, {} bytes)", body.len())
            }
            EventKind::MessageRefused { reason, .. } => write!(f, "MessageRefused({reason})"),
            EventKind::MessageUnreadable { seq, epoch, reason, .. } => {
                write!(f, "MessageUnreadable(seq {seq}, epoch {epoch}, {reason})")
            }
            EventKind::MemberAdded { .. } => f.write_str("MemberAdded"),
            EventKind::MemberRemoved { .. } => f.write_str("MemberRemoved"),
            EventKind::EpochChanged { seq, epoch, .. } => write!(f, "EpochChanged(seq {seq}, epoch {epoch})"),
            EventKind::Superseded { seq, .. } => write!(f, "Superseded(by entry {seq})"),
            EventKind::BranchAdvanced { epoch, .. } => write!(f, "BranchAdvanced(epoch {epoch})"),
            EventKind::PutAside { seq, entries, late } => {
                write!(f, "PutAside(seq {seq}, {entries} entries, late: {late})")
            }
            EventKind::WentBack { to, .. } => write!(f, "WentBack(to {to:?})"),
            EventKind::StatesDeleted { position, deleted } => {
                write!(f, "StatesDeleted(position {position}, {deleted} states)")
            }
            EventKind::Proposed { seq } => write!(f, "Proposed(seq {seq})"),
            EventKind::PolicyChanged { past_epochs, .. } => write!(f, "PolicyChanged({past_epochs})"),
            EventKind::ModeChanged { mode } => write!(f, "ModeChanged({mode:?})"),
            EventKind::EntriesMissed { first, last } => write!(f, "EntriesMissed({first} to {last})"),
            EventKind::Left { .. } => f.write_str("Left"),
            EventKind::Closed => f.write_str("Closed"),
            EventKind::Stuck { seq, reason } => write!(f, "Stuck(seq {seq}, {reason})"),
            EventKind::WelcomeUnusable { reason } => write!(f, "WelcomeUnusable({reason})"),
            EventKind::LogRejected { reason } => write!(f, "LogRejected({reason})"),
        }
    }
}
