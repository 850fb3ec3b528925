//! Receives a snapshot into a new generation of the shard's column families. Until it is installed the old generation stays in
//! force; what is left of an attempt that was cut short is dropped at the next start.

use std::{sync::Arc, thread};

use bytes::Bytes;
use rocksdb::WriteBatch;
use tokio::sync::oneshot;

use super::{
    SnapshotHandle, SnapshotMeta,
    frames::{Frame, FrameReader},
};
use crate::raft::types::Membership;
use crate::storage::{
    database::{Generation, payload_key},
    error::StorageError,
    limits::SNAPSHOT_WRITE_BYTES,
    log::{
        LogId, StoredMembership,
        codec::{decode_entry, decode_position, encode_position},
        medium::Change,
    },
    metrics,
    state::{
        keys::{RowKey, RowKind, row_kind},
        rows::encode_number,
        shard::ShardState,
    },
};

/// Takes in the chunks of a snapshot. Dropping it throws away what has come.
pub struct SnapshotReceiver {
    frames: FrameReader,
    batch: WriteBatch,
    header: Option<(Option<LogId>, StoredMembership, Bytes)>,
    staged: Staged,
}

/// A generation that is not in force (yet). Dropping it drops its column families.
pub(super) struct Staged {
    state: Arc<ShardState>,
    keep: Arc<dyn Send + Sync>,
    generation: Generation,
    installed: bool,
}

impl SnapshotReceiver {
    pub(crate) fn new(state: Arc<ShardState>, keep: Arc<dyn Send + Sync>) -> Result<Self, StorageError> {
        let generation = create_next_generation(&state)?;
        let staged = Staged { state, keep, generation, installed: false };
        let (frames, batch) = (FrameReader::new(), WriteBatch::default());
        Ok(SnapshotReceiver { frames, batch, header: None, staged })
    }

    /// Takes in the next chunk. After an error the snapshot can only be dropped.
    pub fn write(&mut self, chunk: Bytes) -> Result<(), StorageError> {
        let labels = [("shard", self.staged.state.shard.to_string()), ("direction", "received".to_owned())];
        ::metrics::counter!(metrics::SNAPSHOT_BYTES_TOTAL, &labels).increment(chunk.len() as u64);
        self.frames.push(&chunk);
        while let Some(frame) = self.frames.next()? {
            self.take(frame)?;
            if self.batch.size_in_bytes() >= SNAPSHOT_WRITE_BYTES {
                self.flush_batch()?;
            }
        }
        Ok(())
    }

    /// The snapshot is complete and durable. Says what it covers.
    pub fn finish(self) -> Result<(SnapshotMeta, SnapshotHandle), StorageError> {
        self.finish_as(None)
    }

    /// The same; the state becomes that of `members`, if any are given, instead of the sender's.
    pub fn finish_as(
        mut self,
        members: Option<Membership>,
    ) -> Result<(SnapshotMeta, SnapshotHandle), StorageError> {
        std::mem::replace(&mut self.frames, FrameReader::new()).finish()?;
        let Some((last_log_id, mut last_membership, mut position)) = self.header.take() else {
            return Err(StorageError::BadSnapshot("it has no header".into()));
        };
        if let Some(members) = members {
            last_membership = StoredMembership::new(last_log_id, members);
            position = encode_position(last_log_id.as_ref(), &last_membership).into();
        }
        let Staged { state, generation, .. } = &self.staged;
        {
            let family = state.database.need(&generation.state_family(state.shard))?;
            self.batch.put_cf(&family, RowKey::Position.encode(), position);
            if let Some(last) = last_log_id {
                self.batch.put_cf(&family, RowKey::Base.encode(), encode_number(last.index));
            }
        }
        self.flush_batch()?;
        let Staged { state, generation, .. } = &self.staged;
        state.database.flush(&generation.state_family(state.shard))?;
        state.database.flush(&generation.base_family(state.shard))?;
        Ok((SnapshotMeta { last_log_id, last_membership }, SnapshotHandle::received(self.staged)))
    }

