//! What DeMLS keeps of one epoch beside the state of OpenMLS.

use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::{
    key_schedule::DmlsEpoch,
    pprf::Pprf,
    secret::{Secret, SecretBuffer},
    wire::{DecodeError, Reader},
};

const VERSION: u8 = 1;

/// The secrets of one epoch that OpenMLS knows only by random handles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochKeys {
    /// Names the state on the wire.
    pub(crate) epoch: DmlsEpoch,
    /// The epoch authenticator, which is how OpenMLS names the same state.
    pub(crate) authenticator: Vec<u8>,
    /// What OpenMLS stores in place of the init secret.
    pub(crate) init_handle: Vec<u8>,
    /// The PPRF rooted in parent_init_secret.
    pub(crate) pprf: Pprf,
    /// What OpenMLS stores in place of the external secret.
    pub(crate) external_handle: Vec<u8>,
    /// The external secret; deleted once the epoch is only retained.
    pub(crate) external_secret: Option<Secret>,
    /// For an own commit that is not settled yet: the input at which the parent is to be punctured.
    pub(crate) parent_input: Option<Secret>,
}

/// Every secret in it is a [`Secret`] or a [`Pprf`]. The handles are random and open nothing; the authenticator and the name of the epoch
/// are shown to others.
impl ZeroizeOnDrop for EpochKeys {}

impl EpochKeys {
    /// The name of the state on the wire.
    pub fn epoch(&self) -> &DmlsEpoch {
        &self.epoch
    }

    /// The PPRF of the epoch.
    pub fn pprf(&self) -> &Pprf {
        &self.pprf
    }

    /// Whether external commits can still be processed in this epoch.
    pub fn accepts_external_commits(&self) -> bool {
        self.external_secret.is_some()
    }

    /// Whether this is the outcome of an own commit that has not been settled.
    pub fn is_pending(&self) -> bool {
        self.parent_input.is_some()
    }

    /// For the outcome of an own commit that is not settled: the input at which the parent is to be punctured.
    pub fn pending_input(&self) -> Option<&Secret> {
        self.parent_input.as_ref()
    }

    /// Encodes everything. The bytes are as secret as the epoch.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let pprf = self.pprf.encode();
        let mut out = SecretBuffer::with_capacity(pprf.len() + 256);
        out.push(VERSION);
        out.vector(self.epoch.as_slice());
        out.vector(&self.authenticator);
        out.vector(&self.init_handle);
        out.vector(&self.external_handle);
        out.optional(self.external_secret.as_ref().map(Secret::as_slice));
        out.optional(self.parent_input.as_ref().map(Secret::as_slice));
        out.vector(&pprf);
        out.into_bytes()
    }

    /// Reads what [`EpochKeys::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("epoch keys", bytes);
        match reader.byte()? {
            VERSION => {}
            other => return Err(reader.error(format!("expected version {VERSION}, got {other}"))),
        }
        let keys = EpochKeys {
            epoch: DmlsEpoch::from_slice(reader.vector()?)?,
            authenticator: reader.vector()?.to_vec(),
            init_handle: reader.vector()?.to_vec(),
            external_handle: reader.vector()?.to_vec(),
            external_secret: reader.optional()?.map(Secret::from_slice),
            parent_input: reader.optional()?.map(Secret::from_slice),
            pprf: Pprf::decode(reader.vector()?)?,
        };
        reader.finish()?;
        Ok(keys)
    }
}
