//! `make demo-mesh`: seven gateways whose links come and go and are never all up at once, twelve members of one DGroup at them, and a plain
//! DeMLS group beside it at those three that stand in front of an ordering node. Ends with the proof that every message reached everyone
//! entitled to it, and that every member took in everyone's latest UPDATE; the exit status is 0 only if that is so.

mod beside;
mod gateways;
mod intruder;
mod members;
mod pace;
mod proof;
mod schedule;

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Parser;
use mls_client::dimls::Policy;

use self::{
    beside::Beside,
    gateways::{Gateways, WITH_CLUSTER},
    members::Members,
    schedule::Schedule,
};

/// Gateways.
const GATEWAYS: usize = 7;
/// Members of the DGroup.
const MEMBERS: usize = 12;
/// The member that stays away.
const AWAY: usize = MEMBERS - 1;
const HOUR: u64 = 3_600_000;

/// Seven gateways, links that come and go, twelve members in one DGroup and a DeMLS group beside it.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Repeats which links are up when.
    #[arg(long)]
    seed: Option<u64>,
    /// Everything sooner: about a minute.
    #[arg(long)]
    quick: bool,
    /// Keep data and logs.
    #[arg(long)]
    keep: bool,
}

/// How long things take: seconds where a deployment has hours and days.
struct Times {
    policy: Policy,
    /// How long the same links are up.
    turn: Duration,
    /// How long the members talk, at least.
    talk: Duration,
}

impl Times {
    fn of(quick: bool) -> Self {
        let (replace_every_ms, offline_after_ms) = if quick { (8000, 25_000) } else { (10_000, 60_000) };
        Times {
            policy: Policy { acknowledge_after_ms: 500, replace_every_ms, offline_after_ms },
            turn: Duration::from_millis(if quick { 1000 } else { 2000 }),
            talk: Duration::from_secs(if quick { 8 } else { 40 }),
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Args::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo-mesh: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> anyhow::Result<bool> {
    let seed = args.seed.unwrap_or_else(|| std::process::id().into());
    println!("seed {seed} (repeat the links with --seed {seed})");
    let dir = tempfile::tempdir().context("cannot make a temporary folder")?;
    let path = dir.path().to_owned();
    let outcome = play(&path, seed, &Times::of(args.quick)).await;
    if args.keep || !matches!(outcome, Ok(true)) {
        println!("Data and logs are kept in {}", dir.keep().display());
    }
    outcome
}

async fn play(dir: &std::path::Path, seed: u64, times: &Times) -> anyhow::Result<bool> {
    let begun = Instant::now();
    let said = |what: &str| println!("{:5.1} s  {what}", begun.elapsed().as_secs_f64());
    let gateways = Gateways::start(GATEWAYS, dir, seed).await?;
    let links = Arc::clone(gateways.links());
    said(&format!(
        "{GATEWAYS} gateways: {WITH_CLUSTER} in front of an ordering node at the first, {} without any; {} links, at most {} of them up at a time",
        GATEWAYS - WITH_CLUSTER,
        gateways.pairs().len(),
        schedule::UP_AT_ONCE
    ));
    let mut beside = Beside::start(&gateways.addresses()[..WITH_CLUSTER], dir, seed).await?;
    said(&format!("a DeMLS group at the {WITH_CLUSTER}: {}", beside.told()));
    let schedule = Schedule::start(Arc::clone(&links), gateways.pairs().to_vec(), seed, times.turn);

    // Nobody is taken for gone before everybody has come.
    let patient = Policy { offline_after_ms: 10 * HOUR, ..times.policy };
    let mut members = Members::start(MEMBERS, gateways.addresses(), dir, patient)?;
    members.wait("everybody is in everybody's Send Group", Members::apart).await?;
    said(&format!("all {MEMBERS} members are in all {MEMBERS} Send Groups"));
    members.stays_away(AWAY);
    members.policy(times.policy)?;
    said(&format!("{} stays away from now on, the others talk", members.name(AWAY)));
    members.talk(times.talk, AWAY, |round| beside.act(round)).await?;
    said(&format!("{} was removed by all others, each in its own Send Group", members.name(AWAY)));
    // From now on they say less.
    members.policy(patient)?;
    let attacks = intruder::try_everything(&members, gateways.addresses()).await?;
    members.wait("nobody has lost a Send Group", |members| members.lost(AWAY)).await?;
    // The last UPDATEs, so that there are latest ones. And after the removal nothing is for the removed any more.
    members.policy(Policy { replace_every_ms: HOUR, offline_after_ms: 10 * HOUR, ..times.policy })?;
    members.say_last_words(AWAY)?;
    members.update_all(AWAY)?;
    said("everybody has said a last word, and made a last UPDATE");
    let everywhere = |members: &Members| members.misread(AWAY) + members.stale_pairs(AWAY);
    if let Err(error) = members.wait("everything is everywhere", everywhere).await {
        said(&format!("NOT TRUE: {error:#}"));
    }
    members.comes_back(AWAY, gateways.addresses())?;
    let unknowing = |members: &Members| usize::from(!members.knows_it_is_out(AWAY));
    if let Err(error) = members.wait("the absent member learns that it is out", unknowing).await {
        said(&format!("NOT TRUE: {error:#}"));
    }
    said("everything is everywhere, and the absent member knows that it is out");
    beside.rest().await;
    let changes = schedule.stop().await;
    gateways.only_cluster()?;
    if let Err(error) = beside.settle().await {
        let logs = gateways.cluster_dir();
        said(&format!("NOT TRUE: the DeMLS group is not of one mind: {error:#}; logs in {}", logs.display()));
    }
    said("the DeMLS group has come to rest");
    Ok(proof::report(&members, AWAY, &attacks, &beside, &changes, links.all_bytes()))
}
