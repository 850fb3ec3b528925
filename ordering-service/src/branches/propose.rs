//! Proposals of the node itself.

use std::sync::Arc;

use bytes::Bytes;
use concordat_proto::ordering::v1::{Command, Outcome, outcome::Outcome as Answer};
use openraft::raft::ClientWriteResult;
use parking_lot::Mutex;
use prost::Message;
use tokio::{sync::oneshot, time::timeout};

use crate::{
    node::Node,
    raft::{
        responder::{Responder, ResultSink},
        shard::Shard,
        types::{Proposed, TypeConfig},
    },
};

/// Takes the one result.
struct Once(Mutex<Option<oneshot::Sender<Outcome>>>);

impl ResultSink<ClientWriteResult<TypeConfig>> for Once {
    fn complete(&self, _: u64, result: ClientWriteResult<TypeConfig>) {
        if let (Some(sender), Ok(applied)) = (self.0.lock().take(), result) {
            // Whoever no longer waits need not be told.
            let _ = sender.send(applied.data.0);
        }
    }

    fn abandoned(&self, _: u64) {
        self.0.lock().take();
    }
}

/// Proposes a command and waits until it is applied here. Nothing if this node does not lead, or it takes too long: every command is
/// idempotent, so it can be proposed again.
pub(crate) async fn propose(node: &Node, shard: &Shard, command: Command) -> Option<Answer> {
    let (sender, applied) = oneshot::channel();
    let responder = Responder::new(Arc::new(Once(Mutex::new(Some(sender)))), 0);
    let command = Bytes::from(command.encode_to_vec());
    let proposed = Proposed { at_ms: node.clock.now_ms(), command };
    shard.raft().client_write_ff(proposed, Some(responder)).await.ok()?;
    timeout(node.timing.submission, applied).await.ok()?.ok()?.outcome
}
