//! The decorator: an `OpenMlsCrypto` that watches HKDF and puts the DeMLS key schedule in the place of the init secret.
//!
//! | OpenMLS does | the decorator does |
//! |---|---|
//! | expands "epoch" with a context | remembers the output: an epoch secret |
//! | expands "init" of a remembered epoch secret | starts the epoch's PPRF and hands out a random handle |
//! | expands "external" of a remembered epoch secret | keeps the external secret and hands out a random handle |
//! | expands "path" | remembers which path secret the output came from |
//! | extracts with an init handle as the salt | returns a random placeholder: the new GroupContext is not known yet |
//! | expands "joiner" of a placeholder | evaluates the PPRF, extracts and expands for real |
//! | derives a key pair from an external handle | derives it from the external secret |
//!
//! One decorator serves one operation. OpenMLS calls it from several threads at once; nothing is kept per thread.

mod openmls_crypto;
#[cfg(test)]
mod tests;

use std::sync::{Mutex, MutexGuard, PoisonError};

use openmls::prelude::tls_codec::SecretVLBytes;
use openmls_traits::{
    crypto::OpenMlsCrypto,
    random::OpenMlsRand,
    types::{Ciphersuite, CryptoError, HashType},
};

use super::{
    epoch_keys::EpochKeys,
    error::DemlsError,
    kdf::Kdf,
    key_schedule::{child_init, commit_confirmation, dmls_epoch, parent_init_secret},
    pprf::Pprf,
    secret::Secret,
};

/// The ciphersuites that DeMLS groups may use: 0x0001, 0x0002 and 0x0003.
pub const CIPHERSUITES: [Ciphersuite; 3] = [
    Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519,
    Ciphersuite::MLS_128_DHKEMP256_AES128GCM_SHA256_P256,
    Ciphersuite::MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519,
];

/// Who makes the commit of the operation, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// This member commits, creates or joins.
    Author,
    /// This member processes what others made.
    Receiver,
}

/// Real crypto and randomness under the decorator.
pub trait Backend: OpenMlsCrypto + OpenMlsRand {}

impl<T: OpenMlsCrypto + OpenMlsRand> Backend for T {}

/// The decorator for one operation in one state.
pub struct DmlsCrypto<'a, B> {
    backend: &'a B,
    role: Role,
    parent: Option<&'a EpochKeys>,
    seen: Mutex<Seen>,
}

/// What the decorator saw during its operation.
#[derive(Default)]
struct Seen {
    epoch_secrets: Vec<EpochSecret>,
    paths: Vec<Path>,
    placeholders: Vec<Placeholder>,
    outcome: Outcome,
}

struct EpochSecret {
    secret: Secret,
    external: Option<(Vec<u8>, Secret)>,
}

struct Path {
    path_secret: Secret,
    derived: Secret,
}

struct Placeholder {
    value: Secret,
    commit_secret: Secret,
    /// The secret that commit_confirmation is derived from.
    confirmed_by: Secret,
}

/// What an operation leaves behind for the state.
#[derive(Default)]
pub(crate) struct Outcome {
    /// The epochs that came into being.
    pub(crate) epochs: Vec<EpochKeys>,
    /// The input at which the parent was evaluated and is to be punctured when the commit is merged.
    pub(crate) parent_input: Option<Secret>,
    /// The real reason of a failure that OpenMLS can only report as a generic one.
    pub(crate) error: Option<DemlsError>,
}

impl<'a, B: Backend> DmlsCrypto<'a, B> {
    /// A decorator for one operation in the state whose keys are `parent` (none: no state exists yet).
    pub(crate) fn new(backend: &'a B, role: Role, parent: Option<&'a EpochKeys>) -> Self {
        DmlsCrypto { backend, role, parent, seen: Mutex::default() }
    }

