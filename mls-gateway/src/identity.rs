//! Who calls.

use group_log::ClientId;
use tonic::metadata::MetadataMap;

use crate::error::GatewayError;

/// The metadata key in which a caller names its client.
pub const CLIENT_KEY: &str = "concordat-client-bin";

/// Finds out which client calls.
pub trait Authenticator: Send + Sync + 'static {
    /// The client that a call with this metadata comes from.
    fn client(&self, metadata: &MetadataMap) -> Result<ClientId, GatewayError>;
}

/// Believes what the caller says. Only for networks in which every caller is trusted.
#[derive(Debug, Clone, Copy, Default)]
pub struct TrustMetadata;

impl Authenticator for TrustMetadata {
    fn client(&self, metadata: &MetadataMap) -> Result<ClientId, GatewayError> {
        let refuse = |what: &str| {
            GatewayError::Unauthenticated(format!(
                "{what}; name the client in the metadata key `{CLIENT_KEY}` (1 to 128 bytes)"
            ))
        };
        let value = metadata.get_bin(CLIENT_KEY).ok_or_else(|| refuse("the call names no client"))?;
        let bytes = value.to_bytes().map_err(|_| refuse("the client's name is not valid base64"))?;
        ClientId::new(bytes).map_err(|error| refuse(&error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use concordat_proto::log::v1::Reason;
    use tonic::metadata::MetadataValue;

    use super::*;

    fn named(name: &[u8]) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        metadata.insert_bin(CLIENT_KEY, MetadataValue::from_bytes(name));
        metadata
    }

    #[test]
    fn a_named_client_is_believed() {
        assert_eq!(TrustMetadata.client(&named(b"alice")).unwrap().as_bytes(), b"alice");
    }

    #[test]
    fn a_caller_without_a_usable_name_is_refused() {
        for metadata in [MetadataMap::new(), named(b""), named(&[7; 129])] {
            assert_eq!(TrustMetadata.client(&metadata).unwrap_err().reason(), Reason::Unauthenticated);
        }
    }
}
