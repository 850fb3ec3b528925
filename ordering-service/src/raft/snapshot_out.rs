//! Sends a snapshot to a peer, on a connection of its own.

use concordat_proto::raft::v1::{
    InstallSnapshotRequest, SnapshotEnd, SnapshotHead, SnapshotPart, install_snapshot_request::Request,
};
use futures::StreamExt;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    peer::{Peer, PeerError},
    types::{ShardId, Vote},
    wire,
};
use crate::{
    limits,
    storage::{Snapshot, SnapshotStream},
};

/// Sends a whole snapshot and waits until it is installed. Returns the receiver's vote.
///
/// # Errors
/// The peer can not be reached or refuses, the storage can not be read, or nothing moves any more.
pub async fn send(peer: &Peer, shard: ShardId, vote: &Vote, snapshot: Snapshot) -> Result<Vote, PeerError> {
    let (out, requests) = mpsc::channel(limits::SNAPSHOT_QUEUE);
    let head = SnapshotHead { hello: peer.hello(), shard, vote: Some(wire::vote_out(vote)) };
    let mut client = peer.snapshots();
    let mut installing = Box::pin(client.install_snapshot(ReceiverStream::new(requests)));
    let mut feeding = Box::pin(feed(out, head, snapshot.snapshot.chunks()));
    let mut fed = false;
    // The stream's bounded queue makes feeding slow; the receiver answers when it has installed.
    let mut deadline = Instant::now() + limits::SNAPSHOT_PROGRESS_TIMEOUT;
    loop {
        tokio::select! {
            answer = &mut installing => {
                let answer = answer.map_err(|status| peer.failed(&status))?.into_inner();
                return wire::vote_in(answer.vote.as_ref()).map_err(|malformed| peer.broken(malformed));
            }
            moved = feeding.next(), if !fed => match moved {
                Some(Ok(())) => deadline = Instant::now() + limits::SNAPSHOT_PROGRESS_TIMEOUT,
                Some(Err(error)) => return Err(peer.broken(error)),
                None => fed = true,
            },
            () = sleep_until(deadline) => {
                return Err(peer.broken(format!("no progress within {:?}", limits::SNAPSHOT_PROGRESS_TIMEOUT)));
            }
        }
    }
}

/// Yields after each message that was handed to the connection.
fn feed(
    out: mpsc::Sender<InstallSnapshotRequest>,
    head: SnapshotHead,
    chunks: SnapshotStream,
) -> impl futures::Stream<Item = Result<(), String>> {
    let head = futures::stream::once(async move { Ok(Request::Head(head)) });
    let parts = chunks.map(|chunk| chunk.map(|bytes| Request::Part(SnapshotPart { bytes })));
    let parts = parts.map(|part| part.map_err(|error| error.to_string()));
    let messages = Box::pin(head.chain(parts));
    futures::stream::unfold(Some((out, messages, 0)), |state| async move {
        let (out, mut messages, sent) = state?;
        let (request, rest) = match messages.next().await {
            Some(Ok(request)) => (request, Some(sent + 1)),
            Some(Err(error)) => return Some((Err(error), None)),
            // The head is no part.
            None => (Request::End(SnapshotEnd { parts: sent - 1 }), None),
        };
        // A closed queue means that the call has ended; its answer says why.
        if out.send(InstallSnapshotRequest { request: Some(request) }).await.is_err() {
            return None;
        }
        Some((Ok(()), rest.map(|sent: u64| (out, messages, sent))))
    })
}
