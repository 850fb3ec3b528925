//! `make demo`, in two acts: real MLS groups, through two gateways into a cluster of three nodes, while the leader is killed and comes
//! back; and groups of both kinds at three sites, while the network between them splits and heals. Each ends with the proof that nothing
//! was lost; the exit status is 0 only if that is so.

mod activity;
mod args;
mod crash;
mod limits;
mod messages;
mod netsplit;
mod progress;
mod proof;
mod report;
mod roster;
mod scenario;
mod world;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Act, Args};

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    match play(&args).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Plays the acts that are asked for. Returns whether all proofs succeeded.
async fn play(args: &Args) -> anyhow::Result<bool> {
    let first = !args.plays(Act::One) || scenario::run(args).await?;
    let second = !args.plays(Act::Two) || netsplit::run(args).await?;
    Ok(first && second)
}
