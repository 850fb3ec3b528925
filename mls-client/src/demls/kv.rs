//! The values that OpenMLS keeps for one state of one group: a namespace of its own, in memory, cheap to copy.
//!
//! Every state has its own, because OpenMLS names values by group id (and deletes the key pairs of the epoch before a merged one).
//! Copies share values; a value is zeroized when the last copy lets go of it. What goes to disk, and when, is up to
//! [`super::states`].

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use openmls_traits::storage::{CURRENT_VERSION, StorageProvider, traits};
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use super::secret::SecretBuffer;

/// A value of OpenMLS cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[error("a value of openmls of kind {kind:?} cannot be encoded or decoded: {source}")]
pub struct KvError {
    kind: Kind,
    source: serde_json::Error,
}

/// What kind of value a key is for: the first byte of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    JoinConfig = 1,
    OwnLeafNodes = 2,
    ProposalRefs = 3,
    Proposal = 4,
    Tree = 5,
    InterimTranscriptHash = 6,
    GroupContext = 7,
    ConfirmationTag = 8,
    GroupState = 9,
    MessageSecrets = 10,
    ResumptionPsks = 11,
    OwnLeafIndex = 12,
    EpochSecrets = 13,
    SignatureKeyPair = 14,
    EncryptionKeyPair = 15,
    EpochKeyPairs = 16,
    KeyPackage = 17,
    Psk = 18,
}

/// A value, shared between copies and zeroized with the last.
pub(crate) type Value = Arc<Zeroizing<Vec<u8>>>;

/// The values of one state.
#[derive(Default)]
pub struct KvStorage(Mutex<BTreeMap<Vec<u8>, Value>>);

impl Clone for KvStorage {
    fn clone(&self) -> Self {
        KvStorage(Mutex::new(self.entries().clone()))
    }
}

impl KvStorage {
    pub(crate) fn from_entries(entries: BTreeMap<Vec<u8>, Value>) -> Self {
        KvStorage(Mutex::new(entries))
    }

    pub(crate) fn entries(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, Value>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deletes every value of a kind.
    pub(crate) fn delete_kind(&self, kind: Kind) {
        self.entries().retain(|key, _| key.first() != Some(&(kind as u8)));
    }

    fn put(&self, kind: Kind, key: &impl Serialize, value: &impl Serialize) -> Result<(), KvError> {
        let key = encode_key(kind, key)?;
        let value = encode(kind, value)?;
        self.entries().insert(key, Arc::new(value));
        Ok(())
    }

    fn get<V: DeserializeOwned>(&self, kind: Kind, key: &impl Serialize) -> Result<Option<V>, KvError> {
        let key = encode_key(kind, key)?;
        let value = self.entries().get(&key).cloned();
        value.map(|value| decode(kind, &value)).transpose()
    }

    fn remove(&self, kind: Kind, key: &impl Serialize) -> Result<(), KvError> {
        let key = encode_key(kind, key)?;
        self.entries().remove(&key);
        Ok(())
    }

    fn list<V: DeserializeOwned>(&self, kind: Kind, key: &impl Serialize) -> Result<Vec<V>, KvError> {
        Ok(self.get(kind, key)?.unwrap_or_default())
    }

    /// Appends to a list whose items are kept as they were encoded, so that nothing needs to be known about their type.
    fn append(&self, kind: Kind, key: &impl Serialize, item: &impl Serialize) -> Result<(), KvError> {
        let mut items: Vec<serde_json::Value> = self.list(kind, key)?;
        items.push(serde_json::to_value(item).map_err(|source| KvError { kind, source })?);
        self.put(kind, key, &items)
    }
}

fn encode(kind: Kind, value: &impl Serialize) -> Result<Zeroizing<Vec<u8>>, KvError> {
    let mut out = SecretBuffer::default();
    serde_json::to_writer(&mut out, value).map_err(|source| KvError { kind, source })?;
    Ok(out.into_bytes())
}

fn decode<V: DeserializeOwned>(kind: Kind, bytes: &[u8]) -> Result<V, KvError> {
    serde_json::from_slice(bytes).map_err(|source| KvError { kind, source })
}

fn encode_key(kind: Kind, key: &impl Serialize) -> Result<Vec<u8>, KvError> {
    let mut bytes = vec![kind as u8];
    serde_json::to_writer(&mut bytes, key).map_err(|source| KvError { kind, source })?;
    Ok(bytes)
}

type Outcome<T> = Result<T, KvError>;

/// Writers, readers and deleters of values that have one key and one type.
macro_rules! values {
    (write $($name:ident($key:ident, $value:ident) => $kind:ident;)*) => {$(
        fn $name<K: traits::$key<CURRENT_VERSION>, V: traits::$value<CURRENT_VERSION>>(&self, key: &K, value: &V) -> Outcome<()> {
            self.put(Kind::$kind, key, value)
        }
    )*};
    (read $($name:ident($key:ident, $value:ident) => $kind:ident;)*) => {$(
        fn $name<K: traits::$key<CURRENT_VERSION>, V: traits::$value<CURRENT_VERSION>>(&self, key: &K) -> Outcome<Option<V>> {
            self.get(Kind::$kind, key)
        }
    )*};
    // The same, where the trait names the type of the value first.
    (read_value_first $($name:ident($value:ident, $key:ident) => $kind:ident;)*) => {$(
        fn $name<V: traits::$value<CURRENT_VERSION>, K: traits::$key<CURRENT_VERSION>>(&self, key: &K) -> Outcome<Option<V>> {
            self.get(Kind::$kind, key)
        }
    )*};
    (delete $($name:ident($key:ident) => $kind:ident;)*) => {$(
        fn $name<K: traits::$key<CURRENT_VERSION>>(&self, key: &K) -> Outcome<()> {
            self.remove(Kind::$kind, key)
        }
    )*};
}

impl StorageProvider<CURRENT_VERSION> for KvStorage {
    type Error = KvError;

