//! The decorator as OpenMLS sees it: what is watched, and what passes through.

use openmls::prelude::tls_codec::SecretVLBytes;
use openmls_traits::{
    crypto::OpenMlsCrypto,
    types::{
        AeadType, Ciphersuite, CryptoError, ExporterSecret, HashType, HpkeCiphertext, HpkeConfig,
        HpkeKeyPair, KemOutput, SignatureScheme,
    },
};

use super::{Backend, CIPHERSUITES, DmlsCrypto, EpochSecret, Path, Placeholder, Role};
use crate::demls::{error::DemlsError, kdf::KdfLabel, secret::Secret};

impl<B: Backend> OpenMlsCrypto for DmlsCrypto<'_, B> {
    fn supports(&self, ciphersuite: Ciphersuite) -> Result<(), CryptoError> {
        if !CIPHERSUITES.contains(&ciphersuite) {
            self.fail(&mut self.seen(), DemlsError::UnsupportedCiphersuite(ciphersuite));
            return Err(CryptoError::UnsupportedCiphersuite);
        }
        self.backend.supports(ciphersuite)
    }

    fn supported_ciphersuites(&self) -> Vec<Ciphersuite> {
        let mut suites = self.backend.supported_ciphersuites();
        suites.retain(|suite| CIPHERSUITES.contains(suite));
        suites
    }

    fn hkdf_extract(&self, hash: HashType, salt: &[u8], ikm: &[u8]) -> Result<SecretVLBytes, CryptoError> {
        if self.parent.is_none_or(|parent| parent.init_handle != salt) {
            return self.backend.hkdf_extract(hash, salt, ikm);
        }
        let mut seen = self.seen();
        if ikm.iter().all(|byte| *byte == 0) {
            return Err(self.fail(&mut seen, DemlsError::CommitWithoutPath));
        }
        let known = seen.paths.iter().find(|path| path.derived.as_slice() == ikm);
        let confirmed_by = match (known, self.role) {
            (Some(path), _) => path.path_secret.clone(),
            // The only member left has no node to derive a path secret for: its commit secret is the path secret, and
            // nobody else ever computes this epoch from it.
            (None, Role::Author) => Secret::from_slice(ikm),
            (None, Role::Receiver) => return Err(self.fail(&mut seen, DemlsError::PathSecretUnknown)),
        };
        let value = self.random(hash.size())?;
        seen.placeholders.push(Placeholder {
            value: Secret::from_slice(&value),
            commit_secret: Secret::from_slice(ikm),
            confirmed_by,
        });
        Ok(value.into())
    }

    fn hkdf_expand(
        &self,
        hash: HashType,
        prk: &[u8],
        info: &[u8],
        okm_len: usize,
    ) -> Result<SecretVLBytes, CryptoError> {
        let Some(label) = KdfLabel::parse(info) else {
            return self.backend.hkdf_expand(hash, prk, info, okm_len);
        };
        let mut seen = self.seen();
        if let Some(index) =
            seen.placeholders.iter().position(|placeholder| placeholder.value.as_slice() == prk)
        {
            if label.label != b"joiner" || label.context.is_empty() {
                return Err(self.fail(&mut seen, DemlsError::UnexpectedUse("another label than joiner")));
            }
            return self.joiner(&mut seen, index, hash, info, label.context, okm_len);
        }
        if let Some(index) = seen.epoch_secrets.iter().position(|epoch| epoch.secret.as_slice() == prk) {
            // The trigger is the epoch secret, not the label: an exporter may use the same labels, and an external joiner
            // expands them on a secret of zeros.
            match label.label {
                b"init" => return self.start_epoch(&mut seen, index, hash),
                b"external" => {
                    return self.start_external(&mut seen.epoch_secrets[index], hash, info, okm_len);
                }
                _ => {}
            }
        }
        let output = self.backend.hkdf_expand(hash, prk, info, okm_len)?;
        match label.label {
            b"epoch" if !label.context.is_empty() => seen
                .epoch_secrets
                .push(EpochSecret { secret: Secret::from_slice(output.as_slice()), external: None }),
            b"path" if label.context.is_empty() => seen.paths.push(Path {
                path_secret: Secret::from_slice(prk),
                derived: Secret::from_slice(output.as_slice()),
            }),
            _ => {}
        }
        Ok(output)
    }

    fn derive_hpke_keypair(&self, config: HpkeConfig, ikm: &[u8]) -> Result<HpkeKeyPair, CryptoError> {
        let resolved = self.resolve_external(&mut self.seen(), ikm)?;
        self.backend.derive_hpke_keypair(config, resolved.as_ref().map_or(ikm, Secret::as_slice))
    }

    // Everything below passes through.

    fn hmac(&self, hash: HashType, key: &[u8], message: &[u8]) -> Result<SecretVLBytes, CryptoError> {
        self.backend.hmac(hash, key, message)
    }

    fn hash(&self, hash: HashType, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.backend.hash(hash, data)
    }

    fn aead_encrypt(
        &self,
        alg: AeadType,
        key: &[u8],
        data: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.backend.aead_encrypt(alg, key, data, nonce, aad)
    }

    fn aead_decrypt(
        &self,
        alg: AeadType,
        key: &[u8],
        ct_tag: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.backend.aead_decrypt(alg, key, ct_tag, nonce, aad)
    }

    fn signature_key_gen(&self, alg: SignatureScheme) -> Result<(Vec<u8>, Vec<u8>), CryptoError> {
        self.backend.signature_key_gen(alg)
    }

    fn verify_signature(
        &self,
        alg: SignatureScheme,
        data: &[u8],
        pk: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        self.backend.verify_signature(alg, data, pk, signature)
    }

    fn sign(&self, alg: SignatureScheme, data: &[u8], key: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.backend.sign(alg, data, key)
    }

    fn hpke_seal(
        &self,
        config: HpkeConfig,
        pk_r: &[u8],
        info: &[u8],
        aad: &[u8],
        ptxt: &[u8],
    ) -> Result<HpkeCiphertext, CryptoError> {
        self.backend.hpke_seal(config, pk_r, info, aad, ptxt)
    }

    fn hpke_open(
        &self,
        config: HpkeConfig,
        input: &HpkeCiphertext,
        sk_r: &[u8],
        info: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.backend.hpke_open(config, input, sk_r, info, aad)
    }

    fn hpke_setup_sender_and_export(
        &self,
        config: HpkeConfig,
        pk_r: &[u8],
        info: &[u8],
        exporter_context: &[u8],
        exporter_length: usize,
    ) -> Result<(KemOutput, ExporterSecret), CryptoError> {
        self.backend.hpke_setup_sender_and_export(config, pk_r, info, exporter_context, exporter_length)
    }

    fn hpke_setup_receiver_and_export(
        &self,
        config: HpkeConfig,
        enc: &[u8],
        sk_r: &[u8],
        info: &[u8],
        exporter_context: &[u8],
        exporter_length: usize,
    ) -> Result<ExporterSecret, CryptoError> {
        self.backend.hpke_setup_receiver_and_export(
            config,
            enc,
            sk_r,
            info,
            exporter_context,
            exporter_length,
        )
    }
}
