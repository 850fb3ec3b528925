//! The one pipelined stream of submissions to a node: what is waiting goes out together in a batch, answers come in any order.

use std::{collections::HashMap, error::Error, sync::Arc, time::Duration};

use bytes::Bytes;
use concordat_proto::ordering::v1::{Outcome, Submission, SubmitRequest, SubmitResponse};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{interval, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};

use super::{lanes::Lanes, pool::NodeClient};
use crate::{
    limits::{
        ATTEMPT_TIMEOUT, BATCH_BYTES_MAX, BATCH_SUBMISSIONS_MAX, NODE_BATCHES_QUEUED_MAX,
        NODE_IN_FLIGHT_BYTES_MAX, NODE_IN_FLIGHT_MAX, RECONNECT_PAUSE,
    },
    metrics,
};

/// What became of one attempt on one node.
#[derive(Debug)]
pub(super) enum Attempt {
    /// The node answered.
    Answered(Box<Outcome>),
    /// It did not, but it may have taken the submission in.
    Lost,
    /// The submission never left the gateway.
    NotSent,
}

/// Submissions to one node. Bounded in number ([`NODE_IN_FLIGHT_MAX`]) and bytes ([`NODE_IN_FLIGHT_BYTES_MAX`]).
pub(super) struct SubmitQueue {
    // Never holds more than the permits allow.
    queue: mpsc::UnboundedSender<Pending>,
    count: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

struct Pending {
    /// Submissions of one lane stay in order; lanes take turns.
    lane: Bytes,
    shard: u32,
    command: Bytes,
    answer: oneshot::Sender<Attempt>,
    _permits: [OwnedSemaphorePermit; 2],
}

impl SubmitQueue {
    /// Starts the task that owns the stream; it is opened when there is something to submit.
    /// Nodes are told that submissions come from `site`.
    pub(super) fn start(
        address: String,
        client: NodeClient,
        site: Arc<str>,
    ) -> (Self, AbortOnDropHandle<()>) {
        let (queue, incoming) = mpsc::unbounded_channel();
        let task = tokio::spawn(run(address, client, site, incoming));
        let count = Arc::new(Semaphore::new(NODE_IN_FLIGHT_MAX));
        let bytes = Arc::new(Semaphore::new(NODE_IN_FLIGHT_BYTES_MAX));
        (Self { queue, count, bytes }, AbortOnDropHandle::new(task))
    }

    /// Submits an encoded command and waits for the answer, `limit` at most. Also waits for room in the queue, where those of a `lane` stay
    /// in order, and lanes take turns.
    pub(super) async fn submit(&self, lane: Bytes, shard: u32, command: Bytes, limit: Duration) -> Attempt {
        let mut queued = false;
        let attempt = async {
            let permits = self.permits(command.len()).await?;
            let (answer, answered) = oneshot::channel();
            self.queue.send(Pending { lane, shard, command, answer, _permits: permits }).ok()?;
            queued = true;
            answered.await.ok()
        };
        match timeout(limit, attempt).await {
            Ok(Some(attempt)) => attempt,
            _ if queued => Attempt::Lost,
            _ => Attempt::NotSent,
        }
    }

    async fn permits(&self, bytes: usize) -> Option<[OwnedSemaphorePermit; 2]> {
        let bytes = u32::try_from(bytes.clamp(1, NODE_IN_FLIGHT_BYTES_MAX)).ok()?;
        let count = Arc::clone(&self.count).acquire_owned().await.ok()?;
        Some([count, Arc::clone(&self.bytes).acquire_many_owned(bytes).await.ok()?])
    }
}

async fn run(
    address: String,
    client: NodeClient,
    site: Arc<str>,
    mut incoming: mpsc::UnboundedReceiver<Pending>,
) {
    while let Some(first) = incoming.recv().await {
        let waiting = Lanes::default();
        let mut stream = Pipeline { address: &address, waiting, in_flight: HashMap::new(), next_id: 1 };
        stream.wait(first);
        let ended = stream.run(client.clone(), &site, &mut incoming).await;
        stream.give_up();
        match ended {
            Ended::NoMoreSubmissions => return,
            Ended::Broken(status) => {
                tracing::debug!(node = address, code = ?status.code(), "the submit stream has ended");
                sleep(RECONNECT_PAUSE).await;
            }
        }
    }
}

enum Ended {
    NoMoreSubmissions,
    Broken(Status),
}

struct Pipeline<'a> {
    address: &'a str,
    waiting: Lanes<Pending>,
    in_flight: HashMap<u64, Pending>,
    next_id: u64,
}

