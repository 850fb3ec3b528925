//! Reads a snapshot for sending: the rows of one moment, in a thread of its own, a few chunks ahead of the network.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    thread,
};

use bytes::Bytes;
use futures::Stream;
use rocksdb::ReadOptions;
use tokio::sync::mpsc;

use super::frames::FrameWriter;
use crate::storage::{
    database::payload_key,
    error::StorageError,
    limits::{SNAPSHOT_CHUNK_BYTES, SNAPSHOT_CHUNKS_AHEAD},
    log::{
        StoredMembership,
        codec::{encode_entry, encode_position},
    },
    metrics,
    state::{
        keys::{RowKey, RowKind, row_kind, trailing_number},
        place::Place,
        shard::ShardState,
    },
};

type Chunk = Result<Bytes, StorageError>;

/// The chunks of a snapshot, in order. An error ends it. Dropping it ends the reading.
pub struct SnapshotStream(mpsc::Receiver<Chunk>);

impl Stream for SnapshotStream {
    type Item = Chunk;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Chunk>> {
        self.0.poll_recv(context)
    }
}

/// Starts to read.
pub(super) fn stream(state: Arc<ShardState>, keep: Arc<dyn Send + Sync>) -> SnapshotStream {
    let (chunks, receiver) = mpsc::channel(SNAPSHOT_CHUNKS_AHEAD);
    let report = chunks.clone();
    let spawned = thread::Builder::new().name("snapshot-sender".into()).spawn(move || {
        let _keep = keep;
        if let Err(error) = read(&state, &chunks) {
            // Whoever no longer listens need not be told.
            let _ = chunks.blocking_send(Err(error));
        }
    });
    if let Err(error) = spawned {
        let what = "starting to read a snapshot".into();
        let _ = report.try_send(Err(StorageError::Io { what, detail: error.to_string() }));
    }
    SnapshotStream(receiver)
}

/// A stream that only says why there is none.
pub(super) fn failed(error: StorageError) -> SnapshotStream {
    let (chunks, receiver) = mpsc::channel(1);
    let _ = chunks.try_send(Err(error));
    SnapshotStream(receiver)
}

fn read(state: &ShardState, chunks: &mpsc::Sender<Chunk>) -> Result<(), StorageError> {
    let rows = state.rows()?;
    let rocks = state.database.rocks();
    // Everything below is read as it is at this moment. What is forgotten later stays in the log meanwhile.
    let _pin = state.log.pin();
    let moment = rocks.snapshot();
    let reading = |error| rows.error(error);

    let position = moment.get_cf(&rows.state, RowKey::Position.encode()).map_err(reading)?;
    let position = position.unwrap_or_else(|| encode_position(None, &StoredMembership::default()));
    let (mut frames, mut entry) = (FrameWriter::new(state.shard, &position), Vec::new());
    let mut all = moment.raw_iterator_cf_opt(&rows.state, ReadOptions::default());
    all.seek_to_first();
    while let Some((key, value)) = all.item() {
        let kind = row_kind(key).map_err(|error| rows.bad_row("a row", error))?;
        if kind != RowKind::Local {
            frames.state(key, value);
        }
        let bad = |error| rows.bad_row("a row that refers to the log", error);
        let referred = match kind {
            RowKind::Record => match Place::split(value).map_err(bad)?.0 {
                Place::Submission { index } => Some(index),
                // Many rows refer to a report: its own row sends it once.
                Place::Report(_) | Place::Mark | Place::Pruned => None,
            },
            RowKind::Report => Some(trailing_number(key).map_err(bad)?),
            RowKind::Plain | RowKind::Local => None,
        };
        if let Some(index) = referred {
            let missing = || rows.bad_row("a row", format!("entry {index}, which it refers to, is missing"));
            if rows.current.base.is_some_and(|base| index <= base) {
                let entry = moment.get_pinned_cf(&rows.base, payload_key(index)).map_err(reading)?;
                frames.payload(index, &entry.ok_or_else(missing)?);
            } else {
                entry.clear();
                encode_entry(&state.log.row(index)?.ok_or_else(missing)?, &mut entry);
                frames.payload(index, &entry);
            }
        }
        if frames.len() >= SNAPSHOT_CHUNK_BYTES && !send(state, chunks, frames.take()) {
            return Ok(());
        }
        all.next();
    }
    all.status().map_err(reading)?;
    send(state, chunks, frames.end());
    Ok(())
}

/// False when nobody listens any more.
fn send(state: &ShardState, chunks: &mpsc::Sender<Chunk>, chunk: Bytes) -> bool {
    let labels = [("shard", state.shard.to_string()), ("direction", "sent".to_owned())];
    ::metrics::counter!(metrics::SNAPSHOT_BYTES_TOTAL, &labels).increment(chunk.len() as u64);
    chunks.blocking_send(Ok(chunk)).is_ok()
}
