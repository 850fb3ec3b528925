//! Receives a snapshot from a leader, and installs it.

use bytes::Bytes;
use concordat_proto::raft::v1::{InstallSnapshotRequest, SnapshotHead, install_snapshot_request::Request};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tonic::Streaming;

use super::{shard::SharedShard, types::Vote, wire};
use crate::{
    error::ApiError,
    limits,
    storage::{Snapshot, SnapshotHandle, SnapshotMeta, SnapshotReceiver, Storage, StorageError},
};

type Inbound = Streaming<InstallSnapshotRequest>;

/// Reads the first message.
///
/// # Errors
/// It is not a head.
pub async fn head(inbound: &mut Inbound) -> Result<SnapshotHead, ApiError> {
    match next(inbound).await? {
        Request::Head(head) => Ok(head),
        _ => Err(wire::Malformed("a snapshot that does not begin with its head").into()),
    }
}

/// Takes in everything after the head, and installs it. Returns this node's vote.
///
/// # Errors
/// The stream breaks, the snapshot does not hold together, or the storage fails. Nothing is installed then.
pub async fn receive(
    storage: &Storage,
    shard: &SharedShard,
    head: &SnapshotHead,
    mut inbound: Inbound,
) -> Result<Vote, ApiError> {
    let vote = wire::vote_in(head.vote.as_ref())?;
    storage.writable()?;
    let (chunks, writing) = write_elsewhere(storage.receive_snapshot(shard.id())?);
    let mut parts = 0;
    let complete = loop {
        match next(&mut inbound).await? {
            Request::Part(part) => {
                parts += 1;
                if chunks.send(part.bytes).await.is_err() {
                    break false;
                }
            }
            Request::End(end) if end.parts == parts => break true,
            Request::End(_) => {
                return Err(wire::Malformed("a snapshot with another number of parts than it says").into());
            }
            Request::Head(_) => return Err(wire::Malformed("a second head within a snapshot").into()),
        }
    };
    drop(chunks);
    let stopped = |message: String| ApiError::Stopped { shard: shard.id(), message };
    let receiver = writing.await.map_err(|panic| stopped(panic.to_string()))??;
    if !complete {
        return Err(stopped("the snapshot was not taken in".into()));
    }
    let (meta, snapshot) = finish(receiver).await.map_err(|panic| stopped(panic.to_string()))??;
    tracing::info!(shard = shard.id(), parts, last = ?meta.last_log_id, "received a snapshot");
    let installed = shard.raft().install_full_snapshot(vote, Snapshot { meta, snapshot }).await;
    Ok(installed.map_err(|fatal| stopped(fatal.to_string()))?.vote)
}

async fn next(inbound: &mut Inbound) -> Result<Request, ApiError> {
    let message = match timeout(limits::SNAPSHOT_PROGRESS_TIMEOUT, inbound.message()).await {
        Ok(Ok(message)) => message,
        Ok(Err(_)) | Err(_) => None,
    };
    let request = message.and_then(|message| message.request);
    Ok(request.ok_or(wire::Malformed("a snapshot that breaks off"))?)
}

/// Writing rows blocks, so it is done by a thread that may.
fn write_elsewhere(
    mut receiver: SnapshotReceiver,
) -> (mpsc::Sender<Bytes>, JoinHandle<Result<SnapshotReceiver, StorageError>>) {
    let (chunks, mut parts) = mpsc::channel::<Bytes>(limits::SNAPSHOT_QUEUE);
    let writing = tokio::task::spawn_blocking(move || {
        while let Some(part) = parts.blocking_recv() {
            receiver.write(part)?;
        }
        Ok(receiver)
    });
    (chunks, writing)
}

async fn finish(
    receiver: SnapshotReceiver,
) -> Result<Result<(SnapshotMeta, SnapshotHandle), StorageError>, tokio::task::JoinError> {
    tokio::task::spawn_blocking(move || receiver.finish()).await
}