impl Pipeline<'_> {
    async fn run(
        &mut self,
        mut client: NodeClient,
        site: &str,
        incoming: &mut mpsc::UnboundedReceiver<Pending>,
    ) -> Ended {
        let (batches, outgoing) = mpsc::channel(NODE_BATCHES_QUEUED_MAX);
        // The first batch goes along with the call, so that a node which answers only when spoken to is not waited for.
        let first = SubmitRequest { site: site.to_owned(), ..self.batch(incoming) };
        let _ = batches.try_send(first);
        let opened = timeout(ATTEMPT_TIMEOUT, client.submit(ReceiverStream::new(outgoing))).await;
        let answers = match opened {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => {
                if never_connected(&status) {
                    let unsent: Vec<_> = self.in_flight.drain().map(|(_, pending)| pending).collect();
                    unsent.into_iter().for_each(|pending| self.wait(pending));
                }
                return Ended::Broken(status);
            }
            Err(_) => return Ended::Broken(Status::deadline_exceeded("the node did not open the stream")),
        };
        self.pump(batches, answers, incoming).await
    }

    async fn pump(
        &mut self,
        batches: mpsc::Sender<SubmitRequest>,
        mut answers: Streaming<SubmitResponse>,
        incoming: &mut mpsc::UnboundedReceiver<Pending>,
    ) -> Ended {
        let mut sweep = interval(ATTEMPT_TIMEOUT);
        loop {
            tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => self.settle(answer),
                    Ok(None) => return Ended::Broken(Status::unavailable("the node has ended the stream")),
                    Err(status) => return Ended::Broken(status),
                },
                room = batches.reserve(), if !self.waiting.is_empty() => {
                    let Ok(room) = room else {
                        return Ended::Broken(Status::unavailable("the connection is closed"));
                    };
                    room.send(self.batch(incoming));
                }
                next = incoming.recv(), if self.waiting.is_empty() => match next {
                    Some(pending) => self.wait(pending),
                    None => return Ended::NoMoreSubmissions,
                },
                // Nobody waits any more for what was not answered in time; its place is given to others.
                _ = sweep.tick() => self.in_flight.retain(|_, pending| !pending.answer.is_closed()),
            }
            metrics::node_load(self.address, self.in_flight.len(), self.waiting.len() + incoming.len());
        }
    }

    fn wait(&mut self, pending: Pending) {
        self.waiting.push(pending.lane.clone(), pending);
    }

    /// Everything that waits, up to the bounds of a batch.
    fn batch(&mut self, incoming: &mut mpsc::UnboundedReceiver<Pending>) -> SubmitRequest {
        while let Ok(pending) = incoming.try_recv() {
            self.wait(pending);
        }
        let (mut submissions, mut bytes) = (Vec::new(), 0);
        while submissions.len() < BATCH_SUBMISSIONS_MAX {
            let fits = |next: &Pending| bytes == 0 || bytes + next.command.len() <= BATCH_BYTES_MAX;
            let Some(pending) = self.waiting.pop_if(fits) else { break };
            bytes += pending.command.len();
            let id = self.next_id;
            self.next_id += 1;
            submissions.push(Submission { id, shard: pending.shard, command: pending.command.clone() });
            self.in_flight.insert(id, pending);
        }
        metrics::batch(submissions.len());
        SubmitRequest { submissions, site: String::new() }
    }

    fn settle(&mut self, response: SubmitResponse) {
        for answer in response.outcomes {
            if let (Some(pending), Some(outcome)) = (self.in_flight.remove(&answer.id), answer.outcome) {
                let _ = pending.answer.send(Attempt::Answered(Box::new(outcome)));
            }
        }
    }

    fn give_up(&mut self) {
        for (_, pending) in self.in_flight.drain() {
            let _ = pending.answer.send(Attempt::Lost);
        }
        while let Some(pending) = self.waiting.pop_if(|_| true) {
            let _ = pending.answer.send(Attempt::NotSent);
        }
        metrics::node_load(self.address, 0, 0);
    }
}

/// The connection was never made, so nothing was sent over it.
fn never_connected(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}
