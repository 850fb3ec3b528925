//! A DeMLS group in one state: what OpenMLS does with an `MlsGroup`, with the DeMLS key schedule underneath.

mod commit;
mod join;
#[cfg(test)]
mod tests;

use openmls::prelude::{
    CredentialWithKey, Extension, GroupId, KeyPackage, LeafNodeIndex, LeafNodeParameters, Member, MlsGroup,
    MlsGroupCreateConfig, MlsMessageOut, PastEpochDeletionPolicy, QueuedProposal, UnknownExtension,
    group_info::VerifiableGroupInfo,
};
use openmls_traits::signatures::Signer;

pub use self::{
    commit::{Merged, OwnCommit, Processed, StagedDmlsCommit},
    join::ExternalJoin,
};
use super::{
    crypto::{Backend, Outcome, Role},
    epoch_keys::EpochKeys,
    error::DemlsError,
    key_schedule::DmlsEpoch,
    kv::KvStorage,
    limits::EPOCH_EXTENSION,
    message::DmlsMessage,
    provider::DmlsProvider,
    state::EpochState,
};

/// A group in one state. It is all in memory: [`super::BranchStates`] stores it.
pub struct DmlsGroup {
    mls: MlsGroup,
    state: EpochState,
    /// The values from before a commit was staged, until it is merged or something else is done.
    before_staging: Option<KvStorage>,
    /// Counts stagings, so that a merge knows whether its commit was the last one staged.
    stagings: u64,
}

impl DmlsGroup {
    /// A new group whose only member is the caller.
    pub fn create<B: Backend>(
        backend: &B,
        signer: &impl Signer,
        config: &MlsGroupCreateConfig,
        group_id: GroupId,
        credential: CredentialWithKey,
    ) -> Result<Self, DemlsError> {
        let values = KvStorage::default();
        let provider = DmlsProvider::new(backend, Role::Author, None, &values);
        let created = MlsGroup::new_with_group_id(&provider, signer, config, group_id, credential);
        let mut outcome = provider.into_outcome();
        let mls = checked("the group cannot be created", created, &mut outcome)?;
        Self::start(backend, mls, values, outcome)
    }

    /// Opens a state that was kept.
    pub fn open(state: EpochState) -> Result<Self, DemlsError> {
        let mls = MlsGroup::load(&state.values, &state.group_id)?.ok_or(DemlsError::KeysMismatch)?;
        let belongs =
            state.keys.as_ref().is_none_or(|keys| keys.authenticator == mls.epoch_authenticator().as_slice());
        if !belongs {
            return Err(DemlsError::KeysMismatch);
        }
        Ok(DmlsGroup { mls, state, before_staging: None, stagings: 0 })
    }

    /// The first state of a member: one epoch came into being, and old message secrets are left to the states they belong to.
    fn start<B: Backend>(
        backend: &B,
        mut mls: MlsGroup,
        values: KvStorage,
        mut outcome: Outcome,
    ) -> Result<Self, DemlsError> {
        let keys = take_epoch(&mut outcome, mls.epoch_authenticator().as_slice())?;
        let provider = DmlsProvider::new(backend, Role::Receiver, None, &values);
        let policy = PastEpochDeletionPolicy::MaxEpochs(0);
        checked(
            "the retention of past epochs cannot be set",
            mls.set_past_epoch_deletion_policy(&provider, policy),
            &mut Outcome::default(),
        )?;
        let state = EpochState { group_id: mls.group_id().clone(), values, keys: Some(keys) };
        Ok(DmlsGroup { mls, state, before_staging: None, stagings: 0 })
    }

    /// The underlying group, to look at.
    pub fn mls(&self) -> &MlsGroup {
        &self.mls
    }

