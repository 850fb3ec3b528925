//! Plaintext listeners stay on loopback unless somebody explicitly says otherwise.

use std::{io, net::SocketAddr};

use tokio::net::lookup_host;

/// Why a plaintext listener is not opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is not `host:port`, or its host has no address.
    #[error("the {what} address `{address}` is not usable: {source}; expected host:port")]
    Unusable {
        /// Which listener.
        what: &'static str,
        /// As configured.
        address: String,
        /// What went wrong.
        source: io::Error,
    },
    /// Others than this machine could reach the listener.
    #[error(
        "the {what} address `{address}` is not loopback and would accept plaintext from the network; \
         listen on 127.0.0.1 or allow it with {remedy}"
    )]
    NotLoopback {
        /// Which listener.
        what: &'static str,
        /// As configured.
        address: String,
        /// The flag that allows it.
        remedy: &'static str,
    },
}

/// Resolves `address` (`host:port`) for the plaintext listener `what`, and refuses it if it is not loopback and `allowed` is false.
/// `remedy` is the flag that would allow it.
pub async fn plaintext_listen_address(
    what: &'static str,
    address: &str,
    allowed: bool,
    remedy: &'static str,
) -> Result<SocketAddr, ListenError> {
    let unusable = |source| ListenError::Unusable { what, address: address.to_owned(), source };
    let resolved: Vec<SocketAddr> = lookup_host(address).await.map_err(unusable)?.collect();
    let first = *resolved.first().ok_or_else(|| unusable(io::ErrorKind::NotFound.into()))?;
    // A name may stand for several addresses: each one has to be harmless.
    if !allowed && !resolved.iter().all(|a| a.ip().is_loopback()) {
        return Err(ListenError::NotLoopback { what, address: address.to_owned(), remedy });
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(address: &str, allowed: bool) -> Result<SocketAddr, ListenError> {
        plaintext_listen_address("admin", address, allowed, "--allow-plaintext").await
    }

    #[tokio::test]
    async fn only_loopback_passes_unless_allowed() {
        assert!(check("127.0.0.1:0", false).await.is_ok());
        assert!(check("[::1]:1", false).await.is_ok());
        let error = check("0.0.0.0:9000", false).await.unwrap_err();
        assert!(error.to_string().contains("--allow-plaintext"), "{error}");
        assert!(check("0.0.0.0:9000", true).await.is_ok());
    }

    #[tokio::test]
    async fn an_unusable_address_is_named() {
        for bad in ["", "nonsense", "127.0.0.1", "127.0.0.1:99999"] {
            assert!(matches!(check(bad, true).await, Err(ListenError::Unusable { .. })), "{bad}");
        }
    }
}
