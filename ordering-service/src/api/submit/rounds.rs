//! The proposals of one shard. A few go to Raft one by one, as they come. When many are under way they go in rounds: what comes while a
//! round is being decided makes the next one, so that an append, a sync, a message to a peer and an answer serve many. No timer is
//! waited for where the network is fast; where it is slow, rounds overlap ([`limits::ROUND_MAX`]).

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::{Stream, StreamExt, stream::BoxStream};
use openraft::{
    errors::Fatal,
    raft::{ClientWriteResponse, ClientWriteResult, WriteResult},
};
use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::{
    limits,
    raft::{
        responder::{Responder, ResultSink},
        shard::SharedShard,
        types::{Proposed, TypeConfig},
    },
};

/// Takes the answers.
pub(super) type Sink = Arc<dyn ResultSink<ClientWriteResult<TypeConfig>>>;

/// What goes to Raft, and who gets the answer, under which token.
pub(super) struct Proposal {
    pub(super) proposed: Proposed,
    pub(super) sink: Sink,
    pub(super) token: u64,
}

/// The results of a round, in its order.
pub(super) type Results = BoxStream<'static, Result<WriteResult<TypeConfig>, Fatal<TypeConfig>>>;

/// Where proposals go.
pub(super) trait Log: Send + Sync + 'static {
    /// Proposes one, which is answered through its responder.
    fn write(&self, proposed: Proposed, responder: WriteResponder) -> impl Future<Output = ()> + Send;

    /// Proposes many.
    fn write_many(
        &self,
        proposed: Vec<Proposed>,
    ) -> impl Future<Output = Result<Results, Fatal<TypeConfig>>> + Send;
}

/// Takes the answer to one proposal.
pub(super) type WriteResponder = Responder<ClientWriteResult<TypeConfig>>;

impl Log for SharedShard {
    async fn write(&self, proposed: Proposed, responder: WriteResponder) {
        // An error means that Raft has stopped; the responder was dropped and has answered.
        let _ = self.raft().client_write_ff(proposed, Some(responder)).await;
    }

    async fn write_many(&self, proposed: Vec<Proposed>) -> Result<Results, Fatal<TypeConfig>> {
        self.raft().client_write_many(proposed).await
    }
}

/// The proposals of one shard.
pub(super) struct Rounds<L = SharedShard> {
    log: L,
    under_way: Arc<AtomicUsize>,
    /// What waits for the next round, once there are rounds. Bounded by what may be under way at a node.
    waiting: Mutex<Option<Vec<Proposal>>>,
}

impl<L: Log> Rounds<L> {
    pub(super) fn new(log: L) -> Arc<Self> {
        Arc::new(Self { log, under_way: Arc::default(), waiting: Mutex::default() })
    }

    /// Proposes, now or with the next round.
    pub(super) async fn propose(self: &Arc<Self>, proposal: Proposal) {
        {
            let mut waiting = self.waiting.lock();
            match &mut *waiting {
                Some(waiting) => return waiting.push(proposal),
                None if self.under_way.load(Ordering::Relaxed) < limits::PROPOSED_SINGLY => {}
                None => {
                    *waiting = Some(vec![proposal]);
                    drop(tokio::spawn(self.clone().run()));
                    return;
                }
            }
        }
        let Proposal { proposed, sink, token } = proposal;
        let counted = Arc::new(Counted { sink, _share: Share::of(&self.under_way, 1) });
        self.log.write(proposed, Responder::new(counted, token)).await;
    }

    /// Rounds, until nothing waits for one.
    async fn run(self: Arc<Self>) {
        loop {
            let round = {
                let mut waiting = self.waiting.lock();
                match waiting.as_mut().map(mem::take) {
                    Some(round) if !round.is_empty() => round,
                    _ => {
                        *waiting = None;
                        return;
                    }
                }
            };
            let begun = Instant::now();
            let decided = self.begin(round).await;
            // Either way the next round may begin.
            let _ = timeout_at(begun + limits::ROUND_MAX, decided).await;
        }
    }

    /// Begins a round. What is returned completes when all of it is decided.
    async fn begin(&self, round: Vec<Proposal>) -> oneshot::Receiver<()> {
        let share = Share::of(&self.under_way, round.len());
        let (mut proposed, mut answers) = (Vec::with_capacity(round.len()), Vec::with_capacity(round.len()));
        for Proposal { proposed: one, sink, token } in round {
            proposed.push(one);
            answers.push((sink, token));
        }
        let (done, decided) = oneshot::channel();
        let results = self.log.write_many(proposed).await;
        tokio::spawn(async move {
            match results {
                Ok(results) => answer(results, answers).await,
                Err(_stopped) => answers.into_iter().for_each(|(sink, token)| sink.abandoned(token)),
            }
            drop(share);
            // Nobody listens if the next round has begun already.
            let _ = done.send(());
        });
        decided
    }
}

async fn answer(
    mut results: impl Stream<Item = Result<WriteResult<TypeConfig>, Fatal<TypeConfig>>> + Unpin,
    answers: Vec<(Sink, u64)>,
) {
    for (sink, token) in answers {
        match results.next().await {
            Some(Ok(result)) => sink.complete(
                token,
                result.map(|written| ClientWriteResponse {
                    log_id: written.log_id,
                    data: written.response,
                    membership: None,
                }),
            ),
            Some(Err(_)) | None => sink.abandoned(token),
        }
    }
}

/// A part of what is under way, until it is dropped.
struct Share(Arc<AtomicUsize>, usize);

impl Share {
    fn of(under_way: &Arc<AtomicUsize>, count: usize) -> Self {
        under_way.fetch_add(count, Ordering::Relaxed);
        Share(under_way.clone(), count)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// A sink whose proposal is counted until it is answered.
struct Counted {
    sink: Sink,
    _share: Share,
}

impl ResultSink<ClientWriteResult<TypeConfig>> for Counted {
    fn complete(&self, token: u64, result: ClientWriteResult<TypeConfig>) {
        self.sink.complete(token, result);
    }

    fn abandoned(&self, token: u64) {
        self.sink.abandoned(token);
    }
}

#[cfg(test)]
mod tests;
