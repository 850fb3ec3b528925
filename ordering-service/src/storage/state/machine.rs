//! The state machine of one shard, as openraft wants it.

use std::{io, sync::Arc};

use futures::{Stream, TryStreamExt};
use openraft::{
    OptionalSend,
    storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine},
};

use super::{
    apply::{Committed, apply},
    shard::ShardState,
};
use crate::{
    raft::types::{Applied, TypeConfig},
    storage::{
        error::StorageError,
        limits::{APPLY_BATCH_BYTES, APPLY_BATCH_ENTRIES},
        log::{LogId, StoredMembership, codec::entry_bytes},
        snapshot::{Snapshot, SnapshotHandle, SnapshotMeta},
    },
};

/// The state machine of one shard.
pub struct StateMachine {
    pub(crate) state: Arc<ShardState>,
    /// Keeps the database open.
    pub(crate) keep: Arc<dyn Send + Sync>,
}

/// Makes a shard's state durable, which is all that a snapshot needs here.
pub struct SnapshotBuilder {
    state: Arc<ShardState>,
    keep: Arc<dyn Send + Sync>,
}

type Responder = Option<ApplyResponder<TypeConfig>>;

impl StateMachine {
    /// Applies what has gathered, then answers.
    async fn apply_batch(
        &self,
        entries: &mut Vec<Committed>,
        responders: &mut Vec<Responder>,
    ) -> Result<(), StorageError> {
        let Some(last) = entries.last().map(|last| last.entry.log_id.index) else { return Ok(()) };
        // The state must never be durable ahead of the log whose payloads it refers to.
        self.state.log.wait_stored(last).await?;
        let outcomes = apply(&self.state, entries).inspect_err(|error| self.state.queue.fail(error))?;
        for (responder, outcome) in responders.drain(..).zip(outcomes) {
            if let Some(responder) = responder {
                responder.send(Applied(outcome));
            }
        }
        entries.clear();
        Ok(())
    }

    fn snapshot(&self) -> Option<Snapshot> {
        let position = self.state.position();
        position.last_applied?;
        Some(snapshot_at(position.last_applied, &position.membership, &self.state, &self.keep))
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotHandle;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let position = self.state.position();
        Ok((position.last_applied, StoredMembership::clone(&position.membership)))
    }

    async fn apply<Strm>(&mut self, mut committed: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let (mut entries, mut responders, mut bytes) = (Vec::new(), Vec::new(), 0);
        while let Some((entry, responder)) = committed.try_next().await? {
            bytes += entry_bytes(&entry);
            entries.push(Committed { entry, wanted: responder.is_some() });
            responders.push(responder);
            if entries.len() >= APPLY_BATCH_ENTRIES || bytes >= APPLY_BATCH_BYTES {
                self.apply_batch(&mut entries, &mut responders).await?;
                bytes = 0;
            }
        }
        Ok(self.apply_batch(&mut entries, &mut responders).await?)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder { state: self.state.clone(), keep: self.keep.clone() }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotHandle,
    ) -> Result<(), io::Error> {
        Ok(snapshot.install(meta, &self.state).await?)
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self.snapshot())
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotHandle;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let state = self.state.clone();
        let flushed = tokio::task::spawn_blocking(move || state.flush());
        let position = flushed.await.map_err(io::Error::other)??;
        Ok(snapshot_at(position.last_applied, &position.membership, &self.state, &self.keep))
    }
}

fn snapshot_at(
    last_log_id: Option<LogId>,
    membership: &StoredMembership,
    state: &Arc<ShardState>,
    keep: &Arc<dyn Send + Sync>,
) -> Snapshot {
    Snapshot {
        meta: SnapshotMeta { last_log_id, last_membership: membership.clone() },
        snapshot: SnapshotHandle::of_state(state.clone(), keep.clone()),
    }
}
