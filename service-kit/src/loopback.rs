//! Plaintext listeners stay on loopback.

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
         listen on 127.0.0.1, or give this process certificates (--tls-cert, --tls-key, --tls-ca)"
    )]
    NotLoopback {
        /// Which listener.
        what: &'static str,
        /// As configured.
        address: String,
    },
}

/// Resolves `address` (`host:port`) for the plaintext listener `what`, and refuses it if it is not loopback.
///
/// # Errors
/// It is not loopback, or no address at all.
pub async fn loopback_address(what: &'static str, address: &str) -> Result<SocketAddr, ListenError> {
    let unusable = |source| ListenError::Unusable { what, address: address.to_owned(), source };
    let resolved: Vec<SocketAddr> = lookup_host(address).await.map_err(unusable)?.collect();
    let first = *resolved.first().ok_or_else(|| unusable(io::ErrorKind::NotFound.into()))?;
    // A name may stand for several addresses: each one has to be harmless.
    if !resolved.iter().all(|a| a.ip().is_loopback()) {
        return Err(ListenError::NotLoopback { what, address: address.to_owned() });
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_loopback_passes() {
        assert!(loopback_address("admin", "127.0.0.1:0").await.is_ok());
        assert!(loopback_address("admin", "[::1]:1").await.is_ok());
        let error = loopback_address("admin", "0.0.0.0:9000").await.unwrap_err();
        assert!(error.to_string().contains("--tls-cert"), "{error}");
    }

    #[tokio::test]
    async fn an_unusable_address_is_named() {
        for bad in ["", "nonsense", "127.0.0.1", "127.0.0.1:99999"] {
            assert!(
                matches!(loopback_address("admin", bad).await, Err(ListenError::Unusable { .. })),
                "{bad}"
            );
        }
    }
}
