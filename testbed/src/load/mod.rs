//! Load for the ordering API, recorded: clients that race for every epoch, readers, and subscribers on every node.

mod brancher;
mod follower;
mod reader;
mod route;
mod worker;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use group_log::GroupId;
use rand::RngCore;
use service_kit::tls::Role;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use self::route::{GatewayRoute, Route};
use crate::{
    Cluster,
    check::{BranchSummary, FinalLogs, Report, Summary, check, check_branches, unrecorded},
    cluster::ClusterError,
    history::{History, Record},
    limits::{BRANCH_REST_DEADLINE, POLL_INTERVAL, READY_DEADLINE},
    ordering::{NoAnswer, OrderingClient, ReadError, WholeLogs},
    seed,
    wait::{Timeout, until},
};

/// The client in whose name everything is submitted to groups without branches.
const AUTHOR: &[u8] = b"load";

/// What the load consists of.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Groups.
    pub groups: usize,
    /// Clients that race for each group.
    pub clients_per_group: usize,
    /// Clients beside them that race for each group through gateways.
    pub gateway_clients_per_group: usize,
    /// Groups with branches (DeMLS), beside the others. Each has two clients at every gateway. Only at clusters without certificates:
    /// these groups show no tree, so that gateways that ask for members find none.
    pub branching_groups: usize,
    /// Data shards of the cluster.
    pub data_shards: u32,
    /// Length of a message in bytes, at least 32.
    pub message_bytes: usize,
    /// Seed of everything random.
    pub seed: u64,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            groups: 8,
            clients_per_group: 4,
            gateway_clients_per_group: 0,
            branching_groups: 0,
            data_shards: 2,
            message_bytes: 200,
            seed: 0,
        }
    }
}