    values! { write
        write_mls_join_config(GroupId, MlsGroupJoinConfig) => JoinConfig;
        write_tree(GroupId, TreeSync) => Tree;
        write_interim_transcript_hash(GroupId, InterimTranscriptHash) => InterimTranscriptHash;
        write_context(GroupId, GroupContext) => GroupContext;
        write_confirmation_tag(GroupId, ConfirmationTag) => ConfirmationTag;
        write_message_secrets(GroupId, MessageSecrets) => MessageSecrets;
        write_resumption_psk_store(GroupId, ResumptionPskStore) => ResumptionPsks;
        write_own_leaf_index(GroupId, LeafNodeIndex) => OwnLeafIndex;
        write_group_epoch_secrets(GroupId, GroupEpochSecrets) => EpochSecrets;
        write_signature_key_pair(SignaturePublicKey, SignatureKeyPair) => SignatureKeyPair;
        write_encryption_key_pair(EncryptionKey, HpkeKeyPair) => EncryptionKeyPair;
        write_key_package(HashReference, KeyPackage) => KeyPackage;
        write_psk(PskId, PskBundle) => Psk;
    }

    values! { read
        mls_group_join_config(GroupId, MlsGroupJoinConfig) => JoinConfig;
        tree(GroupId, TreeSync) => Tree;
        group_context(GroupId, GroupContext) => GroupContext;
        interim_transcript_hash(GroupId, InterimTranscriptHash) => InterimTranscriptHash;
        confirmation_tag(GroupId, ConfirmationTag) => ConfirmationTag;
        message_secrets(GroupId, MessageSecrets) => MessageSecrets;
        resumption_psk_store(GroupId, ResumptionPskStore) => ResumptionPsks;
        own_leaf_index(GroupId, LeafNodeIndex) => OwnLeafIndex;
        group_epoch_secrets(GroupId, GroupEpochSecrets) => EpochSecrets;
        signature_key_pair(SignaturePublicKey, SignatureKeyPair) => SignatureKeyPair;
        key_package(HashReference, KeyPackage) => KeyPackage;
    }

    values! { read_value_first
        group_state(GroupState, GroupId) => GroupState;
        encryption_key_pair(HpkeKeyPair, EncryptionKey) => EncryptionKeyPair;
        psk(PskBundle, PskId) => Psk;
    }

    values! { delete
        delete_own_leaf_nodes(GroupId) => OwnLeafNodes;
        delete_group_config(GroupId) => JoinConfig;
        delete_tree(GroupId) => Tree;
        delete_confirmation_tag(GroupId) => ConfirmationTag;
        delete_group_state(GroupId) => GroupState;
        delete_context(GroupId) => GroupContext;
        delete_interim_transcript_hash(GroupId) => InterimTranscriptHash;
        delete_message_secrets(GroupId) => MessageSecrets;
        delete_all_resumption_psk_secrets(GroupId) => ResumptionPsks;
        delete_own_leaf_index(GroupId) => OwnLeafIndex;
        delete_group_epoch_secrets(GroupId) => EpochSecrets;
        delete_signature_key_pair(SignaturePublicKey) => SignatureKeyPair;
        delete_encryption_key_pair(EncryptionKey) => EncryptionKeyPair;
        delete_key_package(HashReference) => KeyPackage;
        delete_psk(PskId) => Psk;
    }

