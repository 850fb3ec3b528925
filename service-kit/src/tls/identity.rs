//! Whom a certificate stands for.

use std::fmt::{self, Write};

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::limits::{IDENTITY_NAME_BYTES_MAX, TRUST_DOMAIN_BYTES_MAX};

/// The holder of a certificate: `spiffe://DOMAIN/concordat/ROLE/NAME` among its SAN URIs, and until when it is valid.
///
/// DOMAIN names the cluster. Bytes of NAME other than letters, digits, `-`, `.`, `_` are percent-encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The trust domain: only holders of one domain speak to one another.
    pub domain: String,
    /// What the holder may be.
    pub role: Role,
    /// Seconds since 1970-01-01 00:00 UTC at which the certificate ends.
    pub expires_at: u64,
}

/// What a certificate lets its holder be.
#[derive(Clone, PartialEq, Eq)]
pub enum Role {
    /// The ordering node with this number; without one, whichever its storage holds (`node/any`).
    Node(Option<u64>),
    /// A gateway.
    Gateway(String),
    /// A person or a program that runs the cluster.
    Operator(String),
    /// The client with this id: 1 to 128 bytes.
    Client(Vec<u8>),
}

/// A role without its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleKind {
    /// See [`Role::Node`].
    Node,
    /// See [`Role::Gateway`].
    Gateway,
    /// See [`Role::Operator`].
    Operator,
    /// See [`Role::Client`].
    Client,
}

/// A certificate does not say whom it stands for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not an X.509 certificate.
    #[error("expected an X.509 certificate, got bytes that do not decode")]
    Undecodable,
    /// Several names.
    #[error("expected one SAN URI spiffe://DOMAIN/concordat/ROLE/NAME, got {0}")]
    Several(usize),
    /// A SAN URI of ours that is not well-formed.
    #[error(
        "expected a SAN URI spiffe://DOMAIN/concordat/ROLE/NAME with the role node (and a number or `any`), gateway, operator or client; \
         the certificate's is another"
    )]
    Malformed,
}

impl RoleKind {
    /// As it stands in the URI.
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Gateway => "gateway",
            Self::Operator => "operator",
            Self::Client => "client",
        }
    }
}

impl Role {
    /// The role without its name.
    pub fn kind(&self) -> RoleKind {
        match self {
            Self::Node(_) => RoleKind::Node,
            Self::Gateway(_) => RoleKind::Gateway,
            Self::Operator(_) => RoleKind::Operator,
            Self::Client(_) => RoleKind::Client,
        }
    }

    /// Reads `ROLE/NAME` as it stands in a URI.
    pub fn from_path(path: &str) -> Option<Self> {
        let (kind, name) = path.split_once('/')?;
        let name = decode(name)?;
        if name.is_empty() || name.len() > IDENTITY_NAME_BYTES_MAX {
            return None;
        }
        match kind {
            "client" => Some(Self::Client(name)),
            "node" if name == b"any" => Some(Self::Node(None)),
            "node" => {
                let text = String::from_utf8(name).ok()?;
                // One number has one spelling.
                text.parse()
                    .ok()
                    .filter(|id: &u64| *id > 0 && id.to_string() == text)
                    .map(|id| Self::Node(Some(id)))
            }
            "gateway" => String::from_utf8(name).ok().map(Self::Gateway),
            "operator" => String::from_utf8(name).ok().map(Self::Operator),
            _ => None,
        }
    }

    /// `ROLE/NAME` as it stands in a URI.
    pub fn to_path(&self) -> String {
        let name = match self {
            Self::Node(None) => "any".to_owned(),
            Self::Node(Some(id)) => id.to_string(),
            Self::Gateway(name) | Self::Operator(name) => encode(name.as_bytes()),
            Self::Client(id) => encode(id),
        };
        format!("{}/{name}", self.kind().name())
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Client ids do not belong in logs.
            Self::Client(_) => f.write_str("client"),
            other => f.write_str(&other.to_path()),
        }
    }
}

impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/concordat/{}", self.domain, self.role)
    }
}

impl PeerIdentity {
    /// The URI that stands for a role in a trust domain.
    pub fn uri(domain: &str, role: &Role) -> String {
        format!("spiffe://{domain}/concordat/{}", role.to_path())
    }

    /// Reads a certificate (DER). Nothing if it names no role here, as the certificate of a public server does not.
    ///
    /// # Errors
    /// It is no certificate, or its name of ours is malformed or not the only one.
    pub fn of_certificate(der: &[u8]) -> Result<Option<Self>, IdentityError> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| IdentityError::Undecodable)?;
        let expires_at = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
        let names =
            certificate.subject_alternative_name().map_err(|_| IdentityError::Undecodable)?.into_iter();
        let uris: Vec<&str> = names
            .flat_map(|names| &names.value.general_names)
            .filter_map(|name| match name {
                GeneralName::URI(uri) if uri.starts_with("spiffe://") => Some(*uri),
                _ => None,
            })
            .collect();
        match uris[..] {
            [] => Ok(None),
            [uri] => {
                let (domain, role) = parse(uri).ok_or(IdentityError::Malformed)?;
                Ok(Some(Self { domain, role, expires_at }))
            }
            _ => Err(IdentityError::Several(uris.len())),
        }
    }
}

fn parse(uri: &str) -> Option<(String, Role)> {
    let (domain, path) = uri.strip_prefix("spiffe://")?.split_once('/')?;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_');
    if domain.is_empty() || domain.len() > TRUST_DOMAIN_BYTES_MAX || !domain.bytes().all(plain) {
        return None;
    }
    Some((domain.to_owned(), Role::from_path(path.strip_prefix("concordat/")?)?))
}

fn encode(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_') {
            text.push(char::from(*byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// Undoes [`encode`], and takes nothing that it would not write: one name has one spelling.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let (byte, after) = match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digits = [*high, *low];
                (u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?, after)
            }
            _ => (*first, after),
        };
        name.push(byte);
        rest = after;
    }
    (encode(&name) == text).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_has_one_spelling() {
        let roles = [
            Role::Node(Some(3)),
            Role::Node(None),
            Role::Gateway("east-1".into()),
            Role::Operator("ann".into()),
            Role::Client(b"ann's phone/\xff%".to_vec()),
        ];
        for role in roles {
            let uri = PeerIdentity::uri("prod.example", &role);
            assert_eq!(parse(&uri), Some(("prod.example".to_owned(), role)), "{uri}");
        }
    }

    #[test]
    fn what_is_not_exactly_a_name_is_none() {
        for uri in [
            "spiffe:///concordat/node/3",
            "spiffe://D/concordat/node/3",
            "spiffe://d/concordat/node/",
            "spiffe://d/concordat/node/0",
            "spiffe://d/concordat/node/03",
            "spiffe://d/concordat/node/+3",
            "spiffe://d/concordat/node/3/4",
            "spiffe://d/concordat/king/3",
            "spiffe://d/other/node/3",
            "spiffe://d/concordat/client/a b",
            "spiffe://d/concordat/client/%61",
            "spiffe://d/concordat/client/%ff",
            "spiffe://d/concordat/client/%F",
            "https://d/concordat/node/3",
        ] {
            assert_eq!(parse(uri), None, "{uri}");
        }
        assert_eq!(PeerIdentity::of_certificate(b"junk"), Err(IdentityError::Undecodable));
    }

    #[test]
    fn a_client_id_is_not_shown() {
        let role = Role::Client(b"ann".to_vec());
        assert_eq!(format!("{role:?}"), "client");
        let identity = PeerIdentity { domain: "d".into(), role, expires_at: 0 };
        assert_eq!(identity.to_string(), "spiffe://d/concordat/client");
        assert!(!format!("{identity:?}").contains("ann"));
    }
}
