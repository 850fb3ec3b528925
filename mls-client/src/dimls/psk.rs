//! What carries an epoch of one Send Group into another: `psk = MLS-Exporter("exporter-psk", psk_id, length)` with
//! `psk_id = epoch (8 bytes, big-endian) || Send Group id`.

use group_log::GroupId;
use openmls::{
    prelude::{MlsGroup, PreSharedKeyProposal, Proposal},
    schedule::{PreSharedKeyId, Psk},
};
use openmls_traits::{OpenMlsProvider, random::OpenMlsRand, storage::StorageProvider};

use super::error::DimlsError;
use crate::{demls::Secret, provider::Provider};

/// The label of the draft.
const LABEL: &str = "exporter-psk";

/// Names the PSK of one epoch of one Send Group.
pub(super) fn psk_id(epoch: u64, send_group: &GroupId) -> Vec<u8> {
    [&epoch.to_be_bytes(), send_group.as_bytes()].concat()
}

/// Exports the PSK of the current epoch. OpenMLS cannot export that of a past one, so this has to happen on entering it.
pub(super) fn export(
    mls: &MlsGroup,
    provider: &Provider,
    send_group: &GroupId,
    bytes: u16,
) -> Result<Secret, DimlsError> {
    let id = psk_id(mls.epoch().as_u64(), send_group);
    let secret = mls
        .export_secret(provider.crypto(), LABEL, &id, bytes.into())
        .map_err(|e| DimlsError::mls("exporting a PSK", e))?;
    Ok(Secret::from(zeroize::Zeroizing::new(secret)))
}

/// A proposal to take the PSK with this id. The nonce makes each use of it another one.
pub(super) fn proposal(provider: &Provider, id: Vec<u8>, nonce_bytes: usize) -> Result<Proposal, DimlsError> {
    let nonce = provider.rand().random_vec(nonce_bytes).map_err(|e| DimlsError::mls("drawing a nonce", e))?;
    let psk = PreSharedKeyId::external(id, nonce);
    Ok(Proposal::PreSharedKey(Box::new(PreSharedKeyProposal::new(psk))))
}

/// Lends PSKs to OpenMLS for one operation.
pub(super) fn lend<'a>(
    provider: &Provider,
    psks: impl Iterator<Item = (Vec<u8>, &'a Secret)>,
) -> Result<Lent, DimlsError> {
    let mut lent = Vec::new();
    for (id, secret) in psks {
        let psk = PreSharedKeyId::external(id, Vec::new());
        psk.store(provider, secret.as_slice()).map_err(|e| DimlsError::mls("lending a PSK", e))?;
        lent.push(psk.psk().clone());
    }
    Ok(Lent(lent))
}

/// PSKs that OpenMLS has for now.
#[must_use]
pub(super) struct Lent(Vec<Psk>);

impl Lent {
    /// Takes them back.
    pub(super) fn take_back(self, provider: &Provider) -> Result<(), DimlsError> {
        for psk in self.0 {
            provider.storage().delete_psk(&psk).map_err(|e| DimlsError::mls("deleting a PSK", e))?;
        }
        Ok(())
    }
}
