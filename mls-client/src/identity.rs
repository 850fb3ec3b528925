//! Who a client is: its id, its credential and its signature key.

use group_log::ClientId;
use openmls::prelude::tls_codec::{Deserialize, Serialize};
use openmls::prelude::{
    BasicCredential, Capabilities, Ciphersuite, Credential, CredentialWithKey, ExtensionType,
};
use openmls_basic_credential::SignatureKeyPair;
use zeroize::Zeroizing;

use crate::{
    error::Error,
    store::{Store, StoreError, StoredIdentity},
};

/// The ciphersuite of a client that chooses none: MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519 (0x0001).
pub const DEFAULT_CIPHERSUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

/// A client's identity. The client id is the identity in its basic credential (RFC 9420 section 5.3).
#[derive(Debug)]
pub struct Identity {
    client_id: ClientId,
    ciphersuite: Ciphersuite,
    signer: SignatureKeyPair,
}

impl Identity {
    /// Makes a new identity and stores it. Fails if the store holds one.
    pub fn create(
        store: &mut Store,
        client_id: ClientId,
        ciphersuite: Ciphersuite,
    ) -> Result<Identity, Error> {
        let signer = SignatureKeyPair::new(ciphersuite.signature_algorithm())
            .map_err(|e| Error::mls("making a signature key", e))?;
        let encoded = Zeroizing::new(
            signer.tls_serialize_detached().map_err(|e| Error::mls("encoding a signature key", e))?,
        );
        store.create_identity(&StoredIdentity {
            client_id: client_id.as_bytes().to_vec(),
            ciphersuite: ciphersuite.into(),
            signature_key: encoded,
        })?;
        Ok(Identity { client_id, ciphersuite, signer })
    }

    /// The identity in a store, if one was made.
    pub fn load(store: &Store) -> Result<Option<Identity>, Error> {
        let Some(stored) = store.identity()? else { return Ok(None) };
        let damaged = |detail: String| StoreError::damaged("identity", detail);
        let signer = SignatureKeyPair::tls_deserialize_exact(stored.signature_key.as_slice())
            .map_err(|e| damaged(e.to_string()))?;
        let ciphersuite = Ciphersuite::try_from(stored.ciphersuite).map_err(|e| damaged(format!("{e:?}")))?;
        let client_id = ClientId::new(stored.client_id).map_err(|e| damaged(e.to_string()))?;
        Ok(Some(Identity { client_id, ciphersuite, signer }))
    }

    /// Names the client to gateways and to other members.
    pub fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    /// The ciphersuite of this client's KeyPackages and of the groups that it creates.
    pub fn ciphersuite(&self) -> Ciphersuite {
        self.ciphersuite
    }

    pub(crate) fn signer(&self) -> &SignatureKeyPair {
        &self.signer
    }

    pub(crate) fn credential(&self) -> CredentialWithKey {
        CredentialWithKey {
            credential: BasicCredential::new(self.client_id.as_bytes().to_vec()).into(),
            signature_key: self.signer.public().into(),
        }
    }
}

/// What every leaf of this client says that it can do.
pub(crate) fn capabilities(ciphersuite: Ciphersuite) -> Capabilities {
    Capabilities::builder()
        .ciphersuites(vec![ciphersuite])
        .extensions(vec![ExtensionType::LastResort])
        .build()
}

/// The client id in a credential. Credentials of other types show their raw content.
pub(crate) fn client_id_of(credential: &Credential) -> &[u8] {
    credential.serialized_content()
}
