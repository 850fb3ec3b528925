//! Reads and checks KeyPackages (RFC 9420 section 10).

use bytes::Bytes;
use openmls::prelude::{MlsMessageBodyIn, OpenMlsCrypto, ProtocolVersion};

use super::parse::{ParseError, Problem, decode};
use crate::limits::KEY_PACKAGE_BYTES_MAX;

/// What the directory needs to know of a KeyPackage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedKeyPackage {
    /// Its KeyPackageRef (RFC 9420 section 5.2).
    pub key_package_ref: Bytes,
    /// It carries the last_resort extension (RFC 9420 section 16.8).
    pub last_resort: bool,
    /// The identity in its leaf's credential.
    pub identity: Vec<u8>,
}

/// Reads a KeyPackage and checks what a member would check before adding it: both signatures, the lifetime, the extensions.
/// What fails here could never be used, and would only be in the way of the ones that can.
pub fn key_package(crypto: &impl OpenMlsCrypto, bytes: &Bytes) -> Result<ParsedKeyPackage, ParseError> {
    const WHAT: &str = "key_packages";
    let invalid = |detail: String| ParseError::new(WHAT, Problem::Invalid { detail });
    let MlsMessageBodyIn::KeyPackage(package) =
        decode(WHAT, bytes, KEY_PACKAGE_BYTES_MAX, &[5], "mls_key_package")?
    else {
        return Err(ParseError::new(
            WHAT,
            Problem::Type { expected: "mls_key_package", got: "another".into() },
        ));
    };
    let package = package.validate(crypto, ProtocolVersion::Mls10).map_err(|e| invalid(e.to_string()))?;
    let reference = package.hash_ref(crypto).map_err(|e| invalid(e.to_string()))?;
    Ok(ParsedKeyPackage {
        key_package_ref: Bytes::copy_from_slice(reference.as_slice()),
        last_resort: package.last_resort(),
        identity: package.leaf_node().credential().serialized_content().to_vec(),
    })
}
