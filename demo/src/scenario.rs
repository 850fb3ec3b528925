//! The course of events.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use group_log::GroupId;
use mls_client::Status;
use testbed::{Cluster, ClusterOptions, ordering::OrderingClient, wait::until};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    activity::{self, Tally},
    args::Args,
    crash,
    limits::SETTLE_DEADLINE,
    progress::Progress,
    proof::{self, Findings},
    report,
    world::{self, Group},
};

const DATA_SHARDS: u32 = 2;

/// Runs everything. Returns whether the proof succeeded.
pub(crate) async fn run(args: &Args) -> anyhow::Result<bool> {
    let progress = Progress::new();
    let seed = args.seed.unwrap_or_else(|| rand::random::<u32>().into());
    progress.done(&format!("act one: the leader crashes; seed {seed}"));

    progress.now("starting three ordering nodes and two gateways".into());
    let options =
        ClusterOptions { nodes: 3, gateways: 2, data_shards: DATA_SHARDS, ..ClusterOptions::default() };
    let cluster = Cluster::start(options).await.context("starting the cluster")?;
    if args.keep {
        cluster.keep_dir();
    }
    let dir = cluster.dir();
    progress.done(&format!(
        "three ordering nodes and two gateways are ready; data and logs are in {}",
        dir.display()
    ));

    let outcome = with_cluster(args, seed, &cluster, &dir, &progress).await;
    progress.finish();
    if !matches!(outcome, Ok(true)) {
        cluster.keep_dir();
    }
    if args.keep || !matches!(outcome, Ok(true)) {
        eprintln!("Data and logs are kept in {}", dir.display());
    }
    outcome
}

async fn with_cluster(
    args: &Args,
    seed: u64,
    cluster: &Cluster,
    dir: &Path,
    progress: &Progress,
) -> anyhow::Result<bool> {
    let sizes = args.sizes();
    let groups = world::build(sizes, &cluster.gateway_addresses(), dir, seed, progress).await?;
    progress.done(&format!("{} groups of {sizes:?} members, spread over both gateways", groups.len()));

    let (stop, tally) = (CancellationToken::new(), Arc::new(Tally::default()));
    let mut tasks = activity::begin(&groups, seed, &stop, &tally);
    watch(args.work() / 2, &tally, progress).await;
    let crash = crash_under_load(cluster, &tally, progress).await?;
    watch(args.work() / 2, &tally, progress).await;
    stop.cancel();
    let finished = timeout(SETTLE_DEADLINE, async { while tasks.join_next().await.is_some() {} });
    finished.await.context("members did not finish what they had begun")?;
    progress.done(&format!("everybody has finished: {}", tally.line()));

    settle(&groups, progress).await?;
    cluster.wait_caught_up().await?;
    let ids: Vec<GroupId> = groups.iter().map(|group| group.id.clone()).collect();
    let logs = OrderingClient::new(cluster.ordering_addresses()).read_all(cluster, &ids).await?;
    let mut findings = Findings::default();
    for error in tally.errors.lock().unwrap_or_else(std::sync::PoisonError::into_inner).drain(..) {
        findings.add(error);
    }
    let mut proofs = Vec::new();
    for group in &groups {
        progress.now(format!("proving {}", group.name));
        proofs.push(proof::prove(group, &logs, &mut findings).await);
    }
    progress.finish();
    let retried = retried_by_gateways(cluster).await;
    report::print(&groups, &tally, &crash, retried, &proofs, &findings);
    Ok(findings.all().is_empty())
}

/// Submissions that gateways have made again by themselves: after a change of leader, or after an answer was lost.
async fn retried_by_gateways(cluster: &Cluster) -> u64 {
    let mut retried = 0.0;
    for gateway in cluster.gateways() {
        let metrics = gateway.service().metrics().await.unwrap_or_default();
        retried += metrics.sum("concordat_gateway_retries_total").unwrap_or(0.0);
    }
    retried as u64
}

/// Shows what goes on for a while.
async fn watch(time: Duration, tally: &Tally, progress: &Progress) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        progress.now(format!("everybody is at work: {}", tally.line()));
        sleep(Duration::from_millis(200)).await;
    }
}

async fn crash_under_load(
    cluster: &Cluster,
    tally: &Tally,
    progress: &Progress,
) -> anyhow::Result<crash::Crash> {
    let crash = crash::run(cluster, DATA_SHARDS, progress);
    tokio::pin!(crash);
    loop {
        tokio::select! {
            crash = &mut crash => return crash,
            () = sleep(Duration::from_millis(200)) => progress.now(format!("without one node: {}", tally.line())),
        }
    }
}

/// Waits until nobody has anything unfinished, and everybody in a group is where its founder is.
async fn settle(groups: &[Arc<Group>], progress: &Progress) -> anyhow::Result<()> {
    for group in groups {
        progress.now(format!("waiting for all members of {}", group.name));
        for member in group.members.iter().filter(|member| member.is_in(&group.id)) {
            // What is left over goes on in the background; here it only goes on at once.
            let _ = member.client.resume(&group.id).await;
            let _ = member.client.flush(&group.id).await;
        }
        until(format!("all members of {} to be in one epoch", group.name), SETTLE_DEADLINE, || {
            is_settled(group).then_some(())
        })
        .await?;
    }
    progress.done("all members are in the newest epoch of their groups");
    Ok(())
}

fn is_settled(group: &Group) -> bool {
    let Ok(founder) = group.members[0].client.group(&group.id) else { return false };
    group.members.iter().all(|member| {
        let named = founder.members.iter().any(|m| m == member.id().as_bytes());
        match member.client.group(&group.id) {
            Ok(view) if view.status == Status::Active => {
                named && view.seq == founder.seq && view.outbox == 0 && !view.commit_pending
            }
            // Whatever else it is, waiting does not change it, unless its Welcome is still on the way.
            _ => !named,
        }
    })
}