/// The end of a run went wrong.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The cluster does not come to rest.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A subscriber did not receive everything.
    #[error(transparent)]
    Timeout(#[from] Timeout),
    /// What clients saw does not fit the logs.
    #[error(transparent)]
    Wrong(#[from] Report),
    /// A group could not be created.
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
}

/// What a correct run consisted of, in groups of both kinds.
#[derive(Debug, Clone, Copy)]
pub struct Summaries {
    /// In groups without branches.
    pub ordered: Summary,
    /// In groups with branches.
    pub branching: BranchSummary,
}

/// A running load.
#[derive(Debug)]
pub struct Load {
    client: OrderingClient,
    groups: Vec<GroupId>,
    branching: Vec<GroupId>,
    history: Arc<History>,
    accepted: Arc<AtomicU64>,
    provisional: Arc<AtomicU64>,
    stop: CancellationToken,
    workers: JoinSet<()>,
    followers: Vec<follower::Follower>,
}

impl Load {
    /// Creates the groups and starts clients, readers and one subscriber a node.
    pub async fn start(cluster: &Cluster, options: &LoadOptions) -> Result<Self, LoadError> {
        let client = cluster.ordering_client()?;
        let caller = cluster.dialer(&Role::Client(AUTHOR.to_vec()))?;
        let history = Arc::new(History::new());
        let (accepted, provisional) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let stop = CancellationToken::new();
        let mut workers = JoinSet::new();
        let mut groups = Vec::new();
        let mut draw = seed::rng(options.seed, 0);
        for number in 0..options.groups {
            let name = format!("group-{number}-{:08x}", draw.next_u32());
            let group = GroupId::new(name.into_bytes()).expect("a short name is a group id");
            let wanted = 1 + (number as u32) % options.data_shards;
            let shard = client.assign(&group, wanted, READY_DEADLINE).await?;
            let racers = options.clients_per_group + options.gateway_clients_per_group;
            for racer in 0..racers {
                let part = 1 + (number * racers + racer) as u64;
                let route = if racer < options.clients_per_group {
                    Route::Ordering { client: client.clone(), shard }
                } else {
                    Route::Gateway(GatewayRoute::new(caller.clone(), cluster.gateway_addresses(), racer))
                };
                let worker = worker::Worker::new(
                    client.clone(),
                    Arc::clone(&history),
                    Arc::clone(&accepted),
                    group.clone(),
                    route,
                    options.message_bytes,
                    seed::rng(options.seed, part),
                );
                workers.spawn(worker.run(stop.clone()));
            }
            groups.push(group);
        }
        let mut branching = Vec::new();
        for number in 0..options.branching_groups {
            let name = format!("branching-{number}-{:08x}", draw.next_u32());
            let group = GroupId::new(name.into_bytes()).expect("a short name is a group id");
            for (place, gateway) in cluster.gateway_addresses().iter().enumerate() {
                for twin in 0..2 {
                    let part = u64::MAX / 2 + (number * 1000 + place * 2 + twin) as u64;
                    let brancher = brancher::Brancher::new(
                        Arc::clone(&history),
                        Arc::clone(&accepted),
                        Arc::clone(&provisional),
                        group.clone(),
                        gateway,
                        format!("client-{place}-{twin}"),
                        options.message_bytes,
                        seed::rng(options.seed, part),
                    );
                    workers.spawn(brancher.run(stop.clone()));
                }
            }
            branching.push(group);
        }
        let reads = reader::run(
            client.clone(),
            Arc::clone(&history),
            cluster.ordering_addresses(),
            groups.clone(),
            seed::rng(options.seed, u64::MAX),
            stop.clone(),
        );
        workers.spawn(reads);
        let followers = cluster
            .nodes()
            .iter()
            .map(|node| follower::Follower::start(&client, node, &groups, &history, options.seed))
            .collect();
        Ok(Self { client, groups, branching, history, accepted, provisional, stop, workers, followers })
    }

    /// Answers that accepted something, so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Answers that accepted something on a branch, so far.
    pub fn provisional(&self) -> u64 {
        self.provisional.load(Ordering::Relaxed)
    }

    /// Waits until `more` further submissions were accepted on branches.
    pub async fn branch_progress(&self, more: u64, deadline: Duration) -> Result<(), Timeout> {
        let wanted = self.provisional() + more;
        until(format!("{more} more submissions accepted on branches"), deadline, || {
            (self.provisional() >= wanted).then_some(())
        })
        .await
    }

    /// Waits until `more` further submissions were accepted.
    pub async fn progress(&self, more: u64, deadline: Duration) -> Result<(), Timeout> {
        let wanted = self.accepted() + more;
        until(format!("{more} more accepted submissions"), deadline, || {
            (self.accepted() >= wanted).then_some(())
        })
        .await
    }

    /// The groups that are worked on.
    pub fn groups(&self) -> &[GroupId] {
        &self.groups
    }

    /// Ends the load, lets the cluster come to rest, and checks everything that was seen.
    pub async fn finish(self, cluster: &Cluster) -> Result<Summary, LoadError> {
        Ok(self.finish_all(cluster).await?.ordered)
    }

    /// The same, and what was seen in groups with branches.
    pub async fn finish_all(self, cluster: &Cluster) -> Result<Summaries, LoadError> {
        let (client, branching) = (self.client.clone(), self.branching.clone());
        let (record, logs) = self.collect(cluster).await?;
        let ordered = check(&record, &logs)?;
        let mut logs = client.read_whole(cluster, &branching).await?;
        let begun = Instant::now();
        // Gateways report and acknowledge in their own time, so logs still grow while nodes are read one after another. What never comes,
        // or differs for good, is found by the check.
        let is_at_rest = |logs: &WholeLogs| {
            let same = |copies: &BTreeMap<_, Vec<_>>| {
                let mut copies = copies.values();
                let first = copies.next();
                copies.all(|other| Some(other) == first)
            };
            unrecorded(&record.branch_calls, logs) == 0 && logs.values().all(same)
        };
        while !is_at_rest(&logs) && begun.elapsed() < BRANCH_REST_DEADLINE {
            sleep(POLL_INTERVAL).await;
            cluster.wait_caught_up().await?;
            logs = client.read_whole(cluster, &branching).await?;
        }
        Ok(Summaries { ordered, branching: check_branches(&record.branch_calls, &logs)? })
    }

    async fn collect(mut self, cluster: &Cluster) -> Result<(Record, FinalLogs), LoadError> {
        self.stop.cancel();
        while let Some(ended) = self.workers.join_next().await {
            // A panic in there is a finding of its own.
            if let Err(error) = ended
                && let Ok(panic) = error.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            }
        }
        cluster.wait_caught_up().await?;
        let logs = self.client.read_all(cluster, &self.groups).await?;
        let ends: BTreeMap<GroupId, u64> = logs
            .iter()
            .map(|(group, copies)| (group.clone(), copies.values().map(Vec::len).max().unwrap_or(0) as u64))
            .collect();
        let running: Vec<_> = cluster
            .nodes()
            .iter()
            .filter(|n| n.service().is_running())
            .map(|n| n.address().to_owned())
            .collect();
        for follower in self.followers {
            if running.contains(&follower.address) {
                follower.wait_until(&ends).await?;
            }
            follower.finish().await;
        }
        Ok((self.history.take(), logs))
    }
}