    fn write_group_state<V: traits::GroupState<CURRENT_VERSION>, K: traits::GroupId<CURRENT_VERSION>>(
        &self,
        group_id: &K,
        group_state: &V,
    ) -> Outcome<()> {
        self.put(Kind::GroupState, group_id, group_state)
    }

    fn append_own_leaf_node<G: traits::GroupId<CURRENT_VERSION>, L: traits::LeafNode<CURRENT_VERSION>>(
        &self,
        group_id: &G,
        leaf_node: &L,
    ) -> Outcome<()> {
        self.append(Kind::OwnLeafNodes, group_id, leaf_node)
    }

    fn own_leaf_nodes<G: traits::GroupId<CURRENT_VERSION>, L: traits::LeafNode<CURRENT_VERSION>>(
        &self,
        group_id: &G,
    ) -> Outcome<Vec<L>> {
        self.list(Kind::OwnLeafNodes, group_id)
    }

    fn queue_proposal<
        G: traits::GroupId<CURRENT_VERSION>,
        R: traits::ProposalRef<CURRENT_VERSION>,
        Q: traits::QueuedProposal<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
        proposal_ref: &R,
        proposal: &Q,
    ) -> Outcome<()> {
        self.put(Kind::Proposal, &(group_id, proposal_ref), proposal)?;
        self.append(Kind::ProposalRefs, group_id, proposal_ref)
    }

    fn queued_proposal_refs<G: traits::GroupId<CURRENT_VERSION>, R: traits::ProposalRef<CURRENT_VERSION>>(
        &self,
        group_id: &G,
    ) -> Outcome<Vec<R>> {
        self.list(Kind::ProposalRefs, group_id)
    }

    fn queued_proposals<
        G: traits::GroupId<CURRENT_VERSION>,
        R: traits::ProposalRef<CURRENT_VERSION>,
        Q: traits::QueuedProposal<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
    ) -> Outcome<Vec<(R, Q)>> {
        let mut proposals = Vec::new();
        for proposal_ref in self.list::<R>(Kind::ProposalRefs, group_id)? {
            if let Some(proposal) = self.get(Kind::Proposal, &(group_id, &proposal_ref))? {
                proposals.push((proposal_ref, proposal));
            }
        }
        Ok(proposals)
    }

    fn remove_proposal<G: traits::GroupId<CURRENT_VERSION>, R: traits::ProposalRef<CURRENT_VERSION>>(
        &self,
        group_id: &G,
        proposal_ref: &R,
    ) -> Outcome<()> {
        let kind = Kind::ProposalRefs;
        let removed = serde_json::to_value(proposal_ref).map_err(|source| KvError { kind, source })?;
        let mut refs: Vec<serde_json::Value> = self.list(kind, group_id)?;
        refs.retain(|known| *known != removed);
        self.put(kind, group_id, &refs)?;
        self.remove(Kind::Proposal, &(group_id, proposal_ref))
    }

    fn clear_proposal_queue<G: traits::GroupId<CURRENT_VERSION>, R: traits::ProposalRef<CURRENT_VERSION>>(
        &self,
        group_id: &G,
    ) -> Outcome<()> {
        for proposal_ref in self.list::<R>(Kind::ProposalRefs, group_id)? {
            self.remove(Kind::Proposal, &(group_id, &proposal_ref))?;
        }
        self.remove(Kind::ProposalRefs, group_id)
    }

    fn write_encryption_epoch_key_pairs<
        G: traits::GroupId<CURRENT_VERSION>,
        E: traits::EpochKey<CURRENT_VERSION>,
        P: traits::HpkeKeyPair<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
        epoch: &E,
        leaf_index: u32,
        key_pairs: &[P],
    ) -> Outcome<()> {
        self.put(Kind::EpochKeyPairs, &(group_id, epoch, leaf_index), &key_pairs)
    }

    fn encryption_epoch_key_pairs<
        G: traits::GroupId<CURRENT_VERSION>,
        E: traits::EpochKey<CURRENT_VERSION>,
        P: traits::HpkeKeyPair<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
        epoch: &E,
        leaf_index: u32,
    ) -> Outcome<Vec<P>> {
        self.list(Kind::EpochKeyPairs, &(group_id, epoch, leaf_index))
    }

    fn delete_encryption_epoch_key_pairs<
        G: traits::GroupId<CURRENT_VERSION>,
        E: traits::EpochKey<CURRENT_VERSION>,
    >(
        &self,
        group_id: &G,
        epoch: &E,
        leaf_index: u32,
    ) -> Outcome<()> {
        self.remove(Kind::EpochKeyPairs, &(group_id, epoch, leaf_index))
    }
}
