//! The client that a caller says it is.

use super::{Authenticator, Caller, Principal};
use crate::error::GatewayError;
use group_log::ClientId;

/// The metadata key in which a caller names its client.
pub const CLIENT_KEY: &str = "concordat-client-bin";

/// Believes what the caller says. Only for development on loopback.
#[derive(Debug, Clone, Copy, Default)]
pub struct TrustMetadata;

impl Authenticator for TrustMetadata {
    fn authenticate(&self, caller: Caller<'_>) -> Result<Principal, GatewayError> {
        let refuse = |what: &str| {
            GatewayError::Unauthenticated(format!(
                "{what}; name the client in the metadata key `{CLIENT_KEY}` (1 to 128 bytes)"
            ))
        };
        let value = caller.metadata.get_bin(CLIENT_KEY).ok_or_else(|| refuse("the call names no client"))?;
        let bytes = value.to_bytes().map_err(|_| refuse("the client's name is not valid base64"))?;
        let client = ClientId::new(bytes).map_err(|error| refuse(&error.to_string()))?;
        Ok(Principal { client, expires_at: None })
    }
}

#[cfg(test)]
mod tests {
    use concordat_proto::log::v1::Reason;
    use tonic::metadata::{MetadataMap, MetadataValue};

    use super::*;

    fn named(name: &[u8]) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        metadata.insert_bin(CLIENT_KEY, MetadataValue::from_bytes(name));
        metadata
    }

    fn authenticate(metadata: &MetadataMap) -> Result<Principal, GatewayError> {
        TrustMetadata.authenticate(Caller { metadata, certificate: None })
    }

    #[test]
    fn a_named_client_is_believed() {
        assert_eq!(authenticate(&named(b"alice")).unwrap().client.as_bytes(), b"alice");
    }

    #[test]
    fn a_caller_without_a_usable_name_is_refused() {
        for metadata in [MetadataMap::new(), named(b""), named(&[7; 129])] {
            assert_eq!(authenticate(&metadata).unwrap_err().reason(), Reason::Unauthenticated);
        }
    }
}
