//! One state of a group, as it is kept: the values of OpenMLS and the epoch keys that belong to them.

use openmls::prelude::{GroupId, HashType};

use super::{
    crypto::Backend, epoch_keys::EpochKeys, error::DemlsError, kdf::Kdf, key_schedule::DmlsEpoch,
    kv::KvStorage, secret::Secret,
};

/// One state of a group, not opened. [`super::DmlsGroup::open`] opens it.
#[derive(Clone)]
pub struct EpochState {
    pub(crate) group_id: GroupId,
    pub(crate) values: KvStorage,
    /// None once this member was removed.
    pub(crate) keys: Option<EpochKeys>,
}

impl EpochState {
    /// The group.
    pub fn group_id(&self) -> &GroupId {
        &self.group_id
    }

    /// The epoch keys. Fails when this member was removed in this state.
    pub fn keys(&self) -> Result<&EpochKeys, DemlsError> {
        self.keys.as_ref().ok_or(DemlsError::Removed)
    }

    /// The name of the state on the wire. Fails when this member was removed in this state.
    pub fn epoch(&self) -> Result<&DmlsEpoch, DemlsError> {
        Ok(&self.keys()?.epoch)
    }

    /// Settles an own commit that was made in this state and accepted: from now on this state is only retained, and the commit
    /// cannot be derived from it again. Both states must be stored in one step afterwards.
    pub fn settle<B: Backend>(&mut self, backend: &B, next: &mut EpochState) -> Result<(), DemlsError> {
        self.settle_provisionally(backend, next)?;
        self.refuse_external_commits();
        Ok(())
    }

    /// The same for a commit that was accepted on a branch only: another commit, an external one perhaps, may still turn out to
    /// follow this state.
    pub fn settle_provisionally<B: Backend>(
        &mut self,
        backend: &B,
        next: &mut EpochState,
    ) -> Result<(), DemlsError> {
        let next_keys = next.keys.as_mut().ok_or(DemlsError::Removed)?;
        let input = next_keys.parent_input.as_ref().ok_or(DemlsError::NotPending)?;
        self.puncture(backend, Some(input))?;
        next_keys.parent_input = None;
        Ok(())
    }

    /// From now on this state is only retained: its external secret goes. Returns whether it was there.
    pub fn refuse_external_commits(&mut self) -> bool {
        self.keys.as_mut().is_some_and(|keys| keys.external_secret.take().is_some())
    }

    /// What a merge does to the state that the commit was made in: the PPRF is punctured at the input of the commit, if it was
    /// evaluated (external commits and one's own removal do not evaluate it).
    pub(crate) fn puncture<B: Backend>(
        &mut self,
        backend: &B,
        input: Option<&Secret>,
    ) -> Result<(), DemlsError> {
        let keys = self.keys.as_mut().ok_or(DemlsError::Removed)?;
        if let Some(input) = input {
            let hash = hash_of(keys.pprf.nh())?;
            keys.pprf.puncture(&Kdf::new(backend, hash), input.as_slice())?;
        }
        Ok(())
    }
}

/// The hash whose output has `nh` bytes, among those of the supported ciphersuites.
fn hash_of(nh: usize) -> Result<HashType, DemlsError> {
    let known = [HashType::Sha2_256, HashType::Sha2_384, HashType::Sha2_512];
    known.into_iter().find(|hash| hash.size() == nh).ok_or(DemlsError::KeysMismatch)
}
