//! What the file remembers of a group beside its secrets.

use group_log::{ChainHash, ClientId, GroupId, GroupKind, IdLengthError, Policy, StateId, Turns};
use serde::{Deserialize, Serialize};

use super::{ForkRecord, hexed};
use crate::group::{Intent, MemberId};

/// A group of this client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRecord {
    /// Whether the client takes part.
    pub status: Status,
    /// [`GroupKind::tag`].
    kind: u8,
    /// [`Policy::past_epochs`].
    past_epochs: u32,
    /// [`Policy::retain_entries`].
    #[serde(default)]
    retain_entries: u64,
    /// [`Policy::retain_hours`].
    #[serde(default)]
    retain_hours: u32,
    /// In which order members commit, if they take turns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    turns: Option<TurnsRecord>,
    /// Number of the last entry that was applied.
    pub seq: u64,
    #[serde(with = "hexed")]
    chain: [u8; 32],
    /// The epoch after that entry.
    pub epoch: u64,
    #[serde(with = "hexed")]
    state_id: [u8; 32],
    /// The epoch that this client joined in; what was sent before is not for it.
    pub joined_epoch: u64,
    /// A commit of this client whose fate is not known yet.
    pub pending: Option<Pending>,
    /// What became of the last such commit.
    pub resolved: Option<Resolved>,
    /// The client has proposed to be removed, and goes on proposing until it is.
    pub leaving: bool,
    /// Something that was proposed waits to be committed.
    pub proposals_pending: bool,
    /// Number of the next item in the outbox.
    pub(crate) next_item: u64,
    /// DeMLS groups: where this client stands among branches, and what it owes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork: Option<ForkRecord>,
}

/// [`Turns`], as far as the client has seen them in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct TurnsRecord {
    turn_ms: u32,
    order: Vec<MemberId>,
}

/// Whether the client takes part in a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// A member.
    Active,
    /// Not a member yet: its create or its external commit is pending.
    Joining,
    /// A member on a branch that lost, and nowhere else: whoever added it there adds it again. DeMLS groups only.
    Waiting,
    /// A member that could not process a commit, and cannot follow any further. Rejoining helps.
    Stuck {
        /// The commit's entry.
        seq: u64,
        /// Why it could not be processed.
        reason: String,
    },
    /// No longer a member. Secrets are deleted.
    Left(LeftReason),
    /// The group was closed. Secrets are deleted.
    Closed,
}

/// How membership ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeftReason {
    /// The client wanted to leave.
    Left,
    /// Somebody removed it: the client id of the committer.
    Removed {
        /// Who committed the removal, as the gateway authenticated it.
        #[serde(with = "hexed")]
        by: Vec<u8>,
    },
    /// Somebody removed it while it was away, and the log does not go back that far.
    RemovedUnseen,
    /// The group was never created, or never joined: the attempt was refused.
    NeverJoined,
}

/// A commit that was made and stored, but whose fate is not known yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// What it is.
    pub kind: PendingKind,
    /// What it is meant to do, so that it can be built again.
    pub intent: Intent,
    /// MLSMessage with the commit; for a create, empty.
    #[serde(with = "hexed")]
    pub message: Vec<u8>,
    /// MLSMessage with the Welcome, or empty.
    #[serde(with = "hexed")]
    pub welcome: Vec<u8>,
    /// MLSMessage with the GroupInfo of the state after it.
    #[serde(with = "hexed")]
    pub group_info: Vec<u8>,
    /// Whom the Welcome is for.
    pub recipients: Vec<Recipient>,
    /// It adds or removes members and does nothing else.
    #[serde(default)]
    pub members_only: bool,
    /// The epoch that it ends; for a create, the one that it begins.
    pub epoch: u64,
    #[serde(with = "hexed")]
    parent: [u8; 32],
    #[serde(with = "hexed")]
    state_id: [u8; 32],
}

/// What is pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PendingKind {
    /// The first entry of a new group.
    Create,
    /// A member's commit.
    Commit,
    /// An external commit, by which this client joins.
    ExternalCommit,
}

/// Whom a Welcome is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// The client.
    #[serde(with = "hexed")]
    pub client_id: Vec<u8>,
    /// Its KeyPackage that the Welcome names.
    #[serde(with = "hexed")]
    pub key_package_ref: Vec<u8>,
}

/// What became of a pending commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    #[serde(with = "hexed")]
    state_id: [u8; 32],
    /// Its fate.
    pub resolution: Resolution,
}

/// The fate of a pending commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resolution {
    /// It is in the log.
    Merged {
        /// Number of its entry.
        seq: u64,
        /// The epoch after it.
        epoch: u64,
    },
    /// Another commit ended the epoch.
    Superseded {
        /// Number of the winner's entry.
        seq: u64,
    },
    /// It was accepted on a branch. The log says later what became of it. DeMLS groups only.
    Provisional {
        /// The epoch after it.
        epoch: u64,
    },
    /// It is not to be, as far as can be seen now, and what it was meant to do is done by another commit. It is kept until the log
    /// says `Stable`, because only the log can decide. DeMLS groups only.
    SetAside,
}

