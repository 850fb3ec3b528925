//! A plain DeMLS group beside the DGroup, at those of the gateways that stand in front of a cluster: the same endpoints, over the same links.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use mls_client::{
    Client, ClientId, DEFAULT_CIPHERSUITE, GroupId, GroupKind, GroupView, GrpcTransport, Identity, NewGroup,
    Options, Randomness, Running, Status, Store,
};
use testbed::wait::until;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

/// How long somebody waits for an answer. What has none by then goes on in the background.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long setting up may take, on however busy a machine.
const JOIN: Duration = Duration::from_secs(300);
/// The group has not changed for so long: it never will.
const STANDSTILL: Duration = Duration::from_secs(180);
/// Between two looks at the group.
const LOOK: Duration = Duration::from_millis(200);
/// More than anybody says.
const ALL: usize = 100_000;

/// The group, and all its members.
pub(crate) struct Beside {
    group: GroupId,
    members: Vec<(Client, Running)>,
    said: Vec<Vec<u8>>,
    /// What is under way.
    acts: JoinSet<()>,
}

impl Beside {
    /// A member at each of the gateways.
    pub(crate) async fn start(gateways: &[String], dir: &Path, seed: u64) -> anyhow::Result<Self> {
        let mut members = Vec::new();
        for (number, gateway) in gateways.iter().enumerate() {
            let id = ClientId::new(format!("beside-{}", number + 1))?;
            let mut store = Store::open(&dir.join(format!("beside-{}.state", number + 1)))?;
            Identity::create(&mut store, id.clone(), DEFAULT_CIPHERSUITE)?;
            let transport = Arc::new(GrpcTransport::new(&format!("http://{gateway}"), &id)?);
            let rng = Randomness::from_seed(seed ^ number as u64);
            let client =
                Client::new(store, transport, Options { patience: JOIN, ..Options::default() }, rng)?;
            client.publish_key_packages().await?;
            let running = client.start();
            members.push((client, running));
        }
        let founder = &members[0].0;
        let group = founder
            .create_group(NewGroup { kind: GroupKind::Demls, ..NewGroup::default() })
            .await
            .context("creating the DeMLS group")?;
        let others: Vec<_> = members[1..].iter().map(|(client, _)| client.id().clone()).collect();
        founder.invite(&group, &others).await.context("inviting to the DeMLS group")?;
        let beside = Beside { group, members, said: Vec::new(), acts: JoinSet::new() };
        let all = beside.members.len();
        until("all members to join the DeMLS group".to_owned(), JOIN, || {
            let inside = beside.views().iter().filter(|view| view.status == Status::Active).count();
            (inside == all).then_some(())
        })
        .await?;
        Ok(beside)
    }

    /// Somebody says something, and somebody else renews its keys, whether there is a quorum or not.
    pub(crate) fn act(&mut self, round: usize) {
        let all = self.members.len();
        let body = format!("round {round} of the DeMLS group").into_bytes();
        self.said.push(body.clone());
        let (speaker, updater) =
            (self.members[round % all].0.clone(), self.members[(round / all) % all].0.clone());
        let group = self.group.clone();
        self.acts.spawn(async move {
            // Without an answer it stays in the outbox, and is sent later.
            let _ = timeout(PATIENCE, speaker.send(&group, body)).await;
            if round.is_multiple_of(all) {
                let _ = timeout(PATIENCE, updater.update(&group)).await;
            }
        });
    }

    /// Everything that was begun has an answer, or goes on in the background.
    pub(crate) async fn rest(&mut self) {
        while self.acts.join_next().await.is_some() {}
    }

    fn views(&self) -> Vec<GroupView> {
        self.members.iter().filter_map(|(client, _)| client.group(&self.group).ok()).collect()
    }

    /// Whether all are in one state, with nothing provisional, owed or retained.
    pub(crate) fn is_settled(&self) -> bool {
        let views = self.views();
        let Some(first) = views.first() else { return false };
        views.len() == self.members.len()
            && views.iter().all(|view| {
                view.status == Status::Active
                    && view.members.len() == self.members.len()
                    && view.state_id == first.state_id
                    && view.epoch_authenticator == first.epoch_authenticator
                    && view.seq == first.seq
                    && view.outbox == 0
                    && !view.commit_pending
                    && !view.provisional
                    && !view.repairing
                    && view.retained_states == 1
            })
    }

    /// Waits until it is settled and everybody has read everything, as long as anything changes.
    pub(crate) async fn settle(&self) -> anyhow::Result<()> {
        let (mut last, mut changed) = (String::new(), Instant::now());
        while !self.is_settled() || self.missing() > 0 {
            let now = format!("{}; {} readings missing", self.what_is_left(), self.missing());
            if now != last {
                (last, changed) = (now, Instant::now());
            }
            anyhow::ensure!(changed.elapsed() < STANDSTILL, "nothing has changed for {STANDSTILL:?}: {last}");
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// How many readings are missing: everybody has to read everything.
    pub(crate) fn missing(&self) -> usize {
        let lacks = |client: &Client| {
            let read = client.messages(&self.group, 0, ALL).unwrap_or_default();
            self.said.iter().filter(|body| !read.iter().any(|message| message.body == **body)).count()
        };
        self.members.iter().map(|(client, _)| lacks(client)).sum()
    }

    /// The group in words.
    pub(crate) fn told(&self) -> String {
        let views = self.views();
        let epoch = views.iter().map(|view| view.epoch).max().unwrap_or_default();
        format!("{} members, epoch {epoch}, {} messages", self.members.len(), self.said.len())
    }

    /// What keeps it from being settled.
    fn what_is_left(&self) -> String {
        let tell = |view: &GroupView| {
            format!(
                "{:?} seq {} epoch {} outbox {} pending {} provisional {} repairing {} states {}",
                view.status,
                view.seq,
                view.epoch,
                view.outbox,
                view.commit_pending,
                view.provisional,
                view.repairing,
                view.retained_states
            )
        };
        self.views().iter().map(tell).collect::<Vec<_>>().join("; ")
    }
}