    pub(crate) fn into_outcome(self) -> Outcome {
        self.seen.into_inner().unwrap_or_else(PoisonError::into_inner).outcome
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the first reason, which is the cause of all others, and gives OpenMLS something it can pass on.
    fn fail(&self, seen: &mut Seen, error: impl Into<DemlsError>) -> CryptoError {
        seen.outcome.error.get_or_insert(error.into());
        CryptoError::CryptoLibraryError
    }

    fn random(&self, bytes: usize) -> Result<Vec<u8>, CryptoError> {
        self.backend.random_vec(bytes).map_err(|_| CryptoError::InsufficientRandomness)
    }

    /// "init" of an epoch secret: the PPRF starts, OpenMLS gets a handle.
    fn start_epoch(
        &self,
        seen: &mut Seen,
        index: usize,
        hash: HashType,
    ) -> Result<SecretVLBytes, CryptoError> {
        let kdf = Kdf::new(self.backend, hash);
        let EpochSecret { secret, external } = seen.epoch_secrets.swap_remove(index);
        let (external_handle, external_secret) = match external {
            Some((handle, secret)) => (handle, Some(secret)),
            None => (Vec::new(), None),
        };
        let init_handle = self.random(hash.size())?;
        seen.outcome.epochs.push(EpochKeys {
            epoch: dmls_epoch(&kdf, secret.as_slice())?,
            authenticator: kdf.derive_secret(secret.as_slice(), "authentication")?.as_slice().to_vec(),
            init_handle: init_handle.clone(),
            pprf: Pprf::new(parent_init_secret(&kdf, secret.as_slice())?),
            external_handle,
            external_secret,
            parent_input: None,
        });
        Ok(init_handle.into())
    }

    /// "external" of an epoch secret: OpenMLS gets a handle.
    fn start_external(
        &self,
        epoch: &mut EpochSecret,
        hash: HashType,
        info: &[u8],
        okm_len: usize,
    ) -> Result<SecretVLBytes, CryptoError> {
        let real = self.backend.hkdf_expand(hash, epoch.secret.as_slice(), info, okm_len)?;
        let handle = self.random(okm_len)?;
        epoch.external = Some((handle.clone(), Secret::from_slice(real.as_slice())));
        Ok(handle.into())
    }

    /// "joiner" of a placeholder: by now everything is known that the PPRF's input is made of.
    fn joiner(
        &self,
        seen: &mut Seen,
        index: usize,
        hash: HashType,
        info: &[u8],
        group_context: &[u8],
        okm_len: usize,
    ) -> Result<SecretVLBytes, CryptoError> {
        let Some(parent) = self.parent else {
            return Err(self.fail(seen, DemlsError::UnexpectedUse("joiner without a parent")));
        };
        let kdf = Kdf::new(self.backend, hash);
        let placeholder = seen.placeholders.swap_remove(index);
        let confirmation = commit_confirmation(&kdf, placeholder.confirmed_by.as_slice())?;
        let input = child_init(&kdf, confirmation.as_slice(), group_context)?;
        let init_secret = match parent.pprf.evaluate(&kdf, input.as_slice()) {
            Ok(init_secret) => init_secret,
            Err(error) => return Err(self.fail(seen, error)),
        };
        if seen.outcome.parent_input.replace(input).is_some() {
            return Err(self.fail(seen, DemlsError::UnexpectedUse("two commits in one operation")));
        }
        let intermediate = kdf.extract(init_secret.as_slice(), placeholder.commit_secret.as_slice())?;
        self.backend.hkdf_expand(hash, intermediate.as_slice(), info, okm_len)
    }

    /// The external secret behind a handle, if `ikm` is one.
    fn resolve_external(&self, seen: &mut Seen, ikm: &[u8]) -> Result<Option<Secret>, CryptoError> {
        let started = seen.epoch_secrets.iter().filter_map(|epoch| epoch.external.as_ref());
        let finished = seen.outcome.epochs.iter().filter_map(|epoch| {
            epoch.external_secret.as_ref().map(|secret| (&epoch.external_handle, secret))
        });
        let mut known = started.map(|(handle, secret)| (handle, secret)).chain(finished);
        if let Some((_, secret)) = known.find(|(handle, _)| handle.as_slice() == ikm) {
            return Ok(Some(secret.clone()));
        }
        match self.parent {
            Some(parent) if parent.external_handle == ikm && !ikm.is_empty() => match &parent.external_secret
            {
                Some(secret) => Ok(Some(secret.clone())),
                None => Err(self.fail(seen, DemlsError::NoExternalCommits)),
            },
            _ => Ok(None),
        }
    }
}
