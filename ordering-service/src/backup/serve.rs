//! The node's side of a backup.

use std::sync::Arc;

use concordat_proto::ordering::v1::{
    BackupEnd, BackupHead, BackupResponse, BackupShard, backup_response::Part,
};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::{api::linearize::linearize, error::ApiError, limits, node::Node};

/// The parts of a backup.
pub type BackupStream = ReceiverStream<Result<BackupResponse, Status>>;

/// Streams everything that is applied.
///
/// # Errors
/// The node belongs to no cluster, or is still catching up after its start.
pub fn serve(node: Arc<Node>) -> Result<BackupStream, ApiError> {
    node.readable()?;
    let (out, parts) = mpsc::channel(limits::BACKUP_QUEUE);
    tokio::spawn(async move {
        let sent = tokio::select! {
            sent = send_all(&node, &out) => sent,
            () = node.stop.cancelled() => Err(Status::unavailable("the node is stopping: back up another node")),
        };
        if let Err(status) = sent {
            let _ = out.send(Err(status)).await;
        }
    });
    Ok(ReceiverStream::new(parts))
}

async fn send_all(node: &Node, out: &mpsc::Sender<Result<BackupResponse, Status>>) -> Result<(), Status> {
    let send = async |part| {
        let gone = |_| Status::cancelled("nobody takes the backup any more");
        out.send(Ok(BackupResponse { part: Some(part) })).await.map_err(gone)
    };
    let shards = node.shards()?;
    let cluster_id = node.identity.cluster().map(|cluster| cluster.id).unwrap_or_default();
    let (node_id, data_shards) = (node.identity.node_id, shards.data_shards());
    send(Part::Head(BackupHead { cluster_id, node_id, data_shards })).await?;
    // A group is assigned in the directory before it begins in its shard, so the directory has to be the newest.
    for shard in shards.iter().rev() {
        linearize(node, shard).await?;
        send(Part::Shard(BackupShard { shard: shard.id() })).await?;
        let mut chunks = node.storage.snapshot(shard.id()).map_err(ApiError::from)?;
        while let Some(chunk) = chunks.next().await {
            send(Part::Bytes(chunk.map_err(ApiError::from)?)).await?;
        }
    }
    send(Part::End(BackupEnd {})).await
}
