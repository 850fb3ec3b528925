//! Straight to the cluster: one stream to each leader, as gateways have it, that carries whatever is waiting in one batch.

use std::collections::HashMap;

use anyhow::{Context, bail};
use bytes::Bytes;
use concordat_proto::{
    log::v1::{Commit, Content, Create, GroupKind, content::Content as Kind},
    ordering::v1::{
        Command, GroupSubmission, Submission, SubmissionOutcome, SubmitRequest, command::Command as Wrapped,
        ordering_client::OrderingClient, outcome::Outcome,
    },
};
use prost::Message;
use testbed::mls_bytes::group_info;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use super::Append;
use crate::limits::{BATCH, STREAM_QUEUE};

/// A submit stream to one node. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Stream(mpsc::Sender<Item>);

#[derive(Debug)]
struct Item {
    shard: u32,
    command: Bytes,
    answer: oneshot::Sender<Outcome>,
}

impl Stream {
    /// Opens a stream to `address` (host:port).
    pub(crate) async fn open(address: &str) -> anyhow::Result<Self> {
        let client = OrderingClient::connect(format!("http://{address}")).await;
        let client = client.with_context(|| format!("connecting to {address}"))?;
        let (items, queue) = mpsc::channel(STREAM_QUEUE);
        tokio::spawn(run(client, queue));
        Ok(Self(items))
    }

    /// Submits a command and waits for what becomes of it.
    pub(crate) async fn submit(&self, shard: u32, command: Bytes) -> anyhow::Result<Outcome> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Item { shard, command, answer }).await.ok().context("the stream has ended")?;
        answered.await.context("the stream ended before the answer")
    }
}

async fn run(mut client: OrderingClient<tonic::transport::Channel>, mut queue: mpsc::Receiver<Item>) {
    let (requests, outgoing) = mpsc::channel(STREAM_QUEUE);
    let Ok(answers) = client.submit(ReceiverStream::new(outgoing)).await else { return };
    let mut answers = answers.into_inner();
    let (mut waiting, mut next_id, mut batch) = (HashMap::new(), 0, Vec::new());
    loop {
        tokio::select! {
            taken = queue.recv_many(&mut batch, BATCH) => {
                if taken == 0 {
                    return;
                }
                let submissions = batch.drain(..).map(|Item { shard, command, answer }| {
                    next_id += 1;
                    waiting.insert(next_id, answer);
                    Submission { id: next_id, shard, command }
                });
                if requests.send(SubmitRequest { submissions: submissions.collect(), ..SubmitRequest::default() }).await.is_err() {
                    return;
                }
            }
            response = answers.message() => {
                // Dropping what waits tells everybody that the stream has ended.
                let Ok(Some(response)) = response else { return };
                for SubmissionOutcome { id, outcome } in response.outcomes {
                    if let Some(waiting) = waiting.remove(&id)
                        && let Some(outcome) = outcome.and_then(|outcome| outcome.outcome)
                    {
                        // Whoever gave up need not be told.
                        let _ = waiting.send(outcome);
                    }
                }
            }
        }
    }
}

/// A client of one group.
pub(crate) struct OrderingSlot {
    stream: Stream,
    shard: u32,
    group: Bytes,
    epoch: u64,
}

impl OrderingSlot {
    /// Creates a group.
    pub(crate) async fn create(stream: Stream, shard: u32, group: String) -> anyhow::Result<Self> {
        let info = group_info(group.as_bytes(), 0);
        let mut slot = Self { stream, shard, group: group.into(), epoch: 0 };
        let create = Create { kind: GroupKind::Mls.into(), policy: None, group_info: info };
        while slot.submit(Kind::Create(create.clone())).await? == Append::Refused {
            tokio::time::sleep(crate::limits::RETRY_PAUSE).await;
        }
        Ok(slot)
    }

    /// One attempt to commit.
    pub(crate) async fn append(&mut self, payload: &Bytes) -> anyhow::Result<Append> {
        let commit = Commit { message: payload.clone(), ..Commit::default() };
        self.submit(Kind::Commit(commit)).await
    }

    /// Sends an application message, which anybody may at any time.
    pub(crate) async fn send(&mut self, payload: Bytes) -> anyhow::Result<Append> {
        self.submit(Kind::Application(concordat_proto::log::v1::Application { message: payload })).await
    }

    /// A client of a group that was created, and that nobody has committed to.
    pub(crate) fn existing(stream: Stream, shard: u32, group: String) -> Self {
        Self { stream, shard, group: group.into(), epoch: 0 }
    }

    /// Another client of the same group, at the same epoch.
    pub(crate) fn again(&self) -> Self {
        Self { stream: self.stream.clone(), shard: self.shard, group: self.group.clone(), epoch: self.epoch }
    }

    async fn submit(&mut self, content: Kind) -> anyhow::Result<Append> {
        let submission = GroupSubmission {
            group_id: self.group.clone(),
            author: Bytes::from_static(b"bench"),
            epoch: self.epoch,
            content: Some(Content { content: Some(content) }),
            ..GroupSubmission::default()
        };
        let command = Command { command: Some(Wrapped::Group(submission)) }.encode_to_vec();
        match self.stream.submit(self.shard, command.into()).await? {
            Outcome::Accepted(accepted) => {
                self.epoch = accepted.epoch;
                Ok(Append::Done)
            }
            Outcome::Overloaded(_) => Ok(Append::Refused),
            other => bail!("a correct submission was answered with {other:?}"),
        }
    }
}
