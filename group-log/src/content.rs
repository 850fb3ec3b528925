//! What a group's log is made of: kinds, policies, contents, submissions and entries.

use std::fmt;

use bytes::Bytes;

use crate::{
    ids::{ChainHash, ClientId, EntryId, GroupId, KeyPackageRef, StateId},
    limits::{DEFAULT_PAST_EPOCHS, MAX_PAST_EPOCHS, MAX_RETAIN_HOURS, MAX_SEQ},
    turns::Turns,
};

/// What a group is. Chosen when it is created; it never changes, because gateways that have not heard of a change would fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupKind {
    /// RFC 9420: ordered by a quorum, or not at all.
    Mls,
    /// Decentralized MLS: carries on without a quorum and converges afterwards.
    Demls,
    /// Distributed MLS: needs no order.
    Dimls,
}

impl GroupKind {
    /// Number in hashes and in storage.
    pub fn tag(self) -> u8 {
        match self {
            GroupKind::Mls => 1,
            GroupKind::Demls => 2,
            GroupKind::Dimls => 3,
        }
    }

    /// Reads [`GroupKind::tag`].
    pub fn from_tag(tag: u8) -> Option<GroupKind> {
        [GroupKind::Mls, GroupKind::Demls, GroupKind::Dimls].into_iter().find(|kind| kind.tag() == tag)
    }
}

/// Rules that the creator of a group chooses. The default is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Policy {
    /// Application messages are accepted for this many epochs before the current one: 0 to [`MAX_PAST_EPOCHS`].
    pub past_epochs: u32,
    /// So many of the newest entries are kept, or fewer if the cluster keeps no more: 0 to [`MAX_SEQ`](crate::limits::MAX_SEQ). 0 leaves it
    /// to the cluster. Of logs of MLS groups only; others are kept whole.
    pub retain_entries: u64,
    /// Entries are kept for so many hours, or for a shorter time if the cluster keeps none longer: 0 to [`MAX_RETAIN_HOURS`]. 0 leaves it to
    /// the cluster.
    pub retain_hours: u32,
}

impl Policy {
    /// The name, the bound and the value of what is above its bound.
    pub(crate) fn beyond(&self) -> Option<(&'static str, u64, u64)> {
        [
            ("policy.past_epochs", MAX_PAST_EPOCHS.into(), self.past_epochs.into()),
            ("policy.retain_entries", MAX_SEQ, self.retain_entries),
            ("policy.retain_hours", MAX_RETAIN_HOURS.into(), self.retain_hours.into()),
        ]
        .into_iter()
        .find(|(_, max, got)| got > max)
    }

    /// Every value is within its bounds.
    pub fn is_valid(&self) -> bool {
        self.beyond().is_none()
    }

    /// The group has limits of its own as to what is kept.
    pub fn has_retention(&self) -> bool {
        self.retain_entries > 0 || self.retain_hours > 0
    }
}

impl Default for Policy {
    fn default() -> Self {
        Policy { past_epochs: DEFAULT_PAST_EPOCHS, retain_entries: 0, retain_hours: 0 }
    }
}

/// A client that a Welcome is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WelcomeRecipient {
    /// The client whose KeyPackage was used.
    pub client_id: ClientId,
    /// The KeyPackage that the Welcome names for it.
    pub key_package_ref: KeyPackageRef,
}

/// The first entry of a group.
#[derive(Clone, PartialEq, Eq)]
pub struct Create {
    /// What the group is, for good.
    pub kind: GroupKind,
    /// Its first policy.
    pub policy: Policy,
    /// MLSMessage with the GroupInfo of the first state (RFC 9420 section 12.4.3).
    pub group_info: Bytes,
}

/// A commit with everything that belongs to it: visible together or not at all.
#[derive(Clone, PartialEq, Eq)]
pub struct Commit {
    /// MLSMessage with the commit. These bytes alone decide the state it leads to.
    pub message: Bytes,
    /// MLSMessage with the Welcome; empty if the commit adds nobody.
    pub welcome: Bytes,
    /// MLSMessage with the GroupInfo after the commit; empty if the committer publishes none.
    pub group_info: Bytes,
    /// Whom the Welcome is for.
    pub recipients: Vec<WelcomeRecipient>,
}

/// What a submission or an entry carries.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// The first entry of every group.
    Create(Create),
    /// An MLS proposal, to be committed in the same epoch.
    Proposal {
        /// MLSMessage, public or private.
        message: Bytes,
    },
    /// A commit.
    Commit(Commit),
    /// An MLS application message.
    Application {
        /// MLSMessage, always private.
        message: Bytes,
    },
    /// A change of the group's policy.
    PolicyChange {
        /// The policy from now on.
        policy: Policy,
        /// Who commits when, from now on; nothing: anybody at any time.
        turns: Option<Turns>,
    },
    /// The end of the group.
    Close,
}

impl Content {
    /// Which kind of content it is.
    pub fn kind(&self) -> EntryKind {
        match self {
            Content::Create(_) => EntryKind::Create,
            Content::Proposal { .. } => EntryKind::Proposal,
            Content::Commit(_) => EntryKind::Commit,
            Content::Application { .. } => EntryKind::Application,
            Content::PolicyChange { .. } => EntryKind::PolicyChange,
            Content::Close => EntryKind::Close,
        }
    }
}

