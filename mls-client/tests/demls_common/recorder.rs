//! Real crypto that records what it is asked.

use std::{collections::HashSet, sync::Mutex, thread::ThreadId};

use openmls::prelude::{tls_codec::SecretVLBytes, *};
use openmls_rust_crypto::RustCrypto;

/// Real crypto that records what it is asked.
#[derive(Default)]
pub struct Recorder {
    pub inner: RustCrypto,
    /// Threads that it was called from.
    pub threads: Mutex<HashSet<ThreadId>>,
    /// Keys and messages.
    pub hmacs: Mutex<Vec<(Vec<u8>, Vec<u8>)>>,
    /// What HKDF gave.
    pub derived: Mutex<Vec<Derived>>,
}

/// An output of HKDF with 32 bytes, and whence it came.
pub struct Derived {
    /// The label of an expansion, without its prefix; nothing for an extraction.
    pub label: Option<String>,
    /// Masked with [`MASK`], so that the record is no copy of the secret.
    pub masked: [u8; 32],
    /// What it was expanded from (or the salt of an extraction), masked alike; nothing if that had another length.
    pub from: Option<[u8; 32]>,
}

/// What recorded secrets are XORed with.
pub const MASK: u8 = 0x5a;

impl Recorder {
    fn here(&self) -> &RustCrypto {
        self.threads.lock().unwrap().insert(std::thread::current().id());
        &self.inner
    }

    fn record(&self, label: Option<&str>, prk: &[u8], output: &SecretVLBytes) {
        if let Some(output) = masked(output.as_slice()) {
            let derived = Derived { label: label.map(str::to_owned), masked: output, from: masked(prk) };
            self.derived.lock().unwrap().push(derived);
        }
    }
}

fn masked(secret: &[u8]) -> Option<[u8; 32]> {
    <&[u8; 32]>::try_from(secret).ok().map(|secret| secret.map(|byte| byte ^ MASK))
}

/// The label in the `info` of an expansion of MLS 1.0, all of whose labels are short.
fn label(info: &[u8]) -> Option<&str> {
    let length = usize::from(*info.get(2)?);
    std::str::from_utf8(info.get(3..3 + length)?).ok()?.strip_prefix("MLS 1.0 ")
}

impl OpenMlsRand for Recorder {
    type Error = <RustCrypto as OpenMlsRand>::Error;

    fn random_array<const N: usize>(&self) -> Result<[u8; N], Self::Error> {
        self.inner.random_array()
    }

    fn random_vec(&self, len: usize) -> Result<Vec<u8>, Self::Error> {
        self.inner.random_vec(len)
    }
}

impl OpenMlsCrypto for Recorder {
    fn supports(&self, ciphersuite: Ciphersuite) -> Result<(), CryptoError> {
        self.inner.supports(ciphersuite)
    }
    fn supported_ciphersuites(&self) -> Vec<Ciphersuite> {
        self.inner.supported_ciphersuites()
    }
    fn hkdf_extract(&self, hash: HashType, salt: &[u8], ikm: &[u8]) -> Result<SecretVLBytes, CryptoError> {
        let output = self.here().hkdf_extract(hash, salt, ikm)?;
        self.record(None, salt, &output);
        Ok(output)
    }
    fn hmac(&self, hash: HashType, key: &[u8], message: &[u8]) -> Result<SecretVLBytes, CryptoError> {
        self.hmacs.lock().unwrap().push((key.to_vec(), message.to_vec()));
        self.here().hmac(hash, key, message)
    }
    fn hkdf_expand(
        &self,
        hash: HashType,
        prk: &[u8],
        info: &[u8],
        len: usize,
    ) -> Result<SecretVLBytes, CryptoError> {
        let output = self.here().hkdf_expand(hash, prk, info, len)?;
        self.record(label(info), prk, &output);
        Ok(output)
    }
    fn hash(&self, hash: HashType, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.here().hash(hash, data)
    }
    fn aead_encrypt(
        &self,
        alg: AeadType,
        key: &[u8],
        data: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.here().aead_encrypt(alg, key, data, nonce, aad)
    }
    fn aead_decrypt(
        &self,
        alg: AeadType,
        key: &[u8],
        ct_tag: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.here().aead_decrypt(alg, key, ct_tag, nonce, aad)
    }
    fn signature_key_gen(&self, alg: SignatureScheme) -> Result<(Vec<u8>, Vec<u8>), CryptoError> {
        self.here().signature_key_gen(alg)
    }
    fn verify_signature(
        &self,
        alg: SignatureScheme,
        data: &[u8],
        pk: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        self.here().verify_signature(alg, data, pk, signature)
    }
    fn sign(&self, alg: SignatureScheme, data: &[u8], key: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.here().sign(alg, data, key)
    }
    fn hpke_seal(
        &self,
        config: HpkeConfig,
        pk: &[u8],
        info: &[u8],
        aad: &[u8],
        ptxt: &[u8],
    ) -> Result<HpkeCiphertext, CryptoError> {
        self.here().hpke_seal(config, pk, info, aad, ptxt)
    }
    fn hpke_open(
        &self,
        config: HpkeConfig,
        input: &HpkeCiphertext,
        sk: &[u8],
        info: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.here().hpke_open(config, input, sk, info, aad)
    }
    fn hpke_setup_sender_and_export(
        &self,
        config: HpkeConfig,
        pk: &[u8],
        info: &[u8],
        context: &[u8],
        length: usize,
    ) -> Result<(KemOutput, ExporterSecret), CryptoError> {
        self.here().hpke_setup_sender_and_export(config, pk, info, context, length)
    }
    fn hpke_setup_receiver_and_export(
        &self,
        config: HpkeConfig,
        enc: &[u8],
        sk: &[u8],
        info: &[u8],
        context: &[u8],
        length: usize,
    ) -> Result<ExporterSecret, CryptoError> {
        self.here().hpke_setup_receiver_and_export(config, enc, sk, info, context, length)
    }
    fn derive_hpke_keypair(&self, config: HpkeConfig, ikm: &[u8]) -> Result<HpkeKeyPair, CryptoError> {
        self.here().derive_hpke_keypair(config, ikm)
    }
}
