//! Coming into somebody's Send Group by a Welcome, for the first time or because the own leaf was replaced.

use openmls::prelude::KeyPackageRef;
use openmls::prelude::{
    KeyPackageBundle, MlsMessageBodyIn, MlsMessageIn, ProcessedWelcome, Welcome, tls_codec::Deserialize,
};
use openmls_traits::{OpenMlsProvider, storage::StorageProvider};

use super::{Event, Member, Node, Records, Session, apply::Fail};
use crate::dimls::{
    error::{DimlsError, Rejected},
    group::{SendGroup, Space, join_config},
    limits::GENERATIONS_KEPT,
    psk,
    removal::spent_generations,
};

/// A Welcome, with what the commit beside it says.
pub(super) struct Invitation<'a> {
    pub(super) welcome: &'a [u8],
    /// The epoch that the commit ends.
    pub(super) epoch: u64,
    /// The generation of this client's KeyPackages that was used.
    pub(super) generation: u64,
    pub(super) takes: &'a [Node],
    pub(super) update: bool,
}

impl<R: Records> Session<R> {
    /// Joins the Send Group of `from`. All PSKs are held. What this client had of that Send Group before is deleted with the keys of
    /// its old leaf.
    pub(super) fn join(&mut self, from: Member, invitation: &Invitation<'_>) -> Result<Vec<Event>, Fail> {
        if self.graph.entered(from).is_some_and(|entered| invitation.epoch < entered) {
            return Err(Rejected::Replayed(format!("a Welcome to epoch {}", invitation.epoch + 1)).into());
        }
        let failed = |e: &dyn std::fmt::Display| Fail::Rejected(Rejected::Mls(e.to_string()));
        let space = Space::empty(&self.crypto);
        let reference = self.lend_key_package(&space, invitation.generation)?;
        let needed = invitation.takes.iter().filter_map(|node| {
            let id = psk::psk_id(node.epoch, &self.send_group(node.owner));
            self.psks.get(node).map(|secret| (id, secret))
        });
        let lent = psk::lend(&space.provider, needed)?;
        let processed =
            ProcessedWelcome::new_from_welcome(&space.provider, &join_config(), read(invitation.welcome)?)
                .map_err(|e| failed(&e))?;
        let staged = processed.into_staged_welcome(&space.provider, None).map_err(|e| failed(&e))?;

        // Only the owner, at leaf 0, welcomes anybody into its Send Group.
        let owner = staged.welcome_sender().map_err(|e| failed(&e))?;
        let key = owner.signature_key().as_slice();
        let id = group_log::ClientId::new(crate::identity::client_id_of(owner.credential()).to_vec()).ok();
        if staged.welcome_sender_index().u32() != 0 || id.and_then(|id| self.known(&id, key)) != Some(from) {
            return Err(Rejected::NotOwner("another member".into()).into());
        }
        let context = staged.group_context();
        if context.group_id().as_slice() != self.send_group(from).as_bytes() {
            return Err(Rejected::ForeignGroup.into());
        }
        if context.epoch().as_u64() != invitation.epoch + 1 {
            return Err(Rejected::Lies("the Welcome leads to another epoch").into());
        }
        let mls = staged.into_group(&space.provider).map_err(|e| failed(&e))?;
        lent.take_back(&space.provider)?;
        space
            .provider
            .storage()
            .delete_key_package(&reference)
            .map_err(|e| DimlsError::mls("deleting a KeyPackage", e))?;
        let group = SendGroup { space, mls };
        group.members(|client, key| self.known(client, key))?;

        let number = usize::from(from);
        let old = self.groups[number].take().map(|old| old.space);
        let SendGroup { space, mls } = group;
        self.groups[number] = Some(SendGroup { space: space.replacing(old), mls });
        self.peers[number].lost = false;
        self.record.said_lost.remove(&from);
        self.peers[number].uses = Some(invitation.generation);
        let events = self.moved_on(from, invitation.update, invitation.takes)?;
        self.drop_spent_generations()?;
        Ok(events)
    }

    /// Puts a copy of one's own KeyPackage where OpenMLS looks for it.
    fn lend_key_package(&self, space: &Space, generation: u64) -> Result<KeyPackageRef, Fail> {
        let missing = || Fail::Rejected(Rejected::NotJoined);
        let reference = self.record.held.get(&generation).ok_or_else(missing)?;
        let reference: KeyPackageRef = openmls::prelude::tls_codec::Deserialize::tls_deserialize_exact(
            [&[reference.0.len() as u8][..], &reference.0].concat(),
        )
        .map_err(|e| DimlsError::Damaged(e.to_string()))?;
        let bundle: Option<KeyPackageBundle> = self
            .keys
            .provider
            .storage()
            .key_package(&reference)
            .map_err(|e| DimlsError::Damaged(e.to_string()))?;
        space
            .provider
            .storage()
            .write_key_package(&reference, &bundle.ok_or_else(missing)?)
            .map_err(|e| DimlsError::mls("lending a KeyPackage", e))?;
        Ok(reference)
    }

    /// Deletes the private parts of KeyPackages that no owner will use any more: forward secrecy of the own leaves.
    pub(super) fn drop_spent_generations(&mut self) -> Result<(), DimlsError> {
        let held = self.record.held.keys().copied().collect();
        let owners = self.record.removals.remaining(self.peers.len());
        let uses = owners
            .iter()
            .filter(|owner| **owner != self.me)
            .map(|owner| self.peers[usize::from(*owner)].uses);
        for generation in spent_generations(&held, uses, GENERATIONS_KEPT) {
            let Some(reference) = self.record.held.remove(&generation) else { continue };
            let reference: KeyPackageRef = openmls::prelude::tls_codec::Deserialize::tls_deserialize_exact(
                [&[reference.0.len() as u8][..], &reference.0].concat(),
            )
            .map_err(|e| DimlsError::Damaged(e.to_string()))?;
            self.keys
                .provider
                .storage()
                .delete_key_package(&reference)
                .map_err(|e| DimlsError::mls("deleting a KeyPackage", e))?;
        }
        Ok(())
    }
}

fn read(welcome: &[u8]) -> Result<Welcome, Rejected> {
    let message = MlsMessageIn::tls_deserialize_exact(welcome)
        .map_err(|e| Rejected::Malformed(format!("the Welcome: {e}")))?;
    match message.extract() {
        MlsMessageBodyIn::Welcome(welcome) => Ok(welcome),
        _ => Err(Rejected::Malformed("expected a Welcome".into())),
    }
}
