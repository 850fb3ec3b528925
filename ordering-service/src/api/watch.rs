//! The quorum watch: the state at once, on every change that matters, and at least every 100 ms.

use std::sync::Arc;

use concordat_proto::{convert::gateway_id, log::v1::Refused, ordering::v1::QuorumState};
use futures::{Stream, stream};
use tokio::{sync::watch, time::timeout};
use tonic::Status;

use crate::{branches::watchers::Watching, error::ApiError, limits, node::Node};

/// The gateway that watches, if it says which: one that may hold branches does.
///
/// # Errors
/// The id is none, or too many watch.
pub fn gateway(node: &Node, id: &[u8]) -> Result<Option<Watching>, ApiError> {
    if id.is_empty() {
        return Ok(None);
    }
    let id = gateway_id("gateway_id", id).map_err(|error| Refused::from(&error))?;
    node.watchers.watch(id).map(Some)
}

/// Serves one watch until the node stops. A gateway that may hold branches counts as connected as long as it watches.
pub fn serve(
    node: Arc<Node>,
    watching: Option<Watching>,
) -> impl Stream<Item = Result<QuorumState, Status>> + Send {
    let changes = node.quorum.changes();
    stream::unfold((node, changes, watching, true), |(node, mut changes, watching, first)| async move {
        if !first {
            tokio::select! {
                () = node.stop.cancelled() => return None,
                () = wait(&mut changes) => {}
            }
        }
        let state = node.quorum.latest();
        Some((Ok(state), (node, changes, watching, false)))
    })
}

async fn wait(changes: &mut watch::Receiver<u64>) {
    // A change and the end of the interval are the same to a reader: it gets the newest state.
    let _ = timeout(limits::QUORUM_WATCH_INTERVAL, changes.changed()).await;
}