    fn take(&mut self, frame: Frame) -> Result<(), StorageError> {
        let Staged { state, generation, .. } = &self.staged;
        let bad = |what: String| Err(StorageError::BadSnapshot(what));
        if self.header.is_none() != matches!(frame, Frame::Header { .. }) {
            return bad("its header is not its first part".into());
        }
        match frame {
            Frame::Header { shard, .. } if shard != state.shard => {
                return bad(format!("it is of shard {shard}, not of shard {}", state.shard));
            }
            Frame::Header { position, .. } => {
                let (last, membership) =
                    decode_position(position.clone()).map_err(|error| bad_row(&error))?;
                self.header = Some((last, membership, position));
            }
            Frame::State { key, value } => {
                if row_kind(&key).map_err(|error| bad_row(&error))? == RowKind::Local {
                    return bad("it holds a row that belongs to the sender only".into());
                }
                let family = state.database.need(&generation.state_family(state.shard))?;
                self.batch.put_cf(&family, key, value);
            }
            Frame::Payload { index, entry } => {
                let found = decode_entry(entry.clone()).map_err(|error| bad_row(&error))?.log_id.index;
                if found != index {
                    return bad(format!("row {index} holds entry {found}"));
                }
                let family = state.database.need(&generation.base_family(state.shard))?;
                self.batch.put_cf(&family, payload_key(index), entry);
            }
        }
        Ok(())
    }

    fn flush_batch(&mut self) -> Result<(), StorageError> {
        self.staged.state.database.write_unlogged(std::mem::take(&mut self.batch))
    }
}

impl Staged {
    /// Puts this generation in force. Once it has begun it is finished, whoever waits for it: the log and the memory of this process
    /// must not differ about which generation that is.
    pub(super) async fn install(
        self,
        meta: &SnapshotMeta,
        state: &Arc<ShardState>,
    ) -> Result<(), StorageError> {
        if !Arc::ptr_eq(&self.state, state) {
            return Err(StorageError::Invalid("the snapshot was received for another shard".into()));
        }
        let (sender, installed) = oneshot::channel();
        let last = meta.last_log_id;
        let spawned = thread::Builder::new().name("snapshot-installer".into()).spawn(move || {
            // Whoever no longer listens need not be told.
            let _ = sender.send(self.put_in_force(last));
        });
        spawned.map_err(|error| StorageError::Io {
            what: "starting to install a snapshot".into(),
            detail: error.to_string(),
        })?;
        installed.await.unwrap_or(Err(StorageError::Closed))
    }

    fn put_in_force(mut self, last: Option<LogId>) -> Result<(), StorageError> {
        let state = self.state.clone();
        // After a failure nobody knows whether the log says so: what is not in force is dropped at the next start.
        self.installed = true;
        state.queue.durable_blocking(state.shard, Change::Generation(self.generation.0))?;
        state.switch(self.generation)?;
        let last_applied = state.last_applied();
        if last_applied < last {
            return Err(StorageError::BadSnapshot("it covers less than its metadata says".into()));
        }
        state.observer.installed(state.shard, last_applied.map_or(0, |last| last.index));
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.installed {
            return;
        }
        let Staged { state, generation, .. } = self;
        for family in [generation.state_family(state.shard), generation.base_family(state.shard)] {
            if let Err(error) = state.database.drop_family(&family) {
                tracing::warn!(%error, "a snapshot that is not used stays on the disk until the next start");
            }
        }
        let _ = &self.keep;
    }
}

/// Creates the column families of a generation newer than all there are.
fn create_next_generation(state: &ShardState) -> Result<Generation, StorageError> {
    let generation = state.next_generation();
    state.database.create(&generation.state_family(state.shard))?;
    state.database.create(&generation.base_family(state.shard))?;
    Ok(generation)
}

fn bad_row(error: &crate::storage::wire::DecodeError) -> StorageError {
    StorageError::BadSnapshot(error.to_string())
}
