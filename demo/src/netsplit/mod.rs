//! The second act: the network splits, first in two, then in three; DeMLS groups go on everywhere, plain MLS groups only with a quorum;
//! a gateway dies while it holds a branch; the sites come back, one of them late; and in the end everybody is in one state.

mod acts;
mod proof;
mod report;
mod script;
mod steps;
mod world;

use std::time::Duration;

use links::Cut;
use mls_client::GroupKind;
use testbed::{ordering::OrderingClient, wait::until};
use tokio::time::sleep;

use self::{
    steps::Steps,
    world::{Group, SITES, World},
};
use crate::{args::Args, limits::SETTLE_DEADLINE, progress::Progress};

/// How long the last site stays away after the others are together again.
const LATE: Duration = Duration::from_secs(3);

/// Runs everything. Returns whether the proof succeeded.
pub(crate) async fn run(args: &Args) -> anyhow::Result<bool> {
    let progress = Progress::new();
    let seed = args.seed.unwrap_or_else(|| rand::random::<u32>().into());
    progress.done(&format!("act two: the network splits; seed {seed}"));
    let world = World::start(args.groups_per_kind(), seed, &progress).await?;
    let outcome = play(&world, &progress).await;
    progress.finish();
    if args.keep || !matches!(outcome, Ok(true)) {
        world.cluster.keep_dir();
        eprintln!("Data and logs are kept in {}", world.cluster.dir().display());
    }
    outcome
}

async fn play(world: &World, progress: &Progress) -> anyhow::Result<bool> {
    let mut steps = Steps::default();
    script::together(&world.groups).await;
    progress.done("everybody has spoken");

    world.links.split(&[&[SITES[0], SITES[1]], &[SITES[2]]], Cut::Stall)?;
    progress.done(&format!("{} is cut off from the others", SITES[2]));
    let forking = script::fork(&world.groups, &[2]);
    steps.fork("minority cut off, until a branch takes a commit", forking).await?;
    steps.time("commits, adds, removals and messages on both sides", script::two_sides(&world.groups)).await;
    progress.done(&format!("both sides have committed and spoken: {}", tally(world)));

    world.links.split(&[], Cut::Stall)?;
    progress.done("all three sites are cut off from one another");
    let forking = script::fork(&world.groups, &[0, 1]);
    steps.fork("all cut off, until the first two sites' branches take a commit", forking).await?;
    steps
        .time("commits, adds, removals and messages at every site", script::three_sides(&world.groups))
        .await;
    progress.done(&format!("every site has committed and spoken: {}", tally(world)));

    steps
        .time("a gateway killed while it holds branches, until it serves them again", kill_gateway(world, 2))
        .await?;
    progress.done(&format!("the gateway in {} was killed while it held branches, and is back", SITES[2]));

    world.links.heal_both(SITES[0], SITES[1])?;
    progress.done(&format!("{} and {} reach each other again", SITES[0], SITES[1]));
    sleep(LATE).await;
    world.links.heal_all();
    progress.done(&format!("{} is back as well, {} s late", SITES[2], LATE.as_secs()));
    let in_one_state = settle(world, progress, "in one state with nothing left to do", proof::is_of_one_mind);
    steps.time("last link healed, until one state everywhere and nothing left to do", in_one_state).await;
    let retaining_nothing = settle(world, progress, "retaining nothing", proof::is_settled);
    steps.time("from then on, until nothing is retained", retaining_nothing).await;
    progress.done("everybody has come to rest");

    world.cluster.wait_caught_up().await?;
    let ids: Vec<_> = world.groups.iter().map(|group| group.id.clone()).collect();
    let logs =
        OrderingClient::new(world.cluster.ordering_addresses()).read_whole(&world.cluster, &ids).await?;
    let mut findings = std::mem::take(&mut steps.findings);
    let proofs: Vec<_> = world.groups.iter().map(|group| proof::prove(group, &logs, &mut findings)).collect();
    progress.finish();
    report::print(&steps, &proofs, &findings);
    Ok(findings.is_empty())
}

async fn kill_gateway(world: &World, site: usize) -> anyhow::Result<()> {
    let gateway = world.cluster.gateways()[site].clone();
    gateway.service().kill().await?;
    gateway.service().start()?;
    gateway.service().wait_live().await?;
    script::after_a_death(&world.groups, site).await;
    Ok(())
}

/// Waits until every group has come so far. Those that have not are shown, and found by the proof.
async fn settle(world: &World, progress: &Progress, what: &str, is_settled: fn(&Group) -> bool) {
    for group in &world.groups {
        progress.now(format!("waiting until {} is {what}", group.name));
        let settled = until(format!("{} to be {what}", group.name), SETTLE_DEADLINE, || {
            is_settled(group).then_some(())
        });
        if settled.await.is_err() {
            progress.done(&format!("{} is not {what}:\n  {}", group.name, proof::what_is_left(group)));
        }
    }
}

fn tally(world: &World) -> String {
    let sum = |kind: GroupKind, of: fn(&Group) -> usize| -> usize {
        world.groups.iter().filter(|group| group.kind == kind).map(of).sum()
    };
    format!(
        "DeMLS: {} commits by the quorum, {} on branches; plain MLS: {} by the quorum, {} on branches, {} operations waiting",
        sum(GroupKind::Demls, |g| g.deeds().accepted),
        sum(GroupKind::Demls, |g| g.deeds().provisional),
        sum(GroupKind::Mls, |g| g.deeds().accepted),
        sum(GroupKind::Mls, |g| g.deeds().provisional),
        sum(GroupKind::Mls, |g| g.deeds().waiting)
    )
}
