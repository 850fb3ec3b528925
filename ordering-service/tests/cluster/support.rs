//! A cluster of real nodes in this process (real sockets, real disks), and a client that submits and reads.

use std::{
    future::Future,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use concordat_proto::{
    log::v1::{
        CanonicalCursor, Commit, Content, Create, Entry, GroupKind, Head, Policy, PolicyChange,
        WelcomeRecipient, content::Content as Kind,
    },
    ordering::v1::{
        Command, FollowGroup, GetHeadRequest, GroupSubmission, ReadEntriesRequest, Submission, SubmitRequest,
        SubscribeRequest, SubscribeResponse, admin_client::AdminClient, command::Command as Wrapped,
        ordering_client::OrderingClient, outcome::Outcome, subscribe_request::Request,
        subscribe_response::Response,
    },
};
use ordering_service::{
    config::Config,
    dev::{DevCluster, local_config, start_node},
    raft::identity::Cluster as Begun,
    server::{Running, Seams},
};
use prost::Message;
use tempfile::TempDir;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

/// Nothing in a test takes this long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The first data shard.
pub(crate) const SHARD: u32 = 1;

/// Waits for a condition, and panics with what it was when patience runs out.
pub(crate) async fn until<F, Fut>(what: &str, mut holds: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "never happened: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Three nodes, or as many as a test needs.
pub(crate) struct Cluster {
    pub(crate) dir: TempDir,
    pub(crate) nodes: Vec<Option<Running>>,
    adjust: fn(&mut Config),
}

impl Cluster {
    pub(crate) async fn start(nodes: u64) -> Self {
        Self::start_with(nodes, |_| {}).await
    }

    pub(crate) async fn start_with(nodes: u64, adjust: fn(&mut Config)) -> Self {
        let dir = TempDir::new().unwrap();
        let cluster = DevCluster::start_with(dir.path(), nodes, 1, Seams::system(), adjust).await.unwrap();
        Self { dir, nodes: cluster.into_nodes().into_iter().map(Some).collect(), adjust }
    }

    /// Nodes that were started otherwise.
    pub(crate) fn of(dir: TempDir, cluster: DevCluster) -> Self {
        Self { dir, nodes: cluster.into_nodes().into_iter().map(Some).collect(), adjust: |_| {} }
    }

    /// Nodes that belong to no cluster.
    pub(crate) async fn empty(nodes: u64) -> Self {
        let mut cluster = Self { dir: TempDir::new().unwrap(), nodes: Vec::new(), adjust: |_| {} };
        for node_id in 1..=nodes {
            cluster.start_node(node_id).await;
        }
        cluster
    }

    /// A cluster that somebody began to form.
    pub(crate) fn begun() -> Begun {
        Begun { id: "begun".into(), data_shards: 1 }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn node(&self, node_id: u64) -> &Running {
        self.nodes[node_id as usize - 1].as_ref().expect("the node runs")
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = &Running> {
        self.nodes.iter().flatten()
    }

    pub(crate) async fn stop_node(&mut self, node_id: u64) {
        self.nodes[node_id as usize - 1].take().expect("the node runs").stop().await;
    }

    /// Starts a stopped node again, or a new one. A new one is empty and belongs to no cluster.
    pub(crate) async fn start_node(&mut self, node_id: u64) {
        let mut config = local_config(self.path(), node_id).unwrap();
        (self.adjust)(&mut config);
        let node = start_node(self.path(), config, Seams::system()).await.unwrap();
        let at = node_id as usize - 1;
        if self.nodes.len() <= at {
            self.nodes.resize_with(at + 1, || None);
        }
        self.nodes[at] = Some(node);
    }

    pub(crate) async fn ordering(&self, node_id: u64) -> OrderingClient<Channel> {
        OrderingClient::connect(url(self.node(node_id))).await.unwrap().max_decoding_message_size(64 << 20)
    }

    pub(crate) async fn admin(&self, node_id: u64) -> AdminClient<Channel> {
        AdminClient::connect(url(self.node(node_id))).await.unwrap()
    }

    /// Who leads a shard, as a node with a quorum sees it.
    pub(crate) async fn leader(&self, shard: u32) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for node in self.running() {
                let state = node.node().quorum.latest();
                let found =
                    state.shards.iter().find(|s| s.shard == shard && s.has_quorum && s.leader_node_id > 0);
                if let Some(found) = found
                    && self.nodes.get(found.leader_node_id as usize - 1).is_some_and(Option::is_some)
                {
                    return found.leader_node_id;
                }
            }
            assert!(Instant::now() < deadline, "no leader for shard {shard}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Submits until somebody decides: follows leaders, and sends the same bytes again whenever the outcome is unknown.
    pub(crate) async fn submit(&self, shard: u32, command: Bytes) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "a submission was never decided");
            let leader = self.leader(shard).await;
            let Ok(client) = OrderingClient::connect(url(self.node(leader))).await else { continue };
            let Ok(mut stream) = Submitter::open(client).await else { continue };
            match stream.try_submit(shard, command.clone()).await {
                Some(Outcome::NotLeader(_) | Outcome::Unknown(_) | Outcome::Overloaded(_)) | None => {
                    sleep(Duration::from_millis(50)).await;
                }
                Some(decided) => return decided,
            }
        }
    }

    /// Creates a group and commits `commits` times to it.
    pub(crate) async fn group_with(&self, name: &str, commits: u64) {
        assert!(matches!(self.submit(SHARD, create(name)).await, Outcome::Accepted(_)));
        for epoch in 0..commits {
            let outcome = self.submit(SHARD, commit(name, epoch, b"c")).await;
            assert!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
        }
    }

    pub(crate) async fn head(
        &self,
        node_id: u64,
        name: &str,
        linearizable: bool,
    ) -> Result<Head, tonic::Status> {
        let request = GetHeadRequest { group_id: id(name), linearizable, include_group_info: false };
        let answer = self.ordering(node_id).await.get_head(request).await?;
        Ok(answer.into_inner().head.unwrap())
    }

    /// Every entry of a group as one node has it, once it has `count` of them.
    pub(crate) async fn entries(&self, node_id: u64, name: &str, count: u64) -> Vec<Entry> {
        until("the node has the entries", async || {
            self.head(node_id, name, false).await.is_ok_and(|head| head.seq >= count)
        })
        .await;
        let mut all: Vec<Entry> = Vec::new();
        let mut client = self.ordering(node_id).await;
        while (all.len() as u64) < count {
            let cursor = Some(CanonicalCursor { seq: all.len() as u64, chain_hash: Bytes::new() });
            let request =
                ReadEntriesRequest { group_id: id(name), cursor, max_entries: 0, linearizable: false };
            all.extend(client.read_entries(request).await.unwrap().into_inner().entries);
        }
        all.truncate(count as usize);
        all
    }

    pub(crate) async fn stop(self) {
        for node in self.nodes.into_iter().flatten() {
            node.stop().await;
        }
    }
}

pub(crate) fn url(node: &Running) -> String {
    format!("http://{}", node.addresses().api)
}

pub(crate) fn id(name: &str) -> Bytes {
    Bytes::copy_from_slice(name.as_bytes())
}

pub(crate) fn encode(command: Wrapped) -> Bytes {
    Command { command: Some(command) }.encode_to_vec().into()
}

fn group_command(name: &str, epoch: u64, content: Kind) -> Bytes {
    encode(Wrapped::Group(GroupSubmission {
        group_id: id(name),
        author: Bytes::from_static(b"alice"),
        epoch,
        parent_state_id: Bytes::new(),
        facts: None,
        content: Some(Content { content: Some(content) }),
        members_only: false,
    }))
}

/// A group at epoch 0.
pub(crate) fn create(name: &str) -> Bytes {
    create_with(name, None)
}

/// A group with a policy of its own.
pub(crate) fn create_with(name: &str, policy: Option<Policy>) -> Bytes {
    let group_info = Bytes::from_static(b"group info");
    group_command(name, 0, Kind::Create(Create { kind: GroupKind::Mls.into(), policy, group_info }))
}

/// Another policy in `epoch`.
pub(crate) fn policy(name: &str, epoch: u64, policy: Policy) -> Bytes {
    group_command(name, epoch, Kind::PolicyChange(PolicyChange { policy: Some(policy) }))
}

/// A commit that ends `epoch`. Other `bytes`, another commit.
pub(crate) fn commit(name: &str, epoch: u64, bytes: &[u8]) -> Bytes {
    let message = Bytes::from([bytes, b" ends ", &epoch.to_be_bytes()].concat());
    let commit = Commit { message, welcome: Bytes::new(), group_info: Bytes::new(), recipients: Vec::new() };
    group_command(name, epoch, Kind::Commit(commit))
}

/// The same, with the GroupInfo of the state it leads to.
pub(crate) fn published(name: &str, epoch: u64) -> Bytes {
    let message = Bytes::from(format!("a commit that ends {epoch}"));
    let group_info = Bytes::from(format!("group info of {}", epoch + 1));
    let (welcome, recipients) = (Bytes::new(), Vec::new());
    group_command(name, epoch, Kind::Commit(Commit { message, welcome, group_info, recipients }))
}

/// A commit that ends `epoch` and adds a client.
pub(crate) fn welcome(name: &str, epoch: u64, client: &str) -> Bytes {
    let recipients = vec![WelcomeRecipient { client_id: id(client), key_package_ref: id("ref") }];
    let [message, welcome, group_info] = ["adds", "welcome", "group info"].map(id);
    group_command(name, epoch, Kind::Commit(Commit { message, welcome, group_info, recipients }))
}

/// One submit stream.
pub(crate) struct Submitter {
    out: mpsc::Sender<SubmitRequest>,
    pub(crate) answers: Streaming<concordat_proto::ordering::v1::SubmitResponse>,
    ready: Vec<(u64, Outcome)>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Submitter {
    pub(crate) async fn open(client: OrderingClient<Channel>) -> Result<Self, tonic::Status> {
        let (out, requests) = mpsc::channel(16);
        let mut client = client.max_decoding_message_size(64 << 20);
        let answers = client.submit(ReceiverStream::new(requests)).await?.into_inner();
        Ok(Self { out, answers, ready: Vec::new() })
    }

    pub(crate) async fn send(&self, submissions: Vec<Submission>) {
        // A stream that ended shows when answers are read.
        let _ = self.out.send(SubmitRequest { submissions, ..SubmitRequest::default() }).await;
    }

    /// The next answer; None when the stream ended.
    pub(crate) async fn next(&mut self) -> Option<(u64, Outcome)> {
        while self.ready.is_empty() {
            let response = self.answers.message().await.ok()??;
            let answers = response.outcomes.into_iter();
            self.ready = answers.map(|a| (a.id, a.outcome.unwrap().outcome.unwrap())).collect();
            self.ready.reverse();
        }
        self.ready.pop()
    }

    pub(crate) async fn try_submit(&mut self, shard: u32, command: Bytes) -> Option<Outcome> {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        self.send(vec![Submission { id, shard, command }]).await;
        loop {
            let (answered, outcome) = self.next().await?;
            if answered == id {
                return Some(outcome);
            }
        }
    }

    pub(crate) async fn submit(&mut self, shard: u32, command: Bytes) -> Outcome {
        self.try_submit(shard, command).await.expect("the stream lives")
    }

    /// No more submissions.
    pub(crate) fn finish(self) -> Streaming<concordat_proto::ordering::v1::SubmitResponse> {
        self.answers
    }
}

/// One subscription stream.
pub(crate) struct Subscriber {
    pub(crate) out: mpsc::Sender<SubscribeRequest>,
    pub(crate) responses: Streaming<SubscribeResponse>,
}

impl Subscriber {
    pub(crate) async fn open(mut client: OrderingClient<Channel>) -> Self {
        let (out, requests) = mpsc::channel(16);
        let responses = client.subscribe(ReceiverStream::new(requests)).await.unwrap().into_inner();
        Self { out, responses }
    }

    pub(crate) async fn follow(&self, id: u64, name: &str, seq: u64, chain_hash: Bytes) {
        let cursor = Some(CanonicalCursor { seq, chain_hash });
        let follow = FollowGroup { id, group_id: self::id(name), cursor };
        self.out.send(SubscribeRequest { request: Some(Request::Follow(follow)) }).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> (u64, Response) {
        let response = tokio::time::timeout(PATIENCE, self.responses.message()).await;
        let response = response.expect("in time").unwrap().expect("the stream lives");
        (response.id, response.response.unwrap())
    }

    /// Entries of one subscription until its log reaches `last`. Panics on a gap or a repetition.
    pub(crate) async fn entries(&mut self, after: u64, last: u64) -> Vec<Entry> {
        let mut all: Vec<Entry> = Vec::new();
        while all.last().map_or(after, |e| e.seq) < last {
            if let (_, Response::Entries(entries)) = self.next().await {
                for entry in entries.entries {
                    assert_eq!(entry.seq, all.last().map_or(after, |e| e.seq) + 1, "a gap or a repetition");
                    all.push(entry);
                }
            }
        }
        all
    }
}
