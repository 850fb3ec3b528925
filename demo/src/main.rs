//! `make demo`: real MLS groups, through two gateways into a cluster of three nodes, while the leader is killed and comes back. Ends
//! with the proof that nothing was lost; the exit status is 0 only if that is so.

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

#[tokio::main]
async fn main() -> ExitCode {
    let args = args::Args::parse();
    let played = if args.netsplit { netsplit::run(&args).await } else { scenario::run(&args).await };
    match played {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
