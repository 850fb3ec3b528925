//! The provider that OpenMLS is given: the decorated crypto, the real randomness, and the values of one state.

use openmls_traits::OpenMlsProvider;

use super::{
    crypto::{Backend, DmlsCrypto, Outcome, Role},
    epoch_keys::EpochKeys,
    kv::KvStorage,
};

/// Serves one operation in one state.
pub struct DmlsProvider<'a, B: Backend> {
    crypto: DmlsCrypto<'a, B>,
    backend: &'a B,
    storage: &'a KvStorage,
}

impl<'a, B: Backend> DmlsProvider<'a, B> {
    pub(crate) fn new(
        backend: &'a B,
        role: Role,
        parent: Option<&'a EpochKeys>,
        storage: &'a KvStorage,
    ) -> Self {
        DmlsProvider { crypto: DmlsCrypto::new(backend, role, parent), backend, storage }
    }

    pub(crate) fn into_outcome(self) -> Outcome {
        self.crypto.into_outcome()
    }
}

impl<'a, B: Backend> OpenMlsProvider for DmlsProvider<'a, B> {
    type CryptoProvider = DmlsCrypto<'a, B>;
    type RandProvider = B;
    type StorageProvider = KvStorage;

    fn storage(&self) -> &KvStorage {
        self.storage
    }

    fn crypto(&self) -> &DmlsCrypto<'a, B> {
        &self.crypto
    }

    fn rand(&self) -> &B {
        self.backend
    }
}
