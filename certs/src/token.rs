//! Tokens by which clients prove who they are: JWTs signed with Ed25519.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData};
use serde::Serialize;

use crate::CertsError;

/// Signs tokens.
pub struct TokenSigner {
    key: KeyPair,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    aud: &'a str,
    exp: u64,
    iat: u64,
}

impl TokenSigner {
    /// With a new key.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn new() -> Result<Self, CertsError> {
        Ok(Self { key: KeyPair::generate_for(&PKCS_ED25519)? })
    }

    /// With the key that was made before (PEM).
    ///
    /// # Errors
    /// It is no Ed25519 key.
    pub fn load(key: &str) -> Result<Self, CertsError> {
        Ok(Self { key: KeyPair::from_pem(key)? })
    }

    /// The private key (PEM). Secret.
    pub fn key(&self) -> String {
        self.key.serialize_pem()
    }

    /// The public key (PEM), which gateways have to know.
    pub fn public_key(&self) -> String {
        self.key.public_key_pem()
    }

    /// The raw public key, as a JWKS holds it.
    pub fn public_key_raw(&self) -> Vec<u8> {
        self.key.der_bytes().to_vec()
    }

    /// A token for the client `client`, for gateways of the audience `audience`. It ends `seconds` from now, or before now if that
    /// is negative.
    ///
    /// # Errors
    /// The key does not sign.
    pub fn sign(&self, client: &str, audience: &str, seconds: i64) -> Result<String, CertsError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let claims = Claims { sub: client, aud: audience, exp: now.saturating_add_signed(seconds), iat: now };
        let key = EncodingKey::from_ed_pem(self.key().as_bytes())?;
        Ok(encode(&Header::new(Algorithm::EdDSA), &claims, &key)?)
    }
}
