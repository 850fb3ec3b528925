//! `ExpandWithLabel` and `DeriveSecret` (RFC 9420 section 8), and the reverse: reading a `KDFLabel`.

use openmls_traits::{
    crypto::OpenMlsCrypto,
    types::{CryptoError, HashType},
};

use super::{
    secret::{Secret, SecretBuffer},
    wire::Reader,
};

const PREFIX: &[u8] = b"MLS 1.0 ";

/// The key derivation of a ciphersuite: HKDF with its hash.
pub struct Kdf<'a, C> {
    crypto: &'a C,
    hash: HashType,
}

impl<'a, C: OpenMlsCrypto> Kdf<'a, C> {
    /// HKDF with `hash`, computed by `crypto`.
    pub fn new(crypto: &'a C, hash: HashType) -> Self {
        Kdf { crypto, hash }
    }

    /// KDF.Nh: the size of its secrets, in bytes.
    pub fn nh(&self) -> usize {
        self.hash.size()
    }

    /// KDF.Extract.
    pub fn extract(&self, salt: &[u8], ikm: &[u8]) -> Result<Secret, CryptoError> {
        Ok(Secret::from_slice(self.crypto.hkdf_extract(self.hash, salt, ikm)?.as_slice()))
    }

    /// ExpandWithLabel(secret, label, context, length), RFC 9420 section 8.
    pub fn expand_with_label(
        &self,
        secret: &[u8],
        label: &str,
        context: &[u8],
        length: usize,
    ) -> Result<Secret, CryptoError> {
        let length_field = u16::try_from(length).map_err(|_| CryptoError::KdfLabelTooLarge)?;
        let mut info = SecretBuffer::with_capacity(2 + 8 + PREFIX.len() + label.len() + context.len());
        info.extend(&length_field.to_be_bytes());
        info.vector(&[PREFIX, label.as_bytes()].concat());
        info.vector(context);
        let expanded = self.crypto.hkdf_expand(self.hash, secret, &info.into_bytes(), length)?;
        Ok(Secret::from_slice(expanded.as_slice()))
    }

    /// DeriveSecret(secret, label): ExpandWithLabel with an empty context and KDF.Nh bytes.
    pub fn derive_secret(&self, secret: &[u8], label: &str) -> Result<Secret, CryptoError> {
        self.expand_with_label(secret, label, &[], self.nh())
    }
}

/// What an `info` argument of HKDF-Expand says, if it is a `KDFLabel` of MLS 1.0.
pub(crate) struct KdfLabel<'a> {
    /// The label without its prefix "MLS 1.0 ".
    pub(crate) label: &'a [u8],
    pub(crate) context: &'a [u8],
}

impl<'a> KdfLabel<'a> {
    pub(crate) fn parse(info: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new("KDFLabel", info);
        reader.take(2).ok()?;
        let label = reader.vector().ok()?.strip_prefix(PREFIX)?;
        let context = reader.vector().ok()?;
        reader.finish().ok()?;
        Some(KdfLabel { label, context })
    }
}
