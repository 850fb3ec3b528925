//! Who this client is.

use rusqlite::{OptionalExtension, params};

use super::{IDENTITY, Store, StoreError, namespace};
use zeroize::Zeroizing;

use crate::provider::Values;

/// The identity as it is stored.
pub struct StoredIdentity {
    /// Names the client to gateways, and is the identity in its credential.
    pub client_id: Vec<u8>,
    /// MLS ciphersuite (RFC 9420 section 17.1).
    pub ciphersuite: u16,
    /// The signature key pair, encoded.
    pub signature_key: Zeroizing<Vec<u8>>,
}

impl Store {
    /// The identity, if one was made.
    pub fn identity(&self) -> Result<Option<StoredIdentity>, StoreError> {
        let row =
            self.db().query_row("SELECT client_id, ciphersuite, signature_key FROM identity", [], |row| {
                Ok(StoredIdentity {
                    client_id: row.get(0)?,
                    ciphersuite: row.get(1)?,
                    signature_key: Zeroizing::new(row.get(2)?),
                })
            });
        Ok(row.optional()?)
    }

    /// Stores a new identity. Fails if there is one.
    pub(crate) fn create_identity(&mut self, identity: &StoredIdentity) -> Result<(), StoreError> {
        if self.identity()?.is_some() {
            return Err(StoreError::IdentityExists);
        }
        self.transaction(|tx| {
            tx.execute(
                "INSERT INTO identity (one, client_id, ciphersuite, signature_key) VALUES (1, ?1, ?2, ?3)",
                params![identity.client_id, identity.ciphersuite, *identity.signature_key],
            )?;
            Ok(())
        })
    }

    /// Writes what changed in the identity's namespace.
    pub(crate) fn save_identity_values(&mut self, old: &Values, new: &Values) -> Result<(), StoreError> {
        self.transaction(|tx| namespace::write(tx, IDENTITY, old, new))
    }
}
