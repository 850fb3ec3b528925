//! `make demo-mesh`: seven gateways without any cluster, whose links come and go and are never all up at once, and twelve members of one
//! DGroup. Ends with the proof that every message reached everyone entitled to it, and that every member took in everyone's latest
//! UPDATE; the exit status is 0 only if that is so.

mod gateways;
mod intruder;
mod members;
mod proof;
mod schedule;

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use clap::Parser;
use mls_client::dimls::Policy;

use self::{gateways::Gateways, members::Members, schedule::Schedule};

/// Gateways.
const GATEWAYS: usize = 7;
/// Members of the DGroup.
const MEMBERS: usize = 12;
/// The member that stays away.
const AWAY: usize = MEMBERS - 1;
/// How long anything may take that has to happen in the end.
const PATIENCE: Duration = Duration::from_secs(180);
/// Minutes where a deployment has days.
const POLICY: Policy =
    Policy { acknowledge_after_ms: 300, replace_every_ms: 15_000, offline_after_ms: 60_000 };

/// Seven gateways without a cluster, links that come and go, twelve members in one DGroup.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Repeats which links are up when.
    #[arg(long)]
    seed: Option<u64>,
    /// How long the members talk, in seconds.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(5..=3600))]
    seconds: u64,
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
    let gateways = Gateways::start(GATEWAYS, dir.path(), seed).await?;
    let links = Arc::clone(gateways.links());
    let schedule = Schedule::start(Arc::clone(&links), gateways.pairs().to_vec(), seed);
    println!(
        "{GATEWAYS} gateways, no ordering node; {} links, at most {} of them up at a time",
        gateways.pairs().len(),
        schedule::UP_AT_ONCE
    );

    let mut members = Members::start(MEMBERS, gateways.addresses(), dir.path(), POLICY)?;
    members.wait("everybody is in everybody's Send Group", PATIENCE, Members::complete).await?;
    println!("all {MEMBERS} members are in all {MEMBERS} Send Groups");
    members.stays_away(AWAY);
    println!("{} stays away from now on", members.name(AWAY));
    members.talk(Duration::from_secs(args.seconds), AWAY).await?;
    let attacks = intruder::try_everything(&members, gateways.addresses()).await?;
    members
        .wait("the absent member is removed by everybody", PATIENCE, |members| members.all_removed(AWAY))
        .await?;
    println!("{} was removed by all others, each in its own Send Group", members.name(AWAY));
    // After the removal nothing is for it any more.
    members.say_last_words(AWAY)?;
    members.update_all(AWAY)?;
    members
        .wait("everything is everywhere", PATIENCE, |members| {
            members.all_read(AWAY) && members.all_taken_in(AWAY)
        })
        .await
        .unwrap_or_else(|error| eprintln!("demo-mesh: {error:#}"));
    let changes = schedule.stop().await;
    members.comes_back(AWAY, gateways.addresses())?;
    members
        .wait("the absent member learns that it is out", PATIENCE, |members| members.knows_it_is_out(AWAY))
        .await
        .unwrap_or_else(|error| eprintln!("demo-mesh: {error:#}"));
    Ok(proof::report(&members, AWAY, &attacks, &changes, links.all_bytes()))
}
