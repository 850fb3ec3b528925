//! A lost reply followed by the same bytes again: the same answer, also from another leader and from a log that was purged.

#![allow(clippy::unwrap_used)] // A panic in a test is its report.

use std::time::Duration;

use bytes::Bytes;
use concordat_proto::ordering::v1::{Command, outcome::Outcome};
use group_log::{
    ClientId, Commit, Content, Create, GroupId, GroupKind, Policy, StateId, Submission, limits::DEDUPE_WINDOW,
};
use prost::Message;
use rand::RngCore;
use testbed::{
    Cluster, ClusterOptions,
    ordering::{OrderingClient, group_command},
    seed,
    wait::eventually,
};

const DEADLINE: Duration = Duration::from_secs(60);
const ROUNDS: u64 = 20;

/// Something that was submitted, and what it was told.
struct Told {
    command: Command,
    answer: Outcome,
}

struct Writer {
    client: OrderingClient,
    group: GroupId,
    shard: u32,
    epoch: u64,
    state: Option<StateId>,
    rng: rand_chacha::ChaCha8Rng,
}

impl Writer {
    fn command(&self, content: Content) -> Command {
        group_command(Submission {
            group_id: self.group.clone(),
            author: ClientId::new("writer").unwrap(),
            epoch: self.epoch,
            parent_state_id: self.state,
            content,
        })
    }

    async fn submit(&self, command: &Command) -> Outcome {
        self.client.submit(self.shard, command, DEADLINE).await.unwrap()
    }

    fn message(&mut self) -> Bytes {
        let mut message = vec![0; 100];
        self.rng.fill_bytes(&mut message);
        message.into()
    }

    fn commit(&mut self) -> Command {
        let message = self.message();
        self.command(Content::Commit(Commit {
            message,
            welcome: Bytes::new(),
            group_info: Bytes::new(),
            recipients: Vec::new(),
        }))
    }

    /// One winner, one loser, one application message.
    async fn round(&mut self, told: &mut Vec<Told>) {
        let message = self.message();
        let commands = [self.command(Content::Application { message }), self.commit(), self.commit()];
        for (index, command) in commands.into_iter().enumerate() {
            let answer = self.submit(&command).await;
            match (&answer, index) {
                (Outcome::Accepted(accepted), 0 | 1) => {
                    self.epoch = accepted.epoch;
                    self.state = Some(StateId::from_slice(&accepted.state_id).unwrap());
                }
                (Outcome::Superseded(_), 2) => {}
                _ => panic!("submission {index} of a round was answered with {answer:?}"),
            }
            told.push(Told { command, answer });
        }
    }
}

async fn all_the_same(writer: &Writer, told: &[Told], when: &str) {
    for (index, Told { command, answer }) in told.iter().enumerate() {
        assert_eq!(&writer.submit(command).await, answer, "submission {index}, {when}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_bytes_get_the_same_answer_from_every_leader_and_after_purging() {
    let seed = seed::seed("lost replies");
    let node_args = ["--snapshot-every", "50", "--keep-entries", "10"].map(str::to_owned).to_vec();
    let cluster = Cluster::start(ClusterOptions { node_args, data_shards: 1, ..ClusterOptions::default() })
        .await
        .unwrap();
    let client = OrderingClient::new(cluster.ordering_addresses());
    let group = GroupId::new("the group").unwrap();
    let shard = client.assign(&group, 1, DEADLINE).await.unwrap();
    let mut writer = Writer { client, group, shard, epoch: 0, state: None, rng: seed::rng(seed, 0) };

    let create =
        Create { kind: GroupKind::Mls, policy: Policy::default(), group_info: Bytes::from_static(b"first") };
    let create = writer.command(Content::Create(create));
    let answer = writer.submit(&create).await;
    let Outcome::Accepted(accepted) = &answer else { panic!("the create was answered with {answer:?}") };
    writer.state = Some(StateId::from_slice(&accepted.state_id).unwrap());
    let mut told = vec![Told { command: create, answer }];
    for _ in 0..ROUNDS {
        writer.round(&mut told).await;
    }
    all_the_same(&writer, &told, "at once").await;

    // A reply that nobody waits for: the connection ends as soon as the submission is on its way.
    let lost = writer.commit();
    let leader = cluster.leader(1).await.unwrap();
    drop(
        tokio::time::timeout(
            Duration::from_millis(1),
            OrderingClient::new(vec![leader.address().to_owned()])
                .attempt(1, Bytes::from(lost.encode_to_vec())),
        )
        .await,
    );
    let answer = writer.submit(&lost).await;
    let Outcome::Accepted(accepted) = &answer else { panic!("the lost commit was answered with {answer:?}") };
    (writer.epoch, writer.state) = (accepted.epoch, Some(StateId::from_slice(&accepted.state_id).unwrap()));
    told.push(Told { command: lost, answer });
    all_the_same(&writer, &told, "after a reply was lost").await;

    leader.service().kill().await.unwrap();
    all_the_same(&writer, &told, "after the leader was killed").await;
    leader.service().start().unwrap();
    leader.service().wait_ready().await.unwrap();

    // More entries than a snapshot takes, and still within the window in which application messages are recognised.
    let before = told.len();
    while (told.len() - before) < 300 {
        writer.round(&mut told).await;
    }
    assert!((told.len() as u64) < DEDUPE_WINDOW);
    eventually("the logs to be purged", DEADLINE, async || {
        for node in cluster.nodes() {
            let status = node.admin().status().await.ok()?;
            let purged = status.shards.iter().find(|s| s.shard == 1)?.purged_index;
            if purged < before as u64 {
                return None;
            }
        }
        Some(())
    })
    .await
    .unwrap();
    all_the_same(&writer, &told, "after a snapshot and purging").await;
    for node in cluster.nodes() {
        node.service().kill().await.unwrap();
    }
    for node in cluster.nodes() {
        node.service().start().unwrap();
    }
    for node in cluster.nodes() {
        node.service().wait_ready().await.unwrap();
    }
    all_the_same(&writer, &told, "after all nodes were killed").await;
}
