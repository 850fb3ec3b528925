//! The `mls-gateway` program.

use std::process::ExitCode;

use clap::Parser;
use mls_gateway::cli::Cli;

/// Entries are allocated by one thread and freed by another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mls-gateway: {error:#}");
            ExitCode::FAILURE
        }
    }
}
