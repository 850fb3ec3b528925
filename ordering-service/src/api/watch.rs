//! The quorum watch: the state at once, on every change that matters, and at least every 100 ms.

use std::sync::Arc;

use concordat_proto::ordering::v1::QuorumState;
use futures::{Stream, stream};
use tokio::{sync::watch, time::timeout};
use tonic::Status;

use crate::{limits, node::Node};

/// Serves one watch until the node stops.
pub fn serve(node: Arc<Node>) -> impl Stream<Item = Result<QuorumState, Status>> + Send {
    let changes = node.quorum.changes();
    stream::unfold((node, changes, true), |(node, mut changes, first)| async move {
        if !first {
            tokio::select! {
                () = node.stop.cancelled() => return None,
                () = wait(&mut changes) => {}
            }
        }
        let state = node.quorum.latest();
        Some((Ok(state), (node, changes, false)))
    })
}

async fn wait(changes: &mut watch::Receiver<u64>) {
    // A change and the end of the interval are the same to a reader: it gets the newest state.
    let _ = timeout(limits::QUORUM_WATCH_INTERVAL, changes.changed()).await;
}
