//! Clients that prove who they are.

use group_log::ClientId;
use service_kit::{clock::SharedClock, tls::Role};

use super::{Authenticator, Caller, Principal, tokens::TokenKeys};
use crate::error::GatewayError;

/// The metadata key that carries a token.
const TOKEN_KEY: &str = "authorization";
const TOKEN_PREFIX: &str = "Bearer ";

/// Takes a certificate of the role client, or a signed token. Whoever shows both must be the same client by both.
pub struct CertificateOrToken {
    domain: String,
    tokens: Option<TokenKeys>,
    clock: SharedClock,
}

impl CertificateOrToken {
    /// Certificates must be of the trust domain `domain`; tokens are taken if there are keys to check them with.
    pub fn new(domain: String, tokens: Option<TokenKeys>, clock: SharedClock) -> Self {
        Self { domain, tokens, clock }
    }

    fn by_certificate(&self, caller: Caller<'_>) -> Result<Option<Principal>, GatewayError> {
        let Some(identity) = caller.certificate else { return Ok(None) };
        let denied = |expected: &str, got: &str| {
            GatewayError::denied(format!(
                "expected a certificate of the role client in the trust domain {expected}, got {got}"
            ))
        };
        if identity.domain != self.domain {
            return Err(denied(&self.domain, &format!("one of the trust domain {}", identity.domain)));
        }
        let Role::Client(id) = &identity.role else {
            return Err(denied(&self.domain, &format!("the role {}", identity.role.kind().name())));
        };
        // The connection may be older than its certificate's end.
        if identity.expires_at <= self.clock.now_ms() / 1000 {
            return Err(GatewayError::Unauthenticated(
                "the certificate has expired: connect with a new one".into(),
            ));
        }
        let client =
            ClientId::new(id.clone()).map_err(|error| GatewayError::Unauthenticated(error.to_string()))?;
        Ok(Some(Principal { client, expires_at: Some(identity.expires_at) }))
    }

    fn by_token(&self, caller: Caller<'_>) -> Result<Option<Principal>, GatewayError> {
        let Some(value) = caller.metadata.get(TOKEN_KEY) else { return Ok(None) };
        let refuse = |why: &str| Err(GatewayError::Unauthenticated(format!("the token is not taken: {why}")));
        let Some(tokens) = &self.tokens else {
            return refuse("this gateway has no keys for tokens; show a client certificate");
        };
        match value.to_str().ok().and_then(|text| text.strip_prefix(TOKEN_PREFIX)) {
            Some(token) => tokens.check(token, self.clock.now_ms() / 1000).map(Some),
            None => refuse("expected `authorization: Bearer TOKEN`"),
        }
    }
}

impl Authenticator for CertificateOrToken {
    fn authenticate(&self, caller: Caller<'_>) -> Result<Principal, GatewayError> {
        match (self.by_certificate(caller)?, self.by_token(caller)?) {
            (Some(one), Some(other)) if one.client != other.client => {
                Err(GatewayError::denied("the token is another client's than the certificate"))
            }
            (Some(one), Some(other)) => {
                let expires_at = one.expires_at.into_iter().chain(other.expires_at).min();
                Ok(Principal { expires_at, ..one })
            }
            (Some(one), None) | (None, Some(one)) => Ok(one),
            (None, None) => Err(GatewayError::Unauthenticated(
                "the call proves nobody: connect with a client certificate, or send a token in `authorization: Bearer`"
                    .into(),
            )),
        }
    }
}
