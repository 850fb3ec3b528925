//! From the bytes of files to what rustls works with. Everything is checked here, before anybody uses it.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::{
    credentials::{Contents, Files},
    error::TlsError,
    identity::PeerIdentity,
};

/// HTTP/2 over TLS, for those who ask (RFC 9113 section 3.2).
const ALPN: &[u8] = b"h2";

/// What credentials amount to.
#[derive(Debug)]
pub(super) struct Configs {
    /// Accepts only those who show a certificate of the CA.
    pub(super) proven: Arc<ServerConfig>,
    /// Accepts also those who show none.
    pub(super) open: Arc<ServerConfig>,
    /// Shows the certificate, and takes only servers of the CA.
    pub(super) client: Arc<ClientConfig>,
    /// Whom the certificate stands for; a public server's certificate names nobody.
    pub(super) identity: Option<PeerIdentity>,
    /// Seconds since 1970 at which the certificate ends.
    pub(super) expires_at: u64,
}

/// Builds everything out of the contents of files, and checks that the certificate holds now.
pub(super) fn build(files: &Files, contents: &Contents, now_ms: u64) -> Result<Configs, TlsError> {
    super::install_crypto_provider();
    let chain = certificates("certificate", &files.certificate, &contents.certificate)?;
    let first =
        chain.first().ok_or_else(|| content("certificate", &files.certificate, "it holds no certificate"))?;
    let identity = PeerIdentity::of_certificate(first)
        .map_err(|source| TlsError::Identity { path: files.certificate.clone(), source })?;
    let expires_at =
        expiry(first).ok_or_else(|| content("certificate", &files.certificate, "it does not decode"))?;
    let key = || {
        PrivateKeyDer::from_pem_slice(&contents.key)
            .map_err(|error| content("key", &files.key, &error.to_string()))
    };
    let roots = Arc::new(roots(&files.ca, &contents.ca)?);
    let verifier = |optional: bool| {
        let builder = WebPkiClientVerifier::builder(Arc::clone(&roots));
        let builder = if optional { builder.allow_unauthenticated() } else { builder };
        builder.build().map_err(|error| content("CA file", &files.ca, &error.to_string()))
    };
    let required = verifier(false)?;
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_millis(now_ms));
    if identity.is_some() {
        // What one's own peers would refuse is refused here first.
        required.verify_client_cert(first, &chain[1..], now).map_err(|error| TlsError::Unverified {
            path: files.certificate.clone(),
            problem: error.to_string(),
        })?;
    } else if u128::from(expires_at) * 1000 <= u128::from(now_ms) {
        return Err(TlsError::Unverified {
            path: files.certificate.clone(),
            problem: "it has expired".into(),
        });
    }
    let pair =
        |error: rustls::Error| TlsError::Pair { path: files.certificate.clone(), problem: error.to_string() };
    let server = |verifier: Arc<dyn ClientCertVerifier>| -> Result<Arc<ServerConfig>, TlsError> {
        let mut config = ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key()?)
            .map_err(pair)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // A resumed session would be of a certificate that was checked long ago.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    };
    let mut client = ClientConfig::builder()
        .with_root_certificates(Arc::clone(&roots))
        .with_client_auth_cert(chain.clone(), key()?)
        .map_err(pair)?;
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.resumption = Resumption::disabled();
    Ok(Configs {
        proven: server(required)?,
        open: server(verifier(true)?)?,
        client: Arc::new(client),
        identity,
        expires_at,
    })
}

/// A client that shows nothing, and takes servers of these CAs (PEM), or of those that the system trusts.
pub(super) fn anonymous_client(ca: Option<(&std::path::Path, &[u8])>) -> Result<ClientConfig, TlsError> {
    super::install_crypto_provider();
    let roots = match ca {
        Some((path, bytes)) => roots(path, bytes)?,
        None => {
            let mut store = RootCertStore::empty();
            // Roots that do not decode are left out, as every other program on the machine does.
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            store
        }
    };
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn roots(path: &std::path::Path, bytes: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates("CA file", path, bytes)? {
        store.add(certificate).map_err(|error| content("CA file", path, &error.to_string()))?;
    }
    if store.is_empty() {
        return Err(content("CA file", path, "it holds no certificate"));
    }
    Ok(store)
}

fn certificates(
    what: &'static str,
    path: &std::path::Path,
    bytes: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| content(what, path, &error.to_string()))
}

fn expiry(certificate: &[u8]) -> Option<u64> {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    u64::try_from(certificate.validity().not_after.timestamp()).ok()
}

fn content(what: &'static str, path: &std::path::Path, problem: &str) -> TlsError {
    TlsError::Content { what, path: path.to_owned(), problem: problem.to_owned() }
}
