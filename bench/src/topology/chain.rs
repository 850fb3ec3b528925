//! Real MLS commits, made before the load begins: one member after another epoch, all encrypted (RFC 9420 section 6.3).

use std::sync::PoisonError;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use openmls::prelude::{tls_codec::Serialize, *};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;

pub(crate) const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

/// One group from its creation on. The first commit adds all other members, the later ones renew the committer's keys.
///
/// Only the founder ever commits, so the tree has no keys above the other leaves, and a commit encrypts to each of them: commits are as
/// large as groups of that size ever make them.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    pub(crate) id: Vec<u8>,
    pub(crate) group_info: Bytes,
    /// The commit that ends epoch 0, 1, ...
    pub(crate) commits: Vec<Bytes>,
    /// What the founder stores in the end, keys of values included.
    pub(crate) stored_bytes: usize,
}

impl Chain {
    /// A group with the given id of a founder and the owners of `others`. A commit takes about a millisecond in a small group, and a tenth of
    /// a second with a thousand members.
    pub(crate) fn build(id: &[u8], others: &[KeyPackage], commits: usize) -> anyhow::Result<Self> {
        let provider = OpenMlsRustCrypto::default();
        let (signer, credential) = member(0)?;
        let mut group = MlsGroup::builder()
            .with_group_id(GroupId::from_slice(id))
            .ciphersuite(SUITE)
            .with_wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
            .build(&provider, &signer, credential)
            .context("creating a group")?;
        let info = group.export_group_info(provider.crypto(), &signer, false)?;
        let mut made = Vec::with_capacity(commits);
        if !others.is_empty() {
            let (commit, _, _) = group
                .add_members(&provider, &signer, others)
                .map_err(|error| anyhow!("adding {} members: {error}", others.len()))?;
            made.push(commit.to_bytes()?.into());
            group.merge_pending_commit(&provider)?;
        }
        while made.len() < commits {
            let bundle = group
                .self_update(&provider, &signer, LeafNodeParameters::default())
                .map_err(|error| anyhow!("a commit: {error}"))?;
            made.push(bundle.into_commit().to_bytes()?.into());
            group.merge_pending_commit(&provider)?;
        }
        let values = provider.storage().values.read().unwrap_or_else(PoisonError::into_inner);
        let stored_bytes = values.iter().map(|(key, value)| key.len() + value.len()).sum();
        let group_info = info.tls_serialize_detached()?.into();
        Ok(Self { id: id.to_vec(), group_info, commits: made, stored_bytes })
    }

    /// The commit of another member for the same epoch, as servers see it: of the same length, and not the same bytes.
    pub(crate) fn rival(&self, epoch: usize, number: u8) -> Option<Bytes> {
        let mut bytes = self.commits.get(epoch)?.to_vec();
        // The end of the ciphertext: its framing stays what it is.
        let last = bytes.last_mut()?;
        *last = last.wrapping_add(number);
        Some(bytes.into())
    }

    /// Mean length of the commits after the first one.
    pub(crate) fn commit_bytes(&self) -> usize {
        let later = self.commits.get(1..).unwrap_or_default();
        later.iter().map(Bytes::len).sum::<usize>().checked_div(later.len()).unwrap_or(0)
    }
}

/// A member's name and key.
pub(crate) fn member(number: usize) -> anyhow::Result<(SignatureKeyPair, CredentialWithKey)> {
    let signer =
        SignatureKeyPair::new(SUITE.signature_algorithm()).map_err(|error| anyhow!("a key: {error:?}"))?;
    let credential = CredentialWithKey {
        credential: BasicCredential::new(format!("member-{number}").into_bytes()).into(),
        signature_key: signer.to_public_vec().into(),
    };
    Ok((signer, credential))
}

/// A member's KeyPackage, with its private keys.
pub(crate) fn key_package(number: usize, provider: &OpenMlsRustCrypto) -> anyhow::Result<KeyPackageBundle> {
    let (signer, credential) = member(number)?;
    Ok(KeyPackage::builder().build(SUITE, provider, &signer, credential)?)
}

/// The same as others get it.
pub(crate) fn public_key_package(number: usize) -> anyhow::Result<KeyPackage> {
    Ok(key_package(number, &OpenMlsRustCrypto::default())?.key_package().clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rivals_are_of_the_same_length_and_differ() {
        let others = [1, 2].map(|number| public_key_package(number).unwrap());
        let chain = Chain::build(b"group", &others, 4).unwrap();
        assert_eq!(chain.commits.len(), 4);
        let (first, second) = (chain.rival(2, 1).unwrap(), chain.rival(2, 2).unwrap());
        assert!(first.len() == chain.commits[2].len() && first != second && first != chain.commits[2]);
        assert!(chain.rival(4, 1).is_none());
        assert!(chain.commit_bytes() > 200);
    }
}
