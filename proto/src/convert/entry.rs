//! Submissions, entries, heads and decisions.

use group_log::{Accepted, ClientId, Entry, EntryKind, Head, StateId, Submission, Turn};

use super::{
    WireError, branch::optional_author, chain_hash, client_id, group_id, optional_state_id, state_id,
};
use crate::{log::v1 as wire, ordering::v1::GroupSubmission};

impl From<Submission> for GroupSubmission {
    fn from(submission: Submission) -> Self {
        GroupSubmission {
            group_id: submission.group_id.to_bytes(),
            author: submission.author.to_bytes(),
            epoch: submission.epoch,
            parent_state_id: submission.parent_state_id.as_ref().map(StateId::to_bytes).unwrap_or_default(),
            content: Some(submission.content.into()),
            facts: None,
            members_only: false,
        }
    }
}

impl TryFrom<GroupSubmission> for Submission {
    type Error = WireError;

    fn try_from(submission: GroupSubmission) -> Result<Self, WireError> {
        let content = submission.content.ok_or(WireError::missing("content", "what is submitted"))?;
        Ok(Submission {
            group_id: group_id("group_id", submission.group_id)?,
            author: client_id("author", submission.author)?,
            epoch: submission.epoch,
            parent_state_id: optional_state_id("parent_state_id", &submission.parent_state_id)?,
            content: content.try_into()?,
        })
    }
}

impl From<Entry> for wire::Entry {
    fn from(entry: Entry) -> Self {
        wire::Entry {
            seq: entry.seq,
            chain_hash: entry.chain.to_bytes(),
            epoch: entry.epoch,
            state_id: entry.state_id.to_bytes(),
            author: entry.author.as_ref().map(ClientId::to_bytes).unwrap_or_default(),
            content: Some(entry.content.into()),
            facts: None,
        }
    }
}

impl TryFrom<wire::Entry> for Entry {
    type Error = WireError;

    /// What a client submitted. Entries that the cluster wrote are refused; [`LogEntry`](group_log::fork::LogEntry) holds both.
    fn try_from(entry: wire::Entry) -> Result<Self, WireError> {
        let content = entry.content.ok_or(WireError::missing("entry.content", "what the entry carries"))?;
        Ok(Entry {
            seq: entry.seq,
            chain: chain_hash("entry.chain_hash", &entry.chain_hash)?,
            epoch: entry.epoch,
            state_id: state_id("entry.state_id", &entry.state_id)?,
            author: optional_author(entry.author)?,
            content: content.try_into()?,
        })
    }
}

impl From<Turn> for wire::Turn {
    fn from(turn: Turn) -> Self {
        let Turn { turn_ms, members, index, since_ms } = turn;
        wire::Turn { turn_ms, members, index, since_ms }
    }
}

impl From<&Head> for wire::Head {
    fn from(head: &Head) -> Self {
        wire::Head {
            kind: wire::GroupKind::from(head.kind).into(),
            policy: Some(head.policy.into()),
            epoch: head.epoch,
            state_id: head.state_id.to_bytes(),
            seq: head.seq,
            chain_hash: head.chain.to_bytes(),
            closed: head.is_closed(),
            turn: head.turn.map(Into::into),
        }
    }
}

impl From<Accepted> for wire::Accepted {
    fn from(accepted: Accepted) -> Self {
        wire::Accepted {
            seq: accepted.seq,
            epoch: accepted.epoch,
            state_id: accepted.state_id.to_bytes(),
            chain_hash: accepted.chain.to_bytes(),
        }
    }
}

impl TryFrom<wire::Accepted> for Accepted {
    type Error = WireError;

    fn try_from(accepted: wire::Accepted) -> Result<Self, WireError> {
        Ok(Accepted {
            seq: accepted.seq,
            epoch: accepted.epoch,
            state_id: state_id("accepted.state_id", &accepted.state_id)?,
            chain: chain_hash("accepted.chain_hash", &accepted.chain_hash)?,
        })
    }
}

impl wire::Superseded {
    /// The answer with the winning entry. Fails if that entry is no commit, because then the log is not what it must be.
    pub fn by(winner: Entry) -> Result<Self, WireError> {
        match winner.content.kind() {
            EntryKind::Commit => Ok(wire::Superseded { winner: Some(winner.into()) }),
            other => Err(WireError { field: "winner", expected: "a commit", got: other.name().into() }),
        }
    }
}
