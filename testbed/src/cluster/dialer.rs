//! How tests and load reach the processes of a cluster.

use std::fmt;

use service_kit::{
    channel::Channel,
    net::{SharedNetwork, tcp_network},
};
use tonic::transport::Endpoint;

/// Opens connections to processes: in plaintext, or with a certificate.
#[derive(Clone)]
pub struct Dialer {
    network: SharedNetwork,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialer")
    }
}

impl Dialer {
    /// In plaintext, to processes that run with `--insecure-dev`.
    pub fn plaintext() -> Self {
        Self::over(tcp_network())
    }

    /// Over any network.
    pub(super) fn over(network: SharedNetwork) -> Self {
        Self { network }
    }

    /// The network behind it.
    pub fn network(&self) -> &SharedNetwork {
        &self.network
    }

    /// A channel to `address` (host:port) that connects when it is first used. Panics if that is no address.
    pub fn channel(&self, address: &str) -> Channel {
        // The connector encrypts, so to tonic it is a plain connection.
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .unwrap_or_else(|error| panic!("`{address}` is not host:port: {error}"));
        Channel::lazy(&endpoint, self.network.clone())
    }
}
