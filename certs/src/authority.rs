//! The CA and what it issues.

use std::{io, path::PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use service_kit::tls::{PeerIdentity, Role};
use time::{Duration, OffsetDateTime};

/// Why there is no certificate or token.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// A certificate cannot be made of this.
    #[error("the certificate cannot be made: {0}; check the names")]
    Make(#[from] rcgen::Error),
    /// A token cannot be signed.
    #[error("the token cannot be signed: {0}")]
    Sign(#[from] jsonwebtoken::errors::Error),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Where.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// There is a CA already.
    #[error("{0} exists: choose another folder, or issue more certificates with `concordat-certs issue`")]
    Exists(PathBuf),
}

/// From when until when a certificate is valid.
#[derive(Debug, Clone, Copy)]
pub struct Lifetime {
    /// The first moment.
    pub not_before: OffsetDateTime,
    /// The last one.
    pub not_after: OffsetDateTime,
}

impl Lifetime {
    /// From now, with an hour for clocks that are late, for so many days.
    pub fn days(days: u32) -> Self {
        let now = OffsetDateTime::now_utc();
        Self { not_before: now - Duration::HOUR, not_after: now + Duration::days(days.into()) }
    }

    /// Over since an hour.
    pub fn expired() -> Self {
        let now = OffsetDateTime::now_utc();
        Self { not_before: now - Duration::HOUR * 2, not_after: now - Duration::HOUR }
    }
}

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its key. Secret.
    pub key: String,
}

/// A CA of one trust domain.
pub struct Authority {
    domain: String,
    issuer: Issuer<'static, KeyPair>,
    issued: Issued,
}

impl Authority {
    /// A new CA.
    ///
    /// # Errors
    /// The domain has letters that a certificate cannot hold.
    pub fn new(domain: &str, lifetime: Lifetime) -> Result<Self, CertsError> {
        let mut params = params(&format!("concordat CA {domain}"), lifetime);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let issued = Issued { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() };
        Ok(Self { domain: domain.to_owned(), issuer: Issuer::new(params, key), issued })
    }

    /// The CA that was made before.
    ///
    /// # Errors
    /// It is not one.
    pub fn load(domain: &str, issued: Issued) -> Result<Self, CertsError> {
        let key = KeyPair::from_pem(&issued.key)?;
        let issuer = Issuer::from_ca_cert_pem(&issued.certificate, key)?;
        Ok(Self { domain: domain.to_owned(), issuer, issued })
    }

    /// The CA's own certificate (PEM), which everybody has to know.
    pub fn certificate(&self) -> &str {
        &self.issued.certificate
    }

    /// The CA's own key (PEM). Secret.
    pub fn key(&self) -> &str {
        &self.issued.key
    }

    /// A certificate for `role`, reachable as `hosts` (DNS names and IP addresses).
    ///
    /// # Errors
    /// A host is none.
    pub fn issue(&self, role: &Role, hosts: &[String], lifetime: Lifetime) -> Result<Issued, CertsError> {
        let mut params = params(&format!("concordat {}", role.kind().name()), lifetime);
        let uri = PeerIdentity::uri(&self.domain, role);
        params.subject_alt_names = CertificateParams::new(hosts.to_vec())?.subject_alt_names;
        params.subject_alt_names.push(SanType::URI(uri.try_into()?));
        self.sign(params)
    }

    /// A certificate for a host that names no role, as public servers have.
    ///
    /// # Errors
    /// A host is none.
    pub fn issue_public(&self, hosts: &[String], lifetime: Lifetime) -> Result<Issued, CertsError> {
        let mut params = params("concordat public", lifetime);
        params.subject_alt_names = CertificateParams::new(hosts.to_vec())?.subject_alt_names;
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> Result<Issued, CertsError> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

fn params(name: &str, lifetime: Lifetime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (lifetime.not_before, lifetime.not_after);
    params
}
