//! Through a gateway: the public API's stream of submissions, with MLS messages as clients send them.

use std::{collections::HashMap, sync::Arc};

use anyhow::{Context, bail};
use bytes::Bytes;
use concordat_proto::{
    gateway::v1::{
        CreateGroupRequest, SubmitRequest, SubmitStreamRequest, gateway_client::GatewayClient,
        submit_response, submit_stream_response::Result as Answer,
    },
    log::v1::GroupKind,
};
use testbed::{
    mls_bytes::{ContentType, group_info, private_message},
    raw::name_client,
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, transport::Channel};

use super::Append;
use crate::limits::STREAM_QUEUE;

/// A connection to a gateway with one stream of submissions. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Submissions(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: GatewayClient<Channel>,
    items: mpsc::Sender<Item>,
}

type Item = (SubmitRequest, oneshot::Sender<Answer>);

impl Submissions {
    /// Connects to `address` (host:port).
    pub(crate) async fn open(address: &str) -> anyhow::Result<Self> {
        let client = GatewayClient::connect(format!("http://{address}")).await;
        let client = client.with_context(|| format!("connecting to {address}"))?;
        let (items, queue) = mpsc::channel(STREAM_QUEUE);
        tokio::spawn(run(client.clone(), queue));
        Ok(Self(Arc::new(Inner { client, items })))
    }

    async fn submit(&self, request: SubmitRequest) -> anyhow::Result<Answer> {
        let (answer, answered) = oneshot::channel();
        self.0.items.send((request, answer)).await.ok().context("the stream has ended")?;
        answered.await.context("the stream ended before the answer")
    }
}

/// Names this client, as every call must.
pub(crate) fn named<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    name_client(request.metadata_mut(), b"bench");
    request
}

async fn run(mut client: GatewayClient<Channel>, mut queue: mpsc::Receiver<Item>) {
    let (requests, outgoing) = mpsc::channel(STREAM_QUEUE);
    let Ok(answers) = client.submit_stream(named(ReceiverStream::new(outgoing))).await else { return };
    let mut answers = answers.into_inner();
    let (mut waiting, mut next_id) = (HashMap::new(), 0);
    loop {
        tokio::select! {
            item = queue.recv() => {
                let Some((request, answer)) = item else { return };
                next_id += 1;
                waiting.insert(next_id, answer);
                if requests.send(SubmitStreamRequest { id: next_id, request: Some(request) }).await.is_err() {
                    return;
                }
            }
            response = answers.message() => {
                // Dropping what waits tells everybody that the stream has ended.
                let Ok(Some(response)) = response else { return };
                if let Some(waiting) = waiting.remove(&response.id)
                    && let Some(result) = response.result
                {
                    // Whoever gave up need not be told.
                    let _ = waiting.send(result);
                }
            }
        }
    }
}

/// A client of one group.
pub(crate) struct GatewaySlot {
    submissions: Submissions,
    group: String,
    epoch: u64,
}

impl GatewaySlot {
    /// Creates a group.
    pub(crate) async fn create(submissions: Submissions, group: String) -> anyhow::Result<Self> {
        let request = CreateGroupRequest {
            group_info: group_info(group.as_bytes(), 0),
            kind: GroupKind::Mls.into(),
            policy: None,
        };
        let created = submissions.0.client.clone().create_group(named(request)).await?.into_inner();
        let epoch = created.accepted.context("a group was created without an answer")?.epoch;
        Ok(Self { submissions, group, epoch })
    }

    /// One attempt to commit. The message is the payload and its framing, some 70 bytes.
    pub(crate) async fn append(&mut self, payload: &Bytes) -> anyhow::Result<Append> {
        let message = private_message(self.group.as_bytes(), self.epoch, ContentType::Commit, payload);
        let request = SubmitRequest { message, ..SubmitRequest::default() };
        let response = match self.submissions.submit(request).await? {
            Answer::Response(response) => response,
            Answer::Error(status) => bail!("the gateway refused: {}", String::from_utf8_lossy(&status)),
        };
        match response.outcome {
            Some(submit_response::Outcome::Accepted(accepted)) => {
                self.epoch = accepted.epoch;
                Ok(Append::Done)
            }
            other => bail!("a correct commit was answered with {other:?}"),
        }
    }

    /// The group's id.
    pub(crate) fn group(&self) -> &str {
        &self.group
    }
}
