//! How a gateway is secured: towards nodes, other gateways and clients.

use std::{path::PathBuf, sync::Arc, time::Duration};

use service_kit::{
    clock::SystemClock,
    net::SharedNetwork,
    tls::{ClientProof, Credentials, Files, Gatekeeper, RoleKind, Security, TlsArgs, TlsNetwork},
};

use crate::identity::{Authenticator, CertificateOrToken, TokenKeys, TrustMetadata};

/// The audience of clients' tokens unless configured otherwise.
pub const TOKEN_AUDIENCE: &str = "concordat";

/// How clients are met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientArgs {
    /// The certificate shown to clients (PEM), if not the gateway's own.
    pub client_tls_cert: Option<PathBuf>,
    /// That certificate's key (PEM).
    pub client_tls_key: Option<PathBuf>,
    /// Public keys that sign clients' tokens; without them clients need certificates.
    pub token_keys: Option<PathBuf>,
    /// The audience that clients' tokens must be for.
    pub token_audience: String,
}

/// A gateway's networks, and who is let in.
pub struct Secured {
    /// Towards ordering nodes.
    pub nodes: SharedNetwork,
    /// Towards other gateways, both ways.
    pub gateways: SharedNetwork,
    /// Where clients are listened to: with a certificate of the CA, or with none and a token.
    pub clients: SharedNetwork,
    /// Which client calls.
    pub authenticator: Arc<dyn Authenticator>,
    /// Which gateway calls.
    pub gatekeeper: Gatekeeper,
}

impl Secured {
    /// Reads certificates and keys. Needs a tokio runtime.
    ///
    /// # Errors
    /// Nothing or not everything is named, or a file is not usable.
    pub fn new(network: SharedNetwork, tls: &TlsArgs, clients: &ClientArgs) -> anyhow::Result<Self> {
        let security = tls.security("gateway/NAME", |role| role.kind() == RoleKind::Gateway)?;
        let gatekeeper = security.gatekeeper();
        let (credentials, identity) = match security {
            Security::InsecureDev => {
                return Ok(Self {
                    nodes: network.clone(),
                    gateways: network.clone(),
                    clients: network,
                    authenticator: Arc::new(TrustMetadata),
                    gatekeeper,
                });
            }
            Security::Tls(credentials, identity) => (credentials, identity),
        };
        let (clock, every) = (SystemClock::shared(), Duration::from_secs(tls.tls_reload_seconds.max(1)));
        let shown = match (&clients.client_tls_cert, &clients.client_tls_key, &tls.tls_ca) {
            (Some(certificate), Some(key), Some(ca)) => {
                let files = Files { certificate: certificate.clone(), key: key.clone(), ca: ca.clone() };
                Credentials::load("public", files, clock.clone(), every)?
            }
            _ => credentials.clone(),
        };
        let tokens = match &clients.token_keys {
            Some(path) => Some(TokenKeys::load(path, &clients.token_audience, every)?),
            None => None,
        };
        let over = |credentials: &Credentials, servers, proof| {
            TlsNetwork::over(network.clone(), credentials.clone(), servers, proof)
        };
        Ok(Self {
            nodes: over(&credentials, RoleKind::Node, ClientProof::Certificate),
            gateways: over(&credentials, RoleKind::Gateway, ClientProof::Certificate),
            clients: over(&shown, RoleKind::Gateway, ClientProof::CertificateOrToken),
            authenticator: Arc::new(CertificateOrToken::new(identity.domain, tokens, clock)),
            gatekeeper,
        })
    }

    /// Whether everything is plaintext, and so has to stay on loopback.
    pub fn is_insecure(&self) -> bool {
        self.gatekeeper.is_open()
    }
}
