//! The ordering-service process: a node of a cluster, or an operator's call to one.

use std::process::ExitCode;

use clap::Parser;
use ordering_service::cli::{Cli, run};

/// Entries are allocated by one thread and freed by another, with RocksDB's memory in between (it allocates here, too).
#[global_allocator]
static ALLOCATOR: allocator::MiMalloc = allocator::MiMalloc;

fn main() -> ExitCode {
    allocator::give_back_soon();
    run_command()
}

#[tokio::main]
async fn run_command() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ordering-service: {error:#}");
            ExitCode::FAILURE
        }
    }
}
