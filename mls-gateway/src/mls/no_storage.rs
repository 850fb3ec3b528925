//! OpenMLS wants to store every public state it makes. The gateway keeps them in memory as they are and can rebuild each of them
//! from the cluster, so nothing is stored, and no time goes into serialising trees.

use std::convert::Infallible;

use openmls_traits::{
    public_storage::PublicStorageProvider,
    storage::{CURRENT_VERSION, traits},
};

/// Stores nothing and finds nothing.
pub(super) struct NoStorage;

const V: u16 = CURRENT_VERSION;

impl PublicStorageProvider<V> for NoStorage {
    type PublicError = Infallible;

    fn write_tree<G: traits::GroupId<V>, T: traits::TreeSync<V>>(
        &self,
        _: &G,
        _: &T,
    ) -> Result<(), Infallible> {
        Ok(())
    }

    fn write_interim_transcript_hash<G: traits::GroupId<V>, I: traits::InterimTranscriptHash<V>>(
        &self,
        _: &G,
        _: &I,
    ) -> Result<(), Infallible> {
        Ok(())
    }

    fn write_context<G: traits::GroupId<V>, C: traits::GroupContext<V>>(
        &self,
        _: &G,
        _: &C,
    ) -> Result<(), Infallible> {
        Ok(())
    }

    fn write_confirmation_tag<G: traits::GroupId<V>, C: traits::ConfirmationTag<V>>(
        &self,
        _: &G,
        _: &C,
    ) -> Result<(), Infallible> {
        Ok(())
    }

    fn queue_proposal<G: traits::GroupId<V>, R: traits::ProposalRef<V>, Q: traits::QueuedProposal<V>>(
        &self,
        _: &G,
        _: &R,
        _: &Q,
    ) -> Result<(), Infallible> {
        Ok(())
    }

    fn queued_proposals<G: traits::GroupId<V>, R: traits::ProposalRef<V>, Q: traits::QueuedProposal<V>>(
        &self,
        _: &G,
    ) -> Result<Vec<(R, Q)>, Infallible> {
        Ok(Vec::new())
    }

    fn tree<G: traits::GroupId<V>, T: traits::TreeSync<V>>(&self, _: &G) -> Result<Option<T>, Infallible> {
        Ok(None)
    }

    fn group_context<G: traits::GroupId<V>, C: traits::GroupContext<V>>(
        &self,
        _: &G,
    ) -> Result<Option<C>, Infallible> {
        Ok(None)
    }

    fn interim_transcript_hash<G: traits::GroupId<V>, I: traits::InterimTranscriptHash<V>>(
        &self,
        _: &G,
    ) -> Result<Option<I>, Infallible> {
        Ok(None)
    }

    fn confirmation_tag<G: traits::GroupId<V>, C: traits::ConfirmationTag<V>>(
        &self,
        _: &G,
    ) -> Result<Option<C>, Infallible> {
        Ok(None)
    }

    fn delete_tree<G: traits::GroupId<V>>(&self, _: &G) -> Result<(), Infallible> {
        Ok(())
    }

    fn delete_confirmation_tag<G: traits::GroupId<V>>(&self, _: &G) -> Result<(), Infallible> {
        Ok(())
    }

    fn delete_context<G: traits::GroupId<V>>(&self, _: &G) -> Result<(), Infallible> {
        Ok(())
    }

    fn delete_interim_transcript_hash<G: traits::GroupId<V>>(&self, _: &G) -> Result<(), Infallible> {
        Ok(())
    }

    fn remove_proposal<G: traits::GroupId<V>, R: traits::ProposalRef<V>>(
        &self,
        _: &G,
        _: &R,
    ) -> Result<(), Infallible> {
        Ok(())
    }

    fn clear_proposal_queue<G: traits::GroupId<V>, R: traits::ProposalRef<V>>(
        &self,
        _: &G,
    ) -> Result<(), Infallible> {
        Ok(())
    }
}
