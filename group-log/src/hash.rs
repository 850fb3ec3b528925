//! Every hash of the rules. Servers and clients compute them alike; nobody's claim about one is ever believed.
//!
//! All are SHA-256 over a label and the parts in order. Labels and byte strings are preceded by their length, integers are
//! 8 bytes, all big-endian; ids and hashes are 32 bytes as they are. So no two different inputs have the same encoding.

use sha2::{Digest, Sha256};

use crate::{
    content::{Commit, Content, Create, Entry, Policy},
    ids::{ChainHash, ClientId, EntryId, GroupId, StateId},
    turns::Turns,
};

/// The state in which a group begins: H("concordat create v1", group id, epoch, GroupInfo).
pub fn create_state_id(group_id: &GroupId, epoch: u64, group_info: &[u8]) -> StateId {
    StateId(
        Parts::new("concordat create v1").bytes(group_id.as_bytes()).int(epoch).bytes(group_info).finish(),
    )
}

/// The state that a commit leads to: H("concordat commit v1", parent state id, commit bytes).
pub fn commit_state_id(parent: &StateId, message: &[u8]) -> StateId {
    StateId(Parts::new("concordat commit v1").fixed(&parent.0).bytes(message).finish())
}

/// The id of what a submission carries, given the state it was made in. For a create the state is the one it leads to.
///
/// For a commit this is the state that it leads to. The id covers the commit's own bytes only: the same commit with another
/// Welcome beside it is the same commit.
pub fn entry_id(state: &StateId, content: &Content) -> EntryId {
    let parts = |label| Parts::new(label).fixed(&state.0);
    EntryId(match content {
        Content::Commit(commit) => return commit_state_id(state, &commit.message).into(),
        Content::Create(Create { kind, policy, group_info: _ }) => {
            let parts =
                parts("concordat create entry v1").int(kind.tag().into()).int(policy.past_epochs.into());
            retention_parts(parts, policy).finish()
        }
        Content::Proposal { message } => parts("concordat proposal v1").bytes(message).finish(),
        Content::Application { message } => parts("concordat application v1").bytes(message).finish(),
        Content::PolicyChange { policy, turns } => {
            let parts = parts("concordat policy v1").int(policy.past_epochs.into());
            retention_parts(turns_parts(parts, turns.as_ref()), policy).finish()
        }
        Content::Close => parts("concordat close v1").finish(),
    })
}

/// The parts of an entry that its chain hash covers.
#[derive(Clone, Copy, Debug)]
pub struct ChainLink<'a> {
    /// Number of the entry.
    pub seq: u64,
    /// The epoch it was made in.
    pub epoch: u64,
    /// [`Entry::state_id`]
    pub state_id: StateId,
    /// Who submitted it.
    pub author: Option<&'a ClientId>,
    /// What it carries.
    pub content: &'a Content,
}

impl<'a> From<&'a Entry> for ChainLink<'a> {
    fn from(entry: &'a Entry) -> Self {
        ChainLink {
            seq: entry.seq,
            epoch: entry.epoch,
            state_id: entry.state_id,
            author: entry.author.as_ref(),
            content: &entry.content,
        }
    }
}

/// The chain hash after one more entry:
/// H("concordat chain v1", previous, seq, kind, epoch, state id, author, every field of the content).
pub fn chain_hash(previous: &ChainHash, link: &ChainLink<'_>) -> ChainHash {
    let parts = Parts::new("concordat chain v1")
        .fixed(&previous.0)
        .int(link.seq)
        .int(link.content.kind().tag().into())
        .int(link.epoch)
        .fixed(&link.state_id.0)
        .bytes(link.author.map_or(&[], ClientId::as_bytes));
    ChainHash(content_parts(parts, link.content).finish())
}

fn content_parts(parts: Parts, content: &Content) -> Parts {
    match content {
        Content::Create(Create { kind, policy, group_info }) => {
            let parts = parts.int(kind.tag().into()).int(policy.past_epochs.into()).bytes(group_info);
            retention_parts(parts, policy)
        }
        Content::Commit(Commit { message, welcome, group_info, recipients }) => recipients.iter().fold(
            parts.bytes(message).bytes(welcome).bytes(group_info).int(recipients.len() as u64),
            |parts, to| parts.bytes(to.client_id.as_bytes()).bytes(to.key_package_ref.as_bytes()),
        ),
        Content::Proposal { message } | Content::Application { message } => parts.bytes(message),
        Content::PolicyChange { policy, turns } => {
            retention_parts(turns_parts(parts.int(policy.past_epochs.into()), turns.as_ref()), policy)
        }
        Content::Close => parts,
    }
}

/// Nothing at all for a policy that leaves retention to the cluster. Nothing follows.
fn retention_parts(parts: Parts, policy: &Policy) -> Parts {
    match policy.has_retention() {
        true => parts.int(policy.retain_entries).int(policy.retain_hours.into()),
        false => parts,
    }
}

/// Nothing at all for a policy without turns. At least three numbers with them, so what may follow is told apart.
fn turns_parts(parts: Parts, turns: Option<&Turns>) -> Parts {
    let Some(Turns { turn_ms, order }) = turns else { return parts };
    let parts = parts.int(u64::from(*turn_ms)).int(order.len() as u64);
    order.iter().fold(parts, |parts, client| parts.bytes(client.as_bytes()))
}

pub(crate) struct Parts(Sha256);

impl Parts {
    pub(crate) fn new(label: &str) -> Self {
        Parts(Sha256::new()).bytes(label.as_bytes())
    }

    pub(crate) fn bytes(self, bytes: &[u8]) -> Self {
        let mut parts = self.int(bytes.len() as u64);
        parts.0.update(bytes);
        parts
    }

    pub(crate) fn int(self, value: u64) -> Self {
        self.fixed(&value.to_be_bytes())
    }

    pub(crate) fn fixed(mut self, bytes: &[u8]) -> Self {
        self.0.update(bytes);
        self
    }

    pub(crate) fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}