/// The kinds of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// [`Content::Create`]
    Create,
    /// [`Content::Proposal`]
    Proposal,
    /// [`Content::Commit`]
    Commit,
    /// [`Content::Application`]
    Application,
    /// [`Content::PolicyChange`]
    PolicyChange,
    /// [`Content::Close`]
    Close,
    /// [`Mark::Side`](crate::fork::Mark::Side), written by the cluster.
    Side,
    /// [`Mark::Late`](crate::fork::Mark::Late), written by the cluster.
    Late,
    /// [`Mark::Stable`](crate::fork::Mark::Stable), written by the cluster.
    Stable,
}

impl EntryKind {
    /// All kinds.
    pub const ALL: [EntryKind; 9] = [
        EntryKind::Create,
        EntryKind::Proposal,
        EntryKind::Commit,
        EntryKind::Application,
        EntryKind::PolicyChange,
        EntryKind::Close,
        EntryKind::Side,
        EntryKind::Late,
        EntryKind::Stable,
    ];

    /// Number in hashes and in storage. For what clients submit, the field number in `concordat.log.v1.Content`.
    pub fn tag(self) -> u8 {
        match self {
            EntryKind::Create => 1,
            EntryKind::Proposal => 2,
            EntryKind::Commit => 3,
            EntryKind::Application => 4,
            EntryKind::PolicyChange => 5,
            EntryKind::Close => 6,
            EntryKind::Side => 7,
            EntryKind::Late => 8,
            EntryKind::Stable => 9,
        }
    }

    /// Reads [`EntryKind::tag`].
    pub fn from_tag(tag: u8) -> Option<EntryKind> {
        EntryKind::ALL.into_iter().find(|kind| kind.tag() == tag)
    }

    /// A name for metrics and messages.
    pub fn name(self) -> &'static str {
        match self {
            EntryKind::Create => "create",
            EntryKind::Proposal => "proposal",
            EntryKind::Commit => "commit",
            EntryKind::Application => "application",
            EntryKind::PolicyChange => "policy_change",
            EntryKind::Close => "close",
            EntryKind::Side => "side",
            EntryKind::Late => "late",
            EntryKind::Stable => "stable",
        }
    }
}

/// Something that a client wants in a group's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// The group.
    pub group_id: GroupId,
    /// The authenticated submitter.
    pub author: ClientId,
    /// The epoch that the message states; for a create, the epoch of its GroupInfo.
    pub epoch: u64,
    /// The exact state it was made in, if the submitter tracks states.
    pub parent_state_id: Option<StateId>,
    /// What it carries.
    pub content: Content,
}

/// One accepted item of a group's log, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number, contiguous from 1.
    pub seq: u64,
    /// Hash over the log up to and including this entry.
    pub chain: ChainHash,
    /// The epoch it was made in. A commit ends this epoch.
    pub epoch: u64,
    /// For a commit (and the create) the state it leads to, else the state it was made in.
    pub state_id: StateId,
    /// The client that submitted it. Absent for what the cluster itself wrote.
    pub author: Option<ClientId>,
    /// What it carries.
    pub content: Content,
}

/// What is kept of an entry beside its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Recognises the same submission when it comes again.
    pub id: EntryId,
    /// Kind of content.
    pub kind: EntryKind,
    /// [`Entry::epoch`]
    pub epoch: u64,
    /// [`Entry::state_id`]
    pub state_id: StateId,
    /// [`Entry::chain`]
    pub chain: ChainHash,
    /// [`Entry::author`]
    pub author: Option<ClientId>,
    /// The group's epoch after the entry.
    pub epoch_after: u64,
    /// The group's state after the entry. Differs from `state_id` only for an application message of a past epoch.
    pub state_after: StateId,
}

impl Record {
    /// The entry that this record and its payload make together.
    pub fn into_entry(self, seq: u64, content: Content) -> Entry {
        Entry {
            seq,
            chain: self.chain,
            epoch: self.epoch,
            state_id: self.state_id,
            author: self.author,
            content,
        }
    }
}

/// The commit that ended an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitRef {
    /// Its number.
    pub seq: u64,
    /// The state it was made in.
    pub parent: StateId,
    /// The state it leads to.
    pub state_id: StateId,
    /// Chain hash of its entry.
    pub chain: ChainHash,
}

// Message bytes are never shown, only how many there are.
struct Len<'a>(&'a Bytes);

impl fmt::Debug for Len<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Debug for Create {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Create { kind, policy, group_info } = self;
        f.debug_struct("Create")
            .field("kind", kind)
            .field("policy", policy)
            .field("group_info", &Len(group_info))
            .finish()
    }
}

impl fmt::Debug for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commit")
            .field("message", &Len(&self.message))
            .field("welcome", &Len(&self.welcome))
            .field("group_info", &Len(&self.group_info))
            .field("recipients", &self.recipients.len())
            .finish()
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Content::Create(create) => create.fmt(f),
            Content::Proposal { message } => f.debug_tuple("Proposal").field(&Len(message)).finish(),
            Content::Commit(commit) => commit.fmt(f),
            Content::Application { message } => f.debug_tuple("Application").field(&Len(message)).finish(),
            Content::PolicyChange { policy, turns } => {
                let turns = turns.as_ref().map(|turns| (turns.turn_ms, turns.order.len()));
                f.debug_tuple("PolicyChange").field(policy).field(&turns).finish()
            }
            Content::Close => f.write_str("Close"),
        }
    }
}
