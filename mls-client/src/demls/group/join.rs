//! Joining: by a Welcome, or by an external commit.

use openmls::prelude::{
    CredentialWithKey, KeyPackageBundle, LeafNodeParameters, MlsGroup, MlsGroupJoinConfig, RatchetTreeIn,
    StagedWelcome, Welcome,
    group_info::{GroupInfo, VerifiableGroupInfo},
};
use openmls_traits::{OpenMlsProvider as _, signatures::Signer, storage::StorageProvider as _};

use super::{DmlsGroup, checked};
use crate::demls::{
    crypto::{Backend, Outcome, Role},
    error::DemlsError,
    key_schedule::DmlsEpoch,
    kv::{Kind, KvStorage},
    message::DmlsMessage,
    provider::DmlsProvider,
};

/// An external commit and the state it leads to.
pub struct ExternalJoin {
    /// The commit, as a DMLSMessage. To be accepted before `next` means anything.
    pub message: Vec<u8>,
    /// The GroupInfo of the new state.
    pub group_info: Option<GroupInfo>,
    /// The state that the commit leads to.
    pub next: DmlsGroup,
}

impl DmlsGroup {
    /// Joins by a Welcome. `key_package` is the bundle that the Welcome was made for; the caller deletes it from its own store,
    /// in one step with storing the new state, unless it is a last resort.
    pub fn join<B: Backend>(
        backend: &B,
        config: &MlsGroupJoinConfig,
        welcome: Welcome,
        key_package: &KeyPackageBundle,
        ratchet_tree: Option<RatchetTreeIn>,
    ) -> Result<Self, DemlsError> {
        let values = KvStorage::default();
        let reference = key_package.key_package().hash_ref(backend);
        let reference = checked("the KeyPackage cannot be referenced", reference, &mut Outcome::default())?;
        values.write_key_package(&reference, key_package)?;
        let provider = DmlsProvider::new(backend, Role::Receiver, None, &values);
        let joined = StagedWelcome::new_from_welcome(&provider, config, welcome, ratchet_tree)
            .and_then(|staged| staged.into_group(&provider));
        let mut outcome = provider.into_outcome();
        let mls = checked("the group cannot be joined by this Welcome", joined, &mut outcome)?;
        values.delete_kind(Kind::KeyPackage);
        Self::start(backend, mls, values, outcome)
    }

    /// Joins by an external commit. `epoch` names the state of the GroupInfo on the wire and comes with it: a joiner cannot
    /// compute it. External commits bring their own init secret and bypass the PPRF.
    #[allow(clippy::too_many_arguments)]
    pub fn join_external<B: Backend>(
        backend: &B,
        signer: &impl Signer,
        config: &MlsGroupJoinConfig,
        group_info: VerifiableGroupInfo,
        ratchet_tree: Option<RatchetTreeIn>,
        epoch: &DmlsEpoch,
        credential: CredentialWithKey,
        leaf: LeafNodeParameters,
    ) -> Result<ExternalJoin, DemlsError> {
        let values = KvStorage::default();
        let provider = DmlsProvider::new(backend, Role::Author, None, &values);
        let mut builder = MlsGroup::external_commit_builder().with_config(config.clone());
        if let Some(tree) = ratchet_tree {
            builder = builder.with_ratchet_tree(tree);
        }
        let built = builder
            .build_group(&provider, group_info, credential)
            .map_err(boxed)
            .and_then(|builder| {
                builder.leaf_node_parameters(leaf).load_psks(provider.storage()).map_err(boxed)
            })
            .and_then(|builder| {
                builder
                    .create_group_info(true)
                    .build(provider.rand(), provider.crypto(), signer, |_| true)
                    .map_err(boxed)
            })
            .and_then(|builder| builder.finalize(&provider).map_err(boxed));
        let mut outcome = provider.into_outcome();
        let (mls, bundle) = built.map_err(|error| match outcome.error.take() {
            Some(reason) => reason,
            None => DemlsError::mls("the external commit cannot be made")(error),
        })?;
        let (commit, _, group_info) = bundle.into_contents();
        let message = DmlsMessage::encode(&commit, epoch)?;
        let next = Self::start(backend, mls, values, outcome)?;
        Ok(ExternalJoin { message, group_info, next })
    }
}

pub(super) fn boxed<E: std::error::Error + Send + Sync + 'static>(
    error: E,
) -> Box<dyn std::error::Error + Send + Sync> {
    error.into()
}
