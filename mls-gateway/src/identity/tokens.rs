//! Signed tokens (JWT, RFC 7519, with EdDSA or ES256), and the keys that they are checked with.

use std::{
    fs, io,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use group_log::ClientId;
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header,
    errors::ErrorKind,
    jwk::{AlgorithmParameters, EllipticCurve, JwkSet},
};
use lru::LruCache;
use parking_lot::{Mutex, RwLock};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::time::interval;
use tokio_util::task::AbortOnDropHandle;

use super::Principal;
use crate::{
    error::GatewayError,
    limits::{TOKEN_BYTES_MAX, TOKEN_KEYS_MAX, TOKENS_REMEMBERED},
    metrics,
};

/// The keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenKeysError {
    /// The file cannot be read.
    #[error("cannot read the token keys {path}: {source}")]
    Read {
        /// Where.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// The file holds something else.
    #[error(
        "the token keys {path}: expected a JWKS or PEM with 1 to {TOKEN_KEYS_MAX} public keys for EdDSA (Ed25519) or ES256 (P-256), \
         got {got}"
    )]
    Content {
        /// Where.
        path: PathBuf,
        /// What it holds.
        got: String,
    },
}

/// Checks tokens. The keys are read again when their file changes.
pub struct TokenKeys {
    shared: Arc<Shared>,
    _reload: AbortOnDropHandle<()>,
}

struct Shared {
    audience: String,
    keys: RwLock<Vec<Key>>,
    /// Tokens that were checked, by their hash, so that a call with a known one costs no signature check.
    known: Mutex<LruCache<[u8; 32], Principal>>,
}

struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: u64,
    #[serde(default)]
    nbf: u64,
}

impl TokenKeys {
    /// Reads the keys from a JWKS or PEM file, and looks every `every` whether it has changed. Tokens must be for `audience`. Needs a
    /// tokio runtime.
    ///
    /// # Errors
    /// The file is not usable now. A later change that is not usable leaves the old keys in force.
    pub fn load(path: &Path, audience: &str, every: Duration) -> Result<Self, TokenKeysError> {
        let bytes = read(path)?;
        let keys = RwLock::new(parse(path, &bytes)?);
        let bound = const { NonZeroUsize::new(TOKENS_REMEMBERED).expect("the bound is not zero") };
        let known = Mutex::new(LruCache::new(bound));
        let shared = Arc::new(Shared { audience: audience.to_owned(), keys, known });
        let task = tokio::spawn(reload(Arc::clone(&shared), path.to_owned(), bytes, every));
        Ok(Self { shared, _reload: AbortOnDropHandle::new(task) })
    }

    /// Whom a token stands for at `now` (seconds since 1970).
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, with what is wrong. The token itself is never repeated.
    pub fn check(&self, token: &str, now: u64) -> Result<Principal, GatewayError> {
        let refuse = |why: &str| GatewayError::Unauthenticated(format!("the token is not taken: {why}"));
        if token.len() > TOKEN_BYTES_MAX {
            return Err(refuse(&format!("expected at most {TOKEN_BYTES_MAX} bytes, got {}", token.len())));
        }
        let hash: [u8; 32] = Sha256::digest(token).into();
        let known = self.shared.known.lock().get(&hash).cloned();
        let principal = match known {
            Some(principal) => principal,
            None => {
                let (principal, not_before) = self.shared.verify(token).map_err(|why| refuse(&why))?;
                if not_before > now {
                    return Err(refuse("it is not valid yet (nbf)"));
                }
                self.shared.known.lock().put(hash, principal.clone());
                principal
            }
        };
        if principal.expires_at.is_none_or(|at| at <= now) {
            return Err(refuse("it has expired (exp); get a new one"));
        }
        Ok(principal)
    }
}

