//! `bench`: real processes, real disks, measured. See docs/benchmarks.md.

mod advise;
mod args;
mod limits;
mod machine;
mod measure;
mod page;
mod paths;
mod peers;
mod process;
mod progress;
mod report;
mod scale;
mod systems;
mod topology;
mod wake;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command};

#[tokio::main]
async fn main() -> ExitCode {
    let ran = match Args::parse().command {
        Command::Peers(options) => peers::run(options).await,
        Command::Scale(options) => scale::run(options).await,
        Command::Topology(options) => topology::run(options).await,
        Command::Advise(options) => advise::run(&options),
        Command::FloorNode(options) => systems::run_floor_node(options).await,
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
