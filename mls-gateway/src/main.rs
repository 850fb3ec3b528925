//! The `mls-gateway` program.

use std::process::ExitCode;

use clap::Parser;
use mls_gateway::cli::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = service_kit::telemetry::init(cli.log_json, "info,openraft=error") {
        eprintln!("mls-gateway: {error}");
        return ExitCode::FAILURE;
    }
    match cli.run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mls-gateway: {error:#}");
            ExitCode::FAILURE
        }
    }
}
