//! One Send Group as a member holds it: OpenMLS' group, the values that it stores, and what of them is on disk already.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use group_log::ClientId;
use openmls::prelude::{MlsGroup, MlsGroupJoinConfig, SenderRatchetConfiguration};
use openmls::prelude::{MlsMessageIn, ProtocolMessage};
use openmls::prelude::{PURE_PLAINTEXT_WIRE_FORMAT_POLICY, tls_codec::Deserialize};
use openmls_rust_crypto::RustCrypto;
use openmls_traits::OpenMlsProvider;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{
    error::{DimlsError, Rejected},
    graph::Member,
    records::{Change, KeyValue, Part},
};
use crate::{
    identity::{Identity, capabilities, client_id_of},
    limits::{OUT_OF_ORDER_MESSAGES, SKIPPED_MESSAGES},
    provider::{Provider, Values},
};

/// OpenMLS' values in memory, with the fingerprints of those that are on disk.
pub(super) struct Space {
    pub(super) provider: Provider,
    saved: HashMap<Vec<u8>, [u8; 32]>,
}

impl Space {
    /// Nothing yet.
    pub(super) fn empty(crypto: &Arc<RustCrypto>) -> Self {
        Space { provider: Provider::new(Arc::clone(crypto), Values::default()), saved: HashMap::new() }
    }

    /// What was read from the disk.
    pub(super) fn load(crypto: &Arc<RustCrypto>, stored: Vec<KeyValue>) -> Self {
        let mut values = Values::default();
        let mut saved = HashMap::new();
        for (key, value) in stored {
            saved.insert(key.clone(), fingerprint(&value));
            values.insert(key, value.to_vec());
        }
        Space { provider: Provider::new(Arc::clone(crypto), values), saved }
    }

    /// What has to be written so that the disk has what memory has.
    pub(super) fn changes(&mut self, part: Part) -> Vec<Change> {
        let values = self.provider.values();
        let mut changes = Vec::new();
        for (key, value) in values.iter() {
            let print = fingerprint(value);
            if self.saved.get(key) != Some(&print) {
                self.saved.insert(key.to_vec(), print);
                changes.push(Change { part, key: key.to_vec(), value: Some(Zeroizing::new(value.to_vec())) });
            }
        }
        self.saved.retain(|key, _| {
            let kept = values.get(key).is_some();
            if !kept {
                changes.push(Change { part, key: key.clone(), value: None });
            }
            kept
        });
        changes
    }

    /// This space takes the place of `old` on disk.
    pub(super) fn replacing(mut self, old: Option<Space>) -> Self {
        self.saved = old.map(|old| old.saved.clone()).unwrap_or_default();
        self
    }

    /// Everything goes.
    pub(super) fn clear(&mut self) {
        self.provider.clear();
    }

    /// A copy of what is stored now, to return to.
    pub(super) fn snapshot(&self) -> Values {
        self.provider.values()
    }

    pub(super) fn restore(&mut self, values: Values) {
        self.provider = self.provider.replace(values);
    }
}

fn fingerprint(value: &[u8]) -> [u8; 32] {
    Sha256::digest(value).into()
}

/// A Send Group in which this client is.
pub(super) struct SendGroup {
    pub(super) space: Space,
    pub(super) mls: MlsGroup,
}

impl SendGroup {
    /// This client's own, with nobody else in it yet.
    pub(super) fn found(
        crypto: &Arc<RustCrypto>,
        me: &Identity,
        group_id: &group_log::GroupId,
    ) -> Result<Self, DimlsError> {
        let space = Space::empty(crypto);
        let mls = MlsGroup::builder()
            .with_group_id(openmls::prelude::GroupId::from_slice(group_id.as_bytes()))
            .ciphersuite(me.ciphersuite())
            .with_capabilities(capabilities(me.ciphersuite()))
            .with_wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .max_past_epochs(0)
            .sender_ratchet_configuration(ratchets())
            .build(&space.provider, me.signer(), me.credential())
            .map_err(|e| DimlsError::mls("creating the Send Group", e))?;
        Ok(SendGroup { space, mls })
    }

    /// What was stored of a Send Group; nothing if nothing was.
    pub(super) fn load(
        crypto: &Arc<RustCrypto>,
        group_id: &group_log::GroupId,
        stored: Vec<KeyValue>,
    ) -> Result<Option<Self>, DimlsError> {
        if stored.is_empty() {
            return Ok(None);
        }
        let space = Space::load(crypto, stored);
        let id = openmls::prelude::GroupId::from_slice(group_id.as_bytes());
        match MlsGroup::load(space.provider.storage(), &id) {
            Ok(Some(mls)) => Ok(Some(SendGroup { space, mls })),
            Ok(None) => Err(DimlsError::Damaged("a Send Group is not there".into())),
            Err(e) => Err(DimlsError::Damaged(e.to_string())),
        }
    }

    /// Goes back to `values` after something failed half-way.
    pub(super) fn restore(&mut self, values: Values) -> Result<(), DimlsError> {
        let id = self.mls.group_id().clone();
        self.space.restore(values);
        self.mls = MlsGroup::load(self.space.provider.storage(), &id)
            .ok()
            .flatten()
            .ok_or_else(|| DimlsError::Damaged("a Send Group cannot be read back".into()))?;
        Ok(())
    }

    /// Members by their numbers. Fails if anybody is no member of the DGroup or is in it twice.
    pub(super) fn members(
        &self,
        number: impl Fn(&ClientId, &[u8]) -> Option<Member>,
    ) -> Result<BTreeSet<Member>, Rejected> {
        let mut members = BTreeSet::new();
        for member in self.mls.members() {
            let id = ClientId::new(client_id_of(&member.credential).to_vec()).ok();
            let number = id.and_then(|id| number(&id, &member.signature_key)).ok_or(Rejected::OtherKey)?;
            if !members.insert(number) {
                return Err(Rejected::Lies("a member is in the group twice"));
            }
        }
        Ok(members)
    }
}

/// How a Send Group is joined. No past epochs: within a Send Group everything comes in the owner's order.
pub(super) fn join_config() -> MlsGroupJoinConfig {
    MlsGroupJoinConfig::builder()
        .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
        .use_ratchet_tree_extension(true)
        .max_past_epochs(0)
        .sender_ratchet_configuration(ratchets())
        .build()
}

fn ratchets() -> SenderRatchetConfiguration {
    SenderRatchetConfiguration::new(OUT_OF_ORDER_MESSAGES, SKIPPED_MESSAGES)
}

/// Reads a message for a group.
pub(super) fn protocol_message(bytes: &[u8]) -> Result<ProtocolMessage, Rejected> {
    MlsMessageIn::tls_deserialize_exact(bytes)
        .map_err(|e| Rejected::Malformed(e.to_string()))?
        .try_into_protocol_message()
        .map_err(|e| Rejected::Malformed(e.to_string()))
}
