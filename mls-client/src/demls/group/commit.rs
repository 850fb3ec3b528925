//! Commits: one's own, and those of others, from staging to merging.

use openmls::prelude::{
    CommitBuilder, Credential, Initial, MlsGroup, MlsMessageOut, ProcessMessageError,
    ProcessedMessageContent, QueuedProposal, Sender, StageCommitError, StagedCommit, group_info::GroupInfo,
};
use openmls_traits::{OpenMlsProvider as _, signatures::Signer};

use super::{DmlsGroup, checked, join::boxed, take_epoch};
use crate::demls::{
    crypto::{Backend, Role},
    epoch_keys::EpochKeys,
    error::DemlsError,
    kv::{Kind, KvStorage},
    message::DmlsMessage,
    provider::DmlsProvider,
    secret::Secret,
    state::EpochState,
};

/// An own commit. It changes nothing yet: `next` is kept as pending beside the state it was made in, and when the commit is
/// accepted, [`EpochState::settle`] makes it count. An own commit cannot be processed again, so `next` is the only way there.
pub struct OwnCommit {
    /// The commit, as a DMLSMessage.
    pub message: Vec<u8>,
    /// The Welcome for those it adds.
    pub welcome: Option<MlsMessageOut>,
    /// The GroupInfo of the new state.
    pub group_info: Option<GroupInfo>,
    /// The state that the commit leads to.
    pub next: DmlsGroup,
}

/// What a received message was.
#[allow(clippy::large_enum_variant)]
pub enum Processed {
    /// An application message.
    Application {
        /// Who sent it.
        sender: Sender,
        /// The sender's credential.
        credential: Credential,
        /// Its content.
        content: Vec<u8>,
        /// Its authenticated data.
        authenticated_data: Vec<u8>,
    },
    /// A proposal, to be judged and then queued with [`DmlsGroup::accept_proposal`].
    Proposal(Box<QueuedProposal>),
    /// A valid commit, to be judged and then merged.
    Commit(StagedDmlsCommit),
}

/// A valid commit that was not merged yet. Dropping it leaves no trace.
pub struct StagedDmlsCommit {
    commit: StagedCommit,
    sender: Sender,
    next_keys: Option<EpochKeys>,
    parent_input: Option<Secret>,
    staging: u64,
}

impl StagedDmlsCommit {
    /// What the commit would change.
    pub fn commit(&self) -> &StagedCommit {
        &self.commit
    }

    /// Who made it.
    pub fn sender(&self) -> &Sender {
        &self.sender
    }
}

/// The two states after a merge. They must be stored in one step.
pub struct Merged {
    /// The state that the commit was made in: punctured, only retained from now on.
    pub parent: EpochState,
    /// The state that the commit leads to.
    pub next: DmlsGroup,
}