    /// The members in this state.
    pub fn members(&self) -> impl Iterator<Item = Member> + '_ {
        self.mls.members()
    }

    /// The name of the state on the wire. Fails when this member was removed in this state.
    pub fn epoch(&self) -> Result<&DmlsEpoch, DemlsError> {
        self.state.epoch()
    }

    /// Whether this member is part of the group in this state.
    pub fn is_active(&self) -> bool {
        self.mls.is_active()
    }

    /// What is to be stored of this state. A commit that was staged and not merged has left no trace in it.
    pub fn state(&mut self) -> Result<&EpochState, DemlsError> {
        self.ready()?;
        Ok(&self.state)
    }

    /// The same, to [`EpochState::settle`] own commits.
    pub fn state_mut(&mut self) -> Result<&mut EpochState, DemlsError> {
        self.ready()?;
        Ok(&mut self.state)
    }

    /// Closes the group: what is to be stored of this state.
    pub fn into_state(mut self) -> Result<EpochState, DemlsError> {
        self.ready()?;
        Ok(self.state)
    }

    /// An application message of this state, as a DMLSMessage.
    pub fn send<B: Backend>(
        &mut self,
        backend: &B,
        signer: &impl Signer,
        content: &[u8],
    ) -> Result<Vec<u8>, DemlsError> {
        self.outgoing(backend, "the message cannot be sent", |mls, provider| {
            mls.create_message(provider, signer, content)
        })
    }

    /// Proposes to add the owner of a KeyPackage. The proposal is queued here too.
    pub fn propose_add<B: Backend>(
        &mut self,
        backend: &B,
        signer: &impl Signer,
        key_package: &KeyPackage,
    ) -> Result<Vec<u8>, DemlsError> {
        self.outgoing(backend, "the add cannot be proposed", |mls, provider| {
            mls.propose_add_member(provider, signer, key_package).map(|(message, _)| message)
        })
    }

    /// Proposes to remove a member. The proposal is queued here too.
    pub fn propose_remove<B: Backend>(
        &mut self,
        backend: &B,
        signer: &impl Signer,
        member: LeafNodeIndex,
    ) -> Result<Vec<u8>, DemlsError> {
        self.outgoing(backend, "the removal cannot be proposed", |mls, provider| {
            mls.propose_remove_member(provider, signer, member).map(|(message, _)| message)
        })
    }

    /// Proposes one's own removal, for others to commit. What was queued here is dropped: an older proposal of one's own would be in
    /// the way of the new one.
    pub fn propose_leave<B: Backend>(
        &mut self,
        backend: &B,
        signer: &impl Signer,
    ) -> Result<Vec<u8>, DemlsError> {
        self.ready()?;
        self.mls.clear_pending_proposals(&self.state.values)?;
        self.outgoing(backend, "leaving cannot be proposed", |mls, provider| {
            mls.leave_group(provider, signer)
        })
    }

    /// Proposes an update of one's own leaf, which somebody else may commit. The proposal is queued here too.
    pub fn propose_update<B: Backend, S: Signer>(
        &mut self,
        backend: &B,
        signer: &S,
        leaf: LeafNodeParameters,
    ) -> Result<Vec<u8>, DemlsError> {
        self.outgoing(backend, "the update cannot be proposed", |mls, provider| {
            mls.propose_self_update(provider, signer, leaf).map(|(message, _)| message)
        })
    }

    /// Queues a received proposal after it was found acceptable.
    pub fn accept_proposal(&mut self, proposal: QueuedProposal) -> Result<(), DemlsError> {
        self.ready()?;
        Ok(self.mls.store_pending_proposal(&self.state.values, proposal)?)
    }

    /// The GroupInfo of this state, for external commits; it names the state ([`epoch_in`]). Fails with
    /// [`DemlsError::NoExternalCommits`] once the state is only retained.
    pub fn group_info<B: Backend>(
        &mut self,
        backend: &B,
        signer: &impl Signer,
        with_tree: bool,
    ) -> Result<MlsMessageOut, DemlsError> {
        self.ready()?;
        let provider = self.provider(backend, Role::Author)?;
        let named = Extension::Unknown(EPOCH_EXTENSION, UnknownExtension(self.epoch()?.as_slice().to_vec()));
        let crypto = provider_crypto(&provider);
        let exported =
            self.mls.export_group_info_with_additional_extensions(crypto, signer, with_tree, [named]);
        checked("the GroupInfo cannot be exported", exported, &mut provider.into_outcome())
    }

    /// An exported secret (RFC 9420 section 8.5). Computed without the decorator: any label is the application's own.
    pub fn export_secret<B: Backend>(
        &self,
        backend: &B,
        label: &str,
        context: &[u8],
        length: usize,
    ) -> Result<Vec<u8>, DemlsError> {
        let exported = self.mls.export_secret(backend, label, context, length);
        checked("the secret cannot be exported", exported, &mut Outcome::default())
    }

    /// Undoes a staging that was not followed by its merge.
    fn ready(&mut self) -> Result<(), DemlsError> {
        if let Some(before) = self.before_staging.take() {
            self.restore(before)?;
        }
        Ok(())
    }

    fn restore(&mut self, values: KvStorage) -> Result<(), DemlsError> {
        self.mls = MlsGroup::load(&values, &self.state.group_id)?.ok_or(DemlsError::KeysMismatch)?;
        self.state.values = values;
        Ok(())
    }

    fn provider<'a, B: Backend>(
        &'a self,
        backend: &'a B,
        role: Role,
    ) -> Result<DmlsProvider<'a, B>, DemlsError> {
        Ok(DmlsProvider::new(backend, role, Some(self.state.keys()?), &self.state.values))
    }

    fn outgoing<B: Backend, E: std::error::Error + Send + Sync + 'static>(
        &mut self,
        backend: &B,
        operation: &'static str,
        create: impl FnOnce(&mut MlsGroup, &DmlsProvider<'_, B>) -> Result<MlsMessageOut, E>,
    ) -> Result<Vec<u8>, DemlsError> {
        self.ready()?;
        let keys = self.state.keys.as_ref().ok_or(DemlsError::Removed)?;
        let provider = DmlsProvider::new(backend, Role::Author, Some(keys), &self.state.values);
        let created = create(&mut self.mls, &provider);
        let message = checked(operation, created, &mut provider.into_outcome())?;
        DmlsMessage::encode(&message, &keys.epoch)
    }
}

