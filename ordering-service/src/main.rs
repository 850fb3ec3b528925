//! The ordering-service process: a node of a cluster, or an operator's call to one.

use std::process::ExitCode;

use clap::Parser;
use ordering_service::cli::{Cli, run};

/// Entries are allocated by one thread and freed by another, with RocksDB's memory in between (it allocates here, too).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ordering-service: {error:#}");
            ExitCode::FAILURE
        }
    }
}