impl Shared {
    fn verify(&self, token: &str) -> Result<(Principal, u64), String> {
        let header = decode_header(token).map_err(|_| "expected a JWT".to_owned())?;
        if !matches!(header.alg, Algorithm::EdDSA | Algorithm::ES256) {
            return Err("expected the algorithm EdDSA or ES256".into());
        }
        let mut validation = Validation::new(header.alg);
        validation.set_audience(&[&self.audience]);
        validation.set_required_spec_claims(&["exp", "sub", "aud"]);
        // Times are held against the clock that was passed in.
        (validation.validate_exp, validation.validate_nbf) = (false, false);
        let mut error = "no key of this gateway has signed it".to_owned();
        for key in self.keys.read().iter().filter(|key| key.fits(header.alg, header.kid.as_deref())) {
            match decode::<Claims>(token, &key.key, &validation) {
                Ok(data) => {
                    let client =
                        ClientId::new(data.claims.sub.into_bytes()).map_err(|e| format!("sub: {e}"))?;
                    let principal = Principal { client, expires_at: Some(data.claims.exp) };
                    return Ok((principal, data.claims.nbf));
                }
                Err(e) => match e.kind() {
                    ErrorKind::InvalidSignature => {}
                    ErrorKind::InvalidAudience => error = format!("expected the audience {}", self.audience),
                    ErrorKind::MissingRequiredClaim(claim) => error = format!("the claim {claim} is missing"),
                    _ => error = "its claims are not usable: expected sub, exp and aud".into(),
                },
            }
        }
        Err(error)
    }
}

impl Key {
    fn fits(&self, algorithm: Algorithm, id: Option<&str>) -> bool {
        self.algorithm == algorithm && (id.is_none() || self.id.is_none() || id == self.id.as_deref())
    }
}

async fn reload(shared: Arc<Shared>, path: PathBuf, mut seen: Vec<u8>, every: Duration) {
    let mut ticks = interval(every);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let result = match read(&path) {
            Ok(bytes) if bytes == seen => continue,
            Ok(bytes) => {
                let parsed = parse(&path, &bytes);
                seen = bytes;
                parsed
            }
            Err(error) => Err(error),
        };
        match result {
            Ok(keys) => {
                *shared.keys.write() = keys;
                // A key that was taken away must not live on in tokens that it has signed.
                shared.known.lock().clear();
                metrics::token_keys_reload("published");
                tracing::info!("new token keys are in use");
            }
            Err(error) => {
                metrics::token_keys_reload("refused");
                tracing::error!(%error, "the old token keys stay in use");
            }
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TokenKeysError> {
    fs::read(path).map_err(|source| TokenKeysError::Read { path: path.to_owned(), source })
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<Key>, TokenKeysError> {
    let wrong = |got: String| TokenKeysError::Content { path: path.to_owned(), got };
    let text = std::str::from_utf8(bytes).map_err(|_| wrong("something else than text".into()))?;
    let keys = if text.trim_start().starts_with('{') { from_jwks(text) } else { from_pem(text) };
    let keys = keys.map_err(wrong)?;
    if keys.is_empty() || keys.len() > TOKEN_KEYS_MAX {
        return Err(TokenKeysError::Content { path: path.to_owned(), got: format!("{} keys", keys.len()) });
    }
    Ok(keys)
}

fn from_jwks(text: &str) -> Result<Vec<Key>, String> {
    let set: JwkSet = serde_json::from_str(text).map_err(|e| format!("JSON that is no JWKS ({e})"))?;
    let mut keys = Vec::new();
    for jwk in set.keys {
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::OctetKeyPair(p) if p.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
            AlgorithmParameters::EllipticCurve(p) if p.curve == EllipticCurve::P256 => Algorithm::ES256,
            _ => return Err("a key of another kind".into()),
        };
        let key = DecodingKey::from_jwk(&jwk).map_err(|e| format!("a key that does not decode ({e})"))?;
        keys.push(Key { id: jwk.common.key_id, algorithm, key });
    }
    Ok(keys)
}

fn from_pem(text: &str) -> Result<Vec<Key>, String> {
    const END: &str = "-----END PUBLIC KEY-----";
    let mut keys = Vec::new();
    for block in text.split_inclusive(END).filter(|block| !block.trim().is_empty()) {
        let start = block.find("-----BEGIN PUBLIC KEY-----").ok_or("text that is no public key")?;
        let pem = &block.as_bytes()[start..];
        let key = DecodingKey::from_ed_pem(pem)
            .map(|key| (Algorithm::EdDSA, key))
            .or_else(|_| DecodingKey::from_ec_pem(pem).map(|key| (Algorithm::ES256, key)));
        let (algorithm, key) = key.map_err(|_| "a key of another kind")?;
        keys.push(Key { id: None, algorithm, key });
    }
    Ok(keys)
}
