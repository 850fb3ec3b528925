//! Which client calls: by certificate, by token, or, in development, by its own word.

mod claimed;
mod proven;
mod tokens;

use group_log::ClientId;
use service_kit::{net::PeerInfo, tls::PeerIdentity};
use tonic::{Extensions, metadata::MetadataMap};

pub use claimed::{CLIENT_KEY, TrustMetadata};
pub use proven::CertificateOrToken;
pub use tokens::{TokenKeys, TokenKeysError};

use crate::error::GatewayError;

/// A client that has said who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The client.
    pub client: ClientId,
    /// Seconds since 1970-01-01 00:00 UTC at which its proof ends, and with it every stream that it has opened.
    pub expires_at: Option<u64>,
}

/// What a call shows of its caller.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// What was sent with the call.
    pub metadata: &'a MetadataMap,
    /// Whom the connection's certificate stands for, if it has shown one.
    pub certificate: Option<&'a PeerIdentity>,
}

impl<'a> Caller<'a> {
    /// What a request with this metadata and these extensions shows.
    pub fn of(metadata: &'a MetadataMap, extensions: &'a Extensions) -> Self {
        let certificate = extensions.get::<PeerInfo>().and_then(|info| info.identity.as_deref());
        Self { metadata, certificate }
    }
}

/// Finds out which client calls.
pub trait Authenticator: Send + Sync + 'static {
    /// The client that a call comes from.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`: it does not prove who it is. `PERMISSION_DENIED`: it is somebody, but no client.
    fn authenticate(&self, caller: Caller<'_>) -> Result<Principal, GatewayError>;
}
