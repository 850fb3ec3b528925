//! The flags by which both services are given their credentials.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{
    access::Gatekeeper,
    credentials::{Credentials, Files},
    error::TlsError,
    identity::{PeerIdentity, Role},
};
use crate::{
    clock::SystemClock,
    limits::{CONNECTION_AGE_SECONDS, TLS_RELOAD_INTERVAL_SECONDS},
};

/// Certificates, or none for development.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct TlsArgs {
    /// This process's certificate (PEM), with its intermediates. Its SAN URI spiffe://DOMAIN/concordat/ROLE/NAME says who it is.
    #[arg(long, env = "CONCORDAT_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's key (PEM).
    #[arg(long, env = "CONCORDAT_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// The CAs whose certificates are taken (PEM).
    #[arg(long, env = "CONCORDAT_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// How often to look whether certificate, key or CA have changed.
    #[arg(long, env = "CONCORDAT_TLS_RELOAD_SECONDS", value_name = "SECONDS", default_value_t = TLS_RELOAD_INTERVAL_SECONDS, value_parser = clap::value_parser!(u64).range(1..))]
    pub tls_reload_seconds: u64,
    /// After how long connections are made anew, so that certificates are shown again [default: 3600].
    #[arg(long, env = "CONCORDAT_TLS_CONNECTION_SECONDS", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub tls_connection_seconds: Option<u64>,
    /// Serve without TLS and believe what callers say about who they are. Loopback only.
    #[arg(long, env = "CONCORDAT_INSECURE_DEV", conflicts_with_all = ["tls_cert", "tls_key", "tls_ca"])]
    pub insecure_dev: bool,
}

/// How a process is secured.
#[derive(Debug, Clone)]
pub enum Security {
    /// Plaintext on loopback.
    InsecureDev,
    /// TLS with these credentials, which stand for this identity.
    Tls(Credentials, PeerIdentity),
}

impl TlsArgs {
    /// Reads the credentials, whose certificate must be for a role that `fits`; `expected` says which. Needs a tokio runtime.
    ///
    /// # Errors
    /// Nothing or not everything is named, or the files are not usable.
    pub fn security(&self, expected: &str, fits: impl Fn(&Role) -> bool) -> Result<Security, TlsError> {
        match (&self.tls_cert, &self.tls_key, &self.tls_ca) {
            (Some(_), ..) | (_, Some(_), _) | (.., Some(_)) if self.insecure_dev => {
                Err(TlsError::Arguments("--insecure-dev does without certificates: leave it out, or them"))
            }
            (Some(certificate), Some(key), Some(ca)) => {
                let files = Files { certificate: certificate.clone(), key: key.clone(), ca: ca.clone() };
                let every = Duration::from_secs(self.tls_reload_seconds.max(1));
                let credentials = Credentials::load("internal", files, SystemClock::shared(), every)?
                    .with_connection_age(self.connection_age());
                let identity = credentials.require(certificate, expected, fits)?;
                Ok(Security::Tls(credentials, identity))
            }
            (None, None, None) if self.insecure_dev => Ok(Security::InsecureDev),
            (None, None, None) => Err(TlsError::Arguments(
                "name --tls-cert, --tls-key and --tls-ca (concordat-certs makes them for trying out), \
                 or say --insecure-dev for plaintext on loopback",
            )),
            _ => {
                Err(TlsError::Arguments("--tls-cert, --tls-key and --tls-ca belong together: name all three"))
            }
        }
    }
}

impl TlsArgs {
    /// After how long connections are made anew.
    pub fn connection_age(&self) -> Duration {
        Duration::from_secs(self.tls_connection_seconds.unwrap_or(CONNECTION_AGE_SECONDS))
    }
}

impl Security {
    /// Whether everything is plaintext.
    pub fn is_insecure(&self) -> bool {
        matches!(self, Self::InsecureDev)
    }

    /// Lets in whom these credentials trust.
    pub fn gatekeeper(&self) -> Gatekeeper {
        match self {
            Self::InsecureDev => Gatekeeper::open(),
            Self::Tls(_, identity) => Gatekeeper::of_domain(&identity.domain),
        }
    }
}
