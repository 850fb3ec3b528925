//! One pipelined submit stream to one node.

use std::collections::HashMap;

use bytes::Bytes;
use concordat_proto::ordering::v1::{
    Outcome, Submission, SubmissionOutcome, SubmitRequest, SubmitResponse,
    ordering_client::OrderingClient as Wire, outcome,
};
use service_kit::channel::Channel;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::limits::{ANSWER_DEADLINE, LINK_QUEUE_ENTRIES};

/// One attempt at one node.
#[derive(Debug, Clone, PartialEq)]
// It lives for a moment on the stack; a box would be an allocation for every answer.
#[allow(clippy::large_enum_variant)]
pub enum Attempt {
    /// The node answered.
    Answered(outcome::Outcome),
    /// The connection was lost or the answer took too long: the submission may be in the log or come into it later.
    Lost,
}

struct Item {
    shard: u32,
    command: Bytes,
    answer: oneshot::Sender<outcome::Outcome>,
}

/// A submit stream that is opened again by the next submission after it broke.
#[derive(Debug, Clone)]
pub(super) struct Link {
    items: mpsc::Sender<Item>,
}

impl Link {
    pub(super) fn new(channel: Channel) -> Self {
        let (items, queue) = mpsc::channel(LINK_QUEUE_ENTRIES);
        tokio::spawn(run(channel, queue));
        Self { items }
    }

    pub(super) async fn attempt(&self, shard: u32, command: Bytes) -> Attempt {
        let (answer, answered) = oneshot::channel();
        let sent = async {
            self.items.send(Item { shard, command, answer }).await.ok()?;
            answered.await.ok()
        };
        match timeout(ANSWER_DEADLINE, sent).await {
            Ok(Some(outcome)) => Attempt::Answered(outcome),
            Ok(None) | Err(_) => Attempt::Lost,
        }
    }
}

async fn run(channel: Channel, mut queue: mpsc::Receiver<Item>) {
    while let Some(first) = queue.recv().await {
        // Whatever waits for an answer when the stream ends is dropped, which its caller sees as lost.
        stream(channel.clone(), first, &mut queue).await;
    }
}

async fn stream(channel: Channel, first: Item, queue: &mut mpsc::Receiver<Item>) {
    let (requests, outgoing) = mpsc::channel(LINK_QUEUE_ENTRIES);
    let mut waiting = HashMap::new();
    let mut next_id = 0;
    send(vec![first], &mut waiting, &mut next_id, &requests).await;
    let opened = Wire::new(channel).submit(ReceiverStream::new(outgoing)).await;
    let Ok(mut answers) = opened.map(tonic::Response::into_inner) else { return };
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            read = read(&mut answers) => match read {
                Some(outcomes) => resolve(outcomes, &mut waiting),
                None => return,
            },
            taken = queue.recv_many(&mut batch, 64) => {
                if taken == 0 {
                    return;
                }
                send(std::mem::take(&mut batch), &mut waiting, &mut next_id, &requests).await;
            }
        }
    }
}

async fn read(answers: &mut Streaming<SubmitResponse>) -> Option<Vec<SubmissionOutcome>> {
    answers.message().await.ok().flatten().map(|response| response.outcomes)
}

fn resolve(outcomes: Vec<SubmissionOutcome>, waiting: &mut HashMap<u64, oneshot::Sender<outcome::Outcome>>) {
    for SubmissionOutcome { id, outcome } in outcomes {
        if let (Some(Outcome { outcome: Some(outcome) }), Some(answer)) = (outcome, waiting.remove(&id)) {
            // The caller may have given up.
            let _ = answer.send(outcome);
        }
    }
}

async fn send(
    items: Vec<Item>,
    waiting: &mut HashMap<u64, oneshot::Sender<outcome::Outcome>>,
    next_id: &mut u64,
    requests: &mpsc::Sender<SubmitRequest>,
) {
    let submissions = items
        .into_iter()
        .map(|item| {
            *next_id += 1;
            waiting.insert(*next_id, item.answer);
            Submission { id: *next_id, shard: item.shard, command: item.command }
        })
        .collect();
    // Fails only if the stream has broken, which reading it shows.
    let _ = requests.send(SubmitRequest { submissions, ..SubmitRequest::default() }).await;
}
