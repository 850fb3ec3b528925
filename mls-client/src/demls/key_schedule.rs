//! What DeMLS changes in the key schedule of RFC 9420 section 8: how the next epoch's init secret comes about.

use std::fmt;

use openmls_traits::{crypto::OpenMlsCrypto, types::CryptoError};

use super::{
    kdf::Kdf,
    limits::MAX_DMLS_EPOCH_BYTES,
    pprf::{Pprf, PprfError},
    secret::Secret,
    wire::DecodeError,
};

/// `dmls_epoch`: names one exact state of a group, on the wire and in the clear. KDF.Nh bytes. It is a claim: it routes messages
/// and never decides anything.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DmlsEpoch(Vec<u8>);

impl DmlsEpoch {
    /// Takes a claimed `dmls_epoch` of 1 to [`MAX_DMLS_EPOCH_BYTES`] bytes.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.is_empty() || bytes.len() > MAX_DMLS_EPOCH_BYTES {
            let reason = format!("expected 1 to {MAX_DMLS_EPOCH_BYTES} bytes, got {}", bytes.len());
            return Err(DecodeError::new("dmls_epoch", reason));
        }
        Ok(DmlsEpoch(bytes.to_vec()))
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for DmlsEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DmlsEpoch(")?;
        self.0.iter().take(6).try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("..)")
    }
}

/// dmls_epoch = DeriveSecret(epoch_secret, "epoch").
pub fn dmls_epoch<C: OpenMlsCrypto>(kdf: &Kdf<'_, C>, epoch_secret: &[u8]) -> Result<DmlsEpoch, CryptoError> {
    Ok(DmlsEpoch(kdf.derive_secret(epoch_secret, "epoch")?.as_slice().to_vec()))
}

/// parent_init_secret = DeriveSecret(epoch_secret, "parent_init"): the root of the epoch's PPRF.
pub fn parent_init_secret<C: OpenMlsCrypto>(
    kdf: &Kdf<'_, C>,
    epoch_secret: &[u8],
) -> Result<Secret, CryptoError> {
    kdf.derive_secret(epoch_secret, "parent_init")
}

/// commit_confirmation = DeriveSecret(path_secret\[n\], "conf"), of the path secret that the commit_secret is derived from.
pub fn commit_confirmation<C: OpenMlsCrypto>(
    kdf: &Kdf<'_, C>,
    path_secret: &[u8],
) -> Result<Secret, CryptoError> {
    kdf.derive_secret(path_secret, "conf")
}

/// input = ExpandWithLabel(commit_confirmation, "child_init", GroupContext of the new epoch, Nh).
pub fn child_init<C: OpenMlsCrypto>(
    kdf: &Kdf<'_, C>,
    commit_confirmation: &[u8],
    new_group_context: &[u8],
) -> Result<Secret, CryptoError> {
    kdf.expand_with_label(commit_confirmation, "child_init", new_group_context, kdf.nh())
}

/// DeriveFSSecret: evaluates and then punctures. Staging a commit must only evaluate, because a commit that turns out to be invalid
/// or is never merged would be burnt; so [`super::crypto::DmlsCrypto`] evaluates and the merge punctures.
pub fn derive_fs_secret<C: OpenMlsCrypto>(
    kdf: &Kdf<'_, C>,
    parent: &mut Pprf,
    input: &[u8],
) -> Result<Secret, PprfError> {
    let output = parent.evaluate(kdf, input)?;
    parent.puncture(kdf, input)?;
    Ok(output)
}
