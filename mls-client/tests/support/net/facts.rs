//! What commits do to the membership, derived from public handshakes as a gateway does it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use group_log::{
    Commit, Content, StateId,
    fork::{CommitFacts, LeafId},
};
use mls_client::demls::DmlsMessage;
use openmls::prelude::{
    MlsMessageBodyIn, MlsMessageIn, ProcessedMessageContent, ProposalStore, ProtocolMessage, PublicGroup,
    Sender, tls_codec::Deserialize,
};
use openmls_memory_storage::MemoryStorage;
use openmls_rust_crypto::RustCrypto;

/// Public states, by the commit that leads there.
#[derive(Default)]
pub(crate) struct Facts {
    states: BTreeMap<StateId, PublicState>,
    pub(super) of: BTreeMap<StateId, CommitFacts>,
}

struct PublicState {
    group: PublicGroup,
    leaves: BTreeMap<u32, LeafId>,
}

fn public_group(group_info: &Bytes) -> Option<PublicGroup> {
    let MlsMessageBodyIn::GroupInfo(info) = MlsMessageIn::tls_deserialize_exact(group_info).ok()?.extract()
    else {
        return None;
    };
    let tree = info.extensions().ratchet_tree()?.ratchet_tree().clone();
    let (crypto, storage) = (RustCrypto::default(), MemoryStorage::default());
    let (group, _) = PublicGroup::from_external(&crypto, &storage, tree, info, ProposalStore::new()).ok()?;
    Some(group)
}

impl Facts {
    pub(super) fn create(&mut self, state: StateId, group_info: &Bytes) -> CommitFacts {
        let group = public_group(group_info).unwrap();
        let indices = group.members().map(|member| member.index.u32());
        let leaves: BTreeMap<_, _> = indices.map(|leaf| (leaf, LeafId::new(&state, leaf))).collect();
        let facts = CommitFacts { adds: leaves.values().copied().collect(), ..CommitFacts::default() };
        self.states.insert(state, PublicState { group, leaves });
        self.of.insert(state, facts.clone());
        facts
    }

    pub(super) fn epoch(&self, state: &StateId) -> Option<u64> {
        Some(self.states.get(state)?.group.group_context().epoch().as_u64())
    }

    /// Checks a handshake against the state it was made in. Returns nothing if no member could process it.
    pub(super) fn derive(&mut self, parent: &StateId, id: StateId, content: &Content) -> Option<CommitFacts> {
        let crypto = RustCrypto::default();
        let (Content::Commit(Commit { message, .. }) | Content::Proposal { message }) = content else {
            return Some(CommitFacts::default());
        };
        if let Some(known) = self.of.get(&id) {
            return Some(known.clone());
        }
        let message = DmlsMessage::decode(message).ok()?.into_message();
        if let ProtocolMessage::PrivateMessage(_) = message {
            // Nothing is known but what the GroupInfo shows.
            if let Content::Commit(commit) = content {
                let group = public_group(&commit.group_info)?;
                self.states.insert(id, PublicState { group, leaves: BTreeMap::new() });
            }
            return Some(CommitFacts::default());
        }
        let before = self.states.get_mut(parent)?;
        let processed = before.group.process_message(&crypto, message).ok()?;
        let sender = processed.sender().clone();
        let staged = match processed.into_content() {
            ProcessedMessageContent::StagedCommitMessage(staged) => staged,
            ProcessedMessageContent::ProposalMessage(proposal) => {
                before.group.add_proposal(&MemoryStorage::default(), *proposal).ok()?;
                return Some(CommitFacts::default());
            }
            _ => return None,
        };
        let Content::Commit(commit) = content else { return None };
        let removed: Vec<u32> =
            staged.remove_proposals().map(|removal| removal.remove_proposal().removed().u32()).collect();
        let group = public_group(&commit.group_info)?;
        let mut leaves = before.leaves.clone();
        leaves.retain(|leaf, _| !removed.contains(leaf));
        let mut adds = Vec::new();
        for member in group.members() {
            let leaf = member.index.u32();
            leaves.entry(leaf).or_insert_with(|| {
                adds.push(LeafId::new(&id, leaf));
                LeafId::new(&id, leaf)
            });
        }
        let facts = CommitFacts {
            author: match sender {
                Sender::Member(leaf) => before.leaves.get(&leaf.u32()).copied(),
                _ => None,
            },
            removes: removed.iter().filter_map(|leaf| before.leaves.get(leaf).copied()).collect(),
            adds,
        };
        self.states.insert(id, PublicState { group, leaves });
        self.of.insert(id, facts.clone());
        Some(facts)
    }

    /// Leaf ids as indices in a state.
    pub(super) fn indices<'l>(&self, state: &StateId, ids: impl IntoIterator<Item = &'l LeafId>) -> Vec<u32> {
        let ids: Vec<_> = ids.into_iter().collect();
        let Some(at) = self.states.get(state) else { return Vec::new() };
        at.leaves.iter().filter(|(_, id)| ids.contains(id)).map(|(leaf, _)| *leaf).collect()
    }

    /// A member's leaf index in a state.
    pub(super) fn index_of(&self, state: &StateId, member: &[u8]) -> Option<u32> {
        let mut members = self.states.get(state)?.group.members();
        Some(members.find(|m| m.credential.serialized_content() == member)?.index.u32())
    }

    /// The leaves of a state.
    pub(super) fn leaves(&self, state: &StateId) -> BTreeSet<LeafId> {
        self.states.get(state).map(|at| at.leaves.values().copied().collect()).unwrap_or_default()
    }

    /// The identities of those members of a state who are there in a later one, as the same members.
    pub(super) fn remaining(&self, state: &StateId, later: &StateId) -> Vec<Vec<u8>> {
        let (Some(at), there) = (self.states.get(state), self.leaves(later)) else { return Vec::new() };
        let stays = |leaf: u32| at.leaves.get(&leaf).is_some_and(|id| there.contains(id));
        let members = at.group.members().filter(|member| stays(member.index.u32()));
        members.map(|member| member.credential.serialized_content().to_vec()).collect()
    }

    /// The identities of the members in a state.
    pub(super) fn members(&self, state: &StateId) -> Vec<Vec<u8>> {
        let Some(at) = self.states.get(state) else { return Vec::new() };
        at.group.members().map(|member| member.credential.serialized_content().to_vec()).collect()
    }
}