/// The name of the state that a GroupInfo of [`DmlsGroup::group_info`] belongs to.
pub fn epoch_in(group_info: &VerifiableGroupInfo) -> Option<DmlsEpoch> {
    let found = group_info.extensions().iter().find_map(|extension| match extension {
        Extension::Unknown(EPOCH_EXTENSION, UnknownExtension(bytes)) => Some(bytes),
        _ => None,
    });
    DmlsEpoch::from_slice(found?).ok()
}

fn provider_crypto<'p, 'a, B: Backend>(
    provider: &'p DmlsProvider<'a, B>,
) -> &'p super::crypto::DmlsCrypto<'a, B> {
    openmls_traits::OpenMlsProvider::crypto(provider)
}

/// The result of OpenMLS, or the real reason of its failure.
fn checked<T, E: std::error::Error + Send + Sync + 'static>(
    operation: &'static str,
    result: Result<T, E>,
    outcome: &mut Outcome,
) -> Result<T, DemlsError> {
    result.map_err(|error| match outcome.error.take() {
        Some(reason) => reason,
        None => DemlsError::mls(operation)(error.into()),
    })
}

/// The keys of the epoch that OpenMLS names by its authenticator.
fn take_epoch(outcome: &mut Outcome, authenticator: &[u8]) -> Result<EpochKeys, DemlsError> {
    let index = outcome
        .epochs
        .iter()
        .position(|epoch| epoch.authenticator == authenticator)
        .ok_or(DemlsError::KeysMismatch)?;
    Ok(outcome.epochs.swap_remove(index))
}
