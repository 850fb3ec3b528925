//! How the answer to a proposal gets back to whoever waits for it, without a task or a channel per proposal.

use std::{fmt, sync::Arc};

use openraft::{OptionalSend, type_config::alias::LogIdOf};

use super::types::TypeConfig;

/// Takes the results of many proposals; each is known by a token that its owner chose.
pub trait ResultSink<T>: Send + Sync {
    /// The proposal came to an end. Called from inside Raft's own tasks: must be quick and must never block.
    fn complete(&self, token: u64, result: T);

    /// Nobody will ever tell what became of the proposal: Raft stopped.
    fn abandoned(&self, token: u64);
}

/// openraft's responder: a token and the sink that knows it.
pub struct Responder<T: OptionalSend + 'static> {
    sink: Option<Arc<dyn ResultSink<T>>>,
    token: u64,
}

impl<T: OptionalSend + 'static> Responder<T> {
    /// Answers to `sink` under `token`.
    pub fn new(sink: Arc<dyn ResultSink<T>>, token: u64) -> Self {
        Self { sink: Some(sink), token }
    }
}

impl<T: OptionalSend + 'static> openraft::raft::responder::Responder<TypeConfig, T> for Responder<T> {
    fn on_commit(&mut self, _log_id: LogIdOf<TypeConfig>) {}

    fn on_complete(mut self, result: T) {
        if let Some(sink) = self.sink.take() {
            sink.complete(self.token, result);
        }
    }
}

impl<T: OptionalSend + 'static> Drop for Responder<T> {
    fn drop(&mut self) {
        if let Some(sink) = self.sink.take() {
            sink.abandoned(self.token);
        }
    }
}

impl<T: OptionalSend + 'static> fmt::Debug for Responder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Responder({})", self.token)
    }
}
