//! The `mls-gateway` program.

use std::process::ExitCode;

use clap::Parser;
use mls_gateway::cli::Cli;

/// Entries are allocated by one thread and freed by another.
#[global_allocator]
static ALLOCATOR: allocator::MiMalloc = allocator::MiMalloc;

fn main() -> ExitCode {
    allocator::give_back_soon();
    run_command()
}

#[tokio::main]
async fn run_command() -> ExitCode {
    match Cli::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mls-gateway: {error:#}");
            ExitCode::FAILURE
        }
    }
}