impl DmlsGroup {
    /// Makes a commit, always with a path. `configure` adds to it what is to be committed beside the queued proposals.
    pub fn commit<B: Backend>(
        &mut self,
        backend: &B,
        signer: &impl Signer,
        configure: impl FnOnce(CommitBuilder<'_, Initial>) -> CommitBuilder<'_, Initial>,
    ) -> Result<OwnCommit, DemlsError> {
        self.ready()?;
        let before = self.state.values.clone();
        let made = self.commit_in_place(backend, signer, configure);
        if made.is_err() {
            self.restore(before)?;
        }
        made
    }

    fn commit_in_place<B: Backend>(
        &mut self,
        backend: &B,
        signer: &impl Signer,
        configure: impl FnOnce(CommitBuilder<'_, Initial>) -> CommitBuilder<'_, Initial>,
    ) -> Result<OwnCommit, DemlsError> {
        let keys = self.state.keys.as_ref().ok_or(DemlsError::Removed)?;
        let provider = DmlsProvider::new(backend, Role::Author, Some(keys), &self.state.values);
        let built = configure(self.mls.commit_builder())
            .force_self_update(true)
            .load_psks(provider.storage())
            .map_err(boxed)
            .and_then(|builder| {
                builder
                    .create_group_info(true)
                    .build(provider.rand(), provider.crypto(), signer, |_| true)
                    .map_err(boxed)
            })
            .and_then(|builder| builder.stage_commit(&provider).map_err(boxed));
        let mut outcome = provider.into_outcome();
        let bundle = built.map_err(|error| match outcome.error.take() {
            Some(reason) => reason,
            None => DemlsError::mls("the commit cannot be made")(error),
        })?;
        // Without an evaluation this would be a commit that nobody else can process.
        let parent_input = outcome.parent_input.take().ok_or(DemlsError::KeysMismatch)?;
        let pending = self.mls.pending_commit().and_then(StagedCommit::epoch_authenticator);
        let authenticator = pending.ok_or(DemlsError::KeysMismatch)?.as_slice().to_vec();
        let mut next_keys = take_epoch(&mut outcome, &authenticator)?;
        next_keys.parent_input = Some(parent_input);

        let message = DmlsMessage::encode(bundle.commit(), &keys.epoch)?;
        let welcome = bundle.to_welcome_msg();
        let group_info = bundle.into_group_info();
        let next = self.merged_copy(backend, next_keys)?;
        // The pending commit holds secrets of the next epoch, which have no business in this one. What stays is that the
        // handshake ratchet has moved on: its key must not be used twice.
        self.mls.clear_pending_commit(&self.state.values)?;
        Ok(OwnCommit { message, welcome, group_info, next })
    }

    /// The state that the pending commit leads to, as a state of its own.
    fn merged_copy<B: Backend>(&self, backend: &B, next_keys: EpochKeys) -> Result<DmlsGroup, DemlsError> {
        let values = self.state.values.clone();
        let mut mls = MlsGroup::load(&values, &self.state.group_id)?.ok_or(DemlsError::KeysMismatch)?;
        let provider = DmlsProvider::new(backend, Role::Author, None, &values);
        let merged = mls.merge_pending_commit(&provider);
        checked("the own commit cannot be merged", merged, &mut provider.into_outcome())?;
        Ok(self.next(mls, values, Some(next_keys)))
    }

    /// Processes a message of this state. Refuses messages that name another state, before anything is decrypted.
    pub fn process<B: Backend>(
        &mut self,
        backend: &B,
        message: DmlsMessage,
    ) -> Result<Processed, DemlsError> {
        self.ready()?;
        let keys = self.state.keys.as_ref().ok_or(DemlsError::Removed)?;
        if *message.epoch() != keys.epoch {
            return Err(DemlsError::WrongEpoch {
                expected: keys.epoch.clone(),
                got: message.epoch().clone(),
            });
        }
        let before = self.state.values.clone();
        let provider = DmlsProvider::new(backend, Role::Receiver, Some(keys), &self.state.values);
        let processed = self.mls.process_message(&provider, message.into_message());
        let mut outcome = provider.into_outcome();
        if let Err(ProcessMessageError::InvalidCommit(StageCommitError::OwnCommitMismatch)) = processed {
            return Err(DemlsError::OwnMessage);
        }
        let processed = checked("the message cannot be processed", processed, &mut outcome)?;
        let sender = processed.sender().clone();
        let credential = processed.credential().clone();
        let authenticated_data = processed.aad().to_vec();
        match processed.into_content() {
            ProcessedMessageContent::ApplicationMessage(message) => Ok(Processed::Application {
                sender,
                credential,
                content: message.into_bytes(),
                authenticated_data,
            }),
            ProcessedMessageContent::ProposalMessage(proposal)
            | ProcessedMessageContent::ExternalJoinProposalMessage(proposal) => {
                Ok(Processed::Proposal(proposal))
            }
            ProcessedMessageContent::OwnPendingCommit | ProcessedMessageContent::OwnPrivateMessage => {
                Err(DemlsError::OwnMessage)
            }
            ProcessedMessageContent::StagedCommitMessage(commit) => {
                self.before_staging = Some(before);
                self.stagings += 1;
                let next_keys = match commit.epoch_authenticator() {
                    Some(authenticator) => Some(take_epoch(&mut outcome, authenticator.as_slice())?),
                    // This member is removed by the commit and cannot derive the next epoch.
                    None => None,
                };
                let parent_input = outcome.parent_input.take();
                let by_member = matches!(sender, Sender::Member(_));
                if next_keys.is_some() && by_member && parent_input.is_none() {
                    return Err(DemlsError::KeysMismatch);
                }
                let staging = self.stagings;
                Ok(Processed::Commit(StagedDmlsCommit {
                    commit: *commit,
                    sender,
                    next_keys,
                    parent_input,
                    staging,
                }))
            }
        }
    }

    /// Merges a staged commit. The state it was made in is punctured, so that the commit cannot be derived from it again. When this
    /// fails, open the stored state again: nothing of it has changed.
    pub fn merge<B: Backend>(self, backend: &B, staged: StagedDmlsCommit) -> Result<Merged, DemlsError> {
        let mut merged = self.merge_provisionally(backend, staged)?;
        merged.parent.refuse_external_commits();
        Ok(merged)
    }

    /// The same for a commit on a branch: another commit, an external one perhaps, may still turn out to follow this state, which
    /// therefore keeps its external secret.
    pub fn merge_provisionally<B: Backend>(
        mut self,
        backend: &B,
        staged: StagedDmlsCommit,
    ) -> Result<Merged, DemlsError> {
        if staged.staging != self.stagings {
            self.ready()?;
        }
        self.before_staging = None;
        let values = self.state.values.clone();
        self.state.puncture(backend, staged.parent_input.as_ref())?;
        let parent = self.state.clone();
        let provider = DmlsProvider::new(backend, Role::Receiver, None, &values);
        let merged = self.mls.merge_staged_commit(&provider, staged.commit);
        checked("the commit cannot be merged", merged, &mut provider.into_outcome())?;
        let DmlsGroup { mls, state, .. } = self;
        let next = next(mls, state.group_id, values, staged.next_keys);
        Ok(Merged { parent, next })
    }

    fn next(&self, mls: MlsGroup, values: KvStorage, keys: Option<EpochKeys>) -> DmlsGroup {
        next(mls, self.state.group_id.clone(), values, keys)
    }
}

/// The state after a merge. Key pairs of own update proposals that were not committed are of no use in it.
fn next(
    mls: MlsGroup,
    group_id: openmls::prelude::GroupId,
    values: KvStorage,
    keys: Option<EpochKeys>,
) -> DmlsGroup {
    values.delete_kind(Kind::EncryptionKeyPair);
    DmlsGroup { mls, state: EpochState { group_id, values, keys }, before_staging: None, stagings: 0 }
}
