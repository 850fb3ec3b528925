//! How a client proves who it is, and whom it takes for a gateway.

use std::{fs, path::PathBuf, time::Duration};

use service_kit::{
    clock::SystemClock,
    net::SharedNetwork,
    tls::{Credentials, Files, TlsNetwork, public_client_network},
};
use tonic::{
    Code,
    metadata::{Ascii, MetadataValue},
};

use super::CallError;
use crate::error::Error;

/// How often the client's certificate is looked at.
const RELOAD: Duration = Duration::from_secs(30);

/// What a client shows to a gateway over TLS: a certificate, a token, or both.
#[derive(Debug, Clone, Default)]
pub struct Security {
    /// The CAs whose gateways are taken (PEM); without it those that the system trusts.
    pub ca: Option<PathBuf>,
    /// The client's certificate and its key (PEM). Needs `ca`.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// A file with the client's token (JWT). Read for every call, so that a new one can be put in its place.
    pub token: Option<PathBuf>,
}

impl Security {
    /// TLS over `network`. Needs a tokio runtime.
    pub(super) fn over(&self, network: SharedNetwork) -> Result<SharedNetwork, Error> {
        let unusable = |error: service_kit::tls::TlsError| Error::Invalid(error.to_string());
        match (&self.certificate, &self.ca) {
            (Some((certificate, key)), Some(ca)) => {
                let files = Files { certificate: certificate.clone(), key: key.clone(), ca: ca.clone() };
                let credentials = Credentials::load("client", files, SystemClock::shared(), RELOAD);
                Ok(TlsNetwork::public_client(network, credentials.map_err(unusable)?))
            }
            (Some(_), None) => Err(Error::Invalid(
                "a client certificate needs the CA of the gateways, too: name it (--ca)".into(),
            )),
            (None, ca) => public_client_network(network, ca.as_deref()).map_err(unusable),
        }
    }

    /// The header that carries the token, if there is one.
    pub(super) fn token(&self) -> Result<Option<MetadataValue<Ascii>>, CallError> {
        let Some(path) = &self.token else { return Ok(None) };
        let refuse = |why: String| {
            let message = format!("the token file {}: {why}", path.display());
            CallError { code: Code::Unauthenticated, message, ..CallError::lost("") }
        };
        let token = fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
        let mut value = MetadataValue::try_from(format!("Bearer {}", token.trim()))
            .map_err(|_| refuse("it holds no token".into()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}
