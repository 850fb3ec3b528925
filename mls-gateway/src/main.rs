//! The `mls-gateway` program.

use std::process::ExitCode;

use clap::Parser;
use mls_gateway::cli::Cli;

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