impl Resolved {
    pub(crate) fn new(state: StateId, resolution: Resolution) -> Self {
        Resolved { state_id: state.0, resolution }
    }

    /// The state that the commit leads to.
    pub fn state_id(&self) -> StateId {
        StateId(self.state_id)
    }
}

impl Pending {
    pub(crate) fn new(
        kind: PendingKind,
        intent: Intent,
        epoch: u64,
        parent: StateId,
        state: StateId,
    ) -> Self {
        Pending {
            kind,
            intent,
            message: Vec::new(),
            welcome: Vec::new(),
            group_info: Vec::new(),
            recipients: Vec::new(),
            members_only: false,
            epoch,
            parent: parent.0,
            state_id: state.0,
        }
    }

    /// The state that it was made in.
    pub fn parent(&self) -> StateId {
        StateId(self.parent)
    }

    /// The state that it leads to.
    pub fn state_id(&self) -> StateId {
        StateId(self.state_id)
    }
}

/// A position in a group's log: the number, the chain, the epoch and the state after an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) seq: u64,
    pub(crate) chain: ChainHash,
    pub(crate) epoch: u64,
    pub(crate) state: StateId,
}

impl GroupRecord {
    pub(crate) fn new(status: Status, kind: GroupKind, policy: Policy, at: Position) -> Self {
        let mut record = GroupRecord {
            status,
            kind: kind.tag(),
            past_epochs: policy.past_epochs,
            retain_entries: policy.retain_entries,
            retain_hours: policy.retain_hours,
            turns: None,
            seq: 0,
            chain: [0; 32],
            epoch: 0,
            state_id: [0; 32],
            joined_epoch: at.epoch,
            pending: None,
            resolved: None,
            leaving: false,
            proposals_pending: false,
            next_item: 1,
            fork: None,
        };
        record.advance(at);
        record
    }

    /// What the group is.
    pub fn kind(&self) -> GroupKind {
        // Written from a kind, and checked when it is read.
        GroupKind::from_tag(self.kind).unwrap_or(GroupKind::Mls)
    }

    /// The group's policy after the last entry that was applied.
    pub fn policy(&self) -> Policy {
        let GroupRecord { past_epochs, retain_entries, retain_hours, .. } = *self;
        Policy { past_epochs, retain_entries, retain_hours }
    }

    pub(crate) fn set_policy(&mut self, policy: Policy, turns: Option<&Turns>) {
        Policy {
            past_epochs: self.past_epochs,
            retain_entries: self.retain_entries,
            retain_hours: self.retain_hours,
        } = policy;
        self.turns = turns.map(|turns| TurnsRecord {
            turn_ms: turns.turn_ms,
            order: turns.order.iter().map(|client| MemberId(client.as_bytes().to_vec())).collect(),
        });
    }

    /// In which order members commit, if they take turns. Unknown to a member that joined after the order was set.
    pub fn turns(&self) -> Result<Option<Turns>, IdLengthError> {
        let Some(TurnsRecord { turn_ms, order }) = &self.turns else { return Ok(None) };
        let order = order.iter().map(|client| ClientId::new(client.0.clone()));
        Ok(Some(Turns { turn_ms: *turn_ms, order: order.collect::<Result<_, _>>()? }))
    }

    /// Chain hash of the last entry that was applied.
    pub fn chain(&self) -> ChainHash {
        ChainHash(self.chain)
    }

    /// The state after the last entry that was applied.
    pub fn state_id(&self) -> StateId {
        StateId(self.state_id)
    }

    pub(crate) fn advance(&mut self, to: Position) {
        (self.seq, self.chain, self.epoch, self.state_id) = (to.seq, to.chain.0, to.epoch, to.state.0);
    }

    /// The state whose namespace this client works on: the current one, or the one that it is about to join.
    pub(crate) fn held_state(&self) -> Option<StateId> {
        match &self.status {
            Status::Active | Status::Stuck { .. } => Some(self.state_id()),
            Status::Joining => self.pending.as_ref().map(Pending::state_id),
            Status::Left(_) | Status::Closed | Status::Waiting => None,
        }
    }

    /// What became of the pending commit that leads to `state`, if it was the last one.
    pub(crate) fn resolution_of(&self, state: StateId) -> Option<Resolution> {
        self.resolved.as_ref().filter(|resolved| resolved.state_id() == state).map(|r| r.resolution.clone())
    }

    /// Resolves what is pending, if anything is.
    pub(crate) fn resolve(&mut self, resolution: Resolution) -> Option<Pending> {
        let pending = self.pending.take()?;
        self.resolved = Some(Resolved::new(pending.state_id(), resolution));
        Some(pending)
    }
}

/// A group's record on disk.
pub(super) fn decode(group: &GroupId, bytes: &[u8]) -> Result<GroupRecord, super::StoreError> {
    let record: GroupRecord = serde_json::from_slice(bytes)
        .map_err(|e| super::StoreError::damaged("record of a group", format!("{group:?}: {e}")))?;
    if GroupKind::from_tag(record.kind).is_none() {
        return Err(super::StoreError::damaged("kind of a group", record.kind));
    }
    Ok(record)
}
