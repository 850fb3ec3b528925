//! Snapshots. Every node's state is durable by itself, so building one is a flush. Sending one streams the rows of one moment;
//! receiving one fills a new generation of the shard's column families, which takes the place of the old one at once.

mod frames;
mod receiver;
mod sender;

use std::sync::Arc;

use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf};

pub use self::{receiver::SnapshotReceiver, sender::SnapshotStream};
use super::{error::StorageError, state::shard::ShardState};
use crate::raft::types::TypeConfig;

/// The last entry that a snapshot covers, and the membership at that point.
pub type SnapshotMeta = SnapshotMetaOf<TypeConfig>;
/// A snapshot as openraft passes it on.
pub type Snapshot = SnapshotOf<TypeConfig, SnapshotHandle>;

/// A snapshot to be sent, or one that was received and waits to be installed.
pub struct SnapshotHandle(Kind);

enum Kind {
    OfState { state: Arc<ShardState>, keep: Arc<dyn Send + Sync> },
    Received(receiver::Staged),
}

impl SnapshotHandle {
    pub(crate) fn of_state(state: Arc<ShardState>, keep: Arc<dyn Send + Sync>) -> Self {
        SnapshotHandle(Kind::OfState { state, keep })
    }

    fn received(staged: receiver::Staged) -> Self {
        SnapshotHandle(Kind::Received(staged))
    }

    /// Streams the snapshot in chunks of about [`SNAPSHOT_CHUNK_BYTES`](crate::storage::limits::SNAPSHOT_CHUNK_BYTES).
    ///
    /// The rows are those of the moment of this call, so the stream may cover more than the metadata that came with the
    /// handle. The receiver's [`SnapshotReceiver::finish`] says what it covers.
    pub fn chunks(self) -> SnapshotStream {
        match self.0 {
            Kind::OfState { state, keep } => sender::stream(state, keep),
            Kind::Received(_) => sender::failed(StorageError::Invalid(
                "a received snapshot can only be installed, not sent on".into(),
            )),
        }
    }

    /// Puts the snapshot in the place of a shard's state.
    pub(crate) async fn install(
        self,
        meta: &SnapshotMeta,
        state: &Arc<ShardState>,
    ) -> Result<(), StorageError> {
        let staged = match self.0 {
            Kind::Received(staged) => staged,
            // Within one process: what would go over the network goes straight into a receiver.
            Kind::OfState { state: of, keep } => {
                let mut receiver = SnapshotReceiver::new(state.clone(), keep.clone())?;
                let mut chunks = sender::stream(of, keep);
                while let Some(chunk) = futures::StreamExt::next(&mut chunks).await {
                    receiver.write(chunk?)?;
                }
                match receiver.finish()?.1.0 {
                    Kind::Received(staged) => staged,
                    Kind::OfState { .. } => return Err(StorageError::Invalid("nothing was received".into())),
                }
            }
        };
        staged.install(meta, state).await
    }
}

impl std::fmt::Debug for SnapshotHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match &self.0 {
            Kind::OfState { .. } => "SnapshotHandle(of this node's state)",
            Kind::Received(_) => "SnapshotHandle(received)",
        })
    }
}
