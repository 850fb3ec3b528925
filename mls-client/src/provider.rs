//! What OpenMLS works on during one operation: a crypto provider, and one namespace of the state file held in memory.

use std::{collections::HashMap, fmt, sync::Arc};

use openmls_memory_storage::MemoryStorage;
use openmls_rust_crypto::RustCrypto;
use openmls_traits::OpenMlsProvider;
use zeroize::Zeroize;

/// OpenMLS' key-values. Overwritten with zeros when they go.
#[derive(Default, Clone, PartialEq, Eq)]
pub struct Values(HashMap<Vec<u8>, Vec<u8>>);

impl Values {
    /// Adds one key-value.
    pub fn insert(&mut self, key: Vec<u8>, value: Vec<u8>) {
        if let Some(mut old) = self.0.insert(key, value) {
            old.zeroize();
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.0.get(key).map(Vec::as_slice)
    }

    /// All key-values, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(k, v)| (k.as_slice(), v.as_slice()))
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What has to be written and deleted to turn `old` into `self`.
    pub fn changes_since<'a>(&'a self, old: &'a Values) -> Changes<'a> {
        Changes {
            put: self.iter().filter(|(k, v)| old.get(k) != Some(v)).collect(),
            delete: old.iter().map(|(k, _)| k).filter(|k| self.get(k).is_none()).collect(),
        }
    }
}

impl Drop for Values {
    fn drop(&mut self) {
        self.0.values_mut().for_each(Zeroize::zeroize);
    }
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Values({} keys)", self.0.len())
    }
}

/// The difference between two sets of values.
pub struct Changes<'a> {
    /// Keys that are new or have another value.
    pub put: Vec<(&'a [u8], &'a [u8])>,
    /// Keys that are gone.
    pub delete: Vec<&'a [u8]>,
}

/// The OpenMLS provider of one operation.
pub(crate) struct Provider {
    crypto: Arc<RustCrypto>,
    storage: MemoryStorage,
}

impl Provider {
    /// Works on `values`, a namespace that was loaded from the state file.
    pub(crate) fn new(crypto: Arc<RustCrypto>, mut values: Values) -> Self {
        let values = std::mem::take(&mut values.0);
        Provider { crypto, storage: MemoryStorage { values: values.into() } }
    }

    /// The same crypto over other values.
    pub(crate) fn replace(&self, values: Values) -> Self {
        Provider::new(Arc::clone(&self.crypto), values)
    }

    /// A copy of what OpenMLS has stored.
    pub(crate) fn values(&self) -> Values {
        Values(self.storage.values.read().unwrap_or_else(|p| p.into_inner()).clone())
    }

    /// Everything that OpenMLS has stored is forgotten.
    pub(crate) fn clear(&self) {
        let mut values = self.storage.values.write().unwrap_or_else(|p| p.into_inner());
        values.values_mut().for_each(Zeroize::zeroize);
        values.clear();
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.clear();
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Provider")
    }
}

impl OpenMlsProvider for Provider {
    type CryptoProvider = RustCrypto;
    type RandProvider = RustCrypto;
    type StorageProvider = MemoryStorage;

    fn storage(&self) -> &MemoryStorage {
        &self.storage
    }

    fn crypto(&self) -> &RustCrypto {
        &self.crypto
    }

    fn rand(&self) -> &RustCrypto {
        &self.crypto
    }
}
