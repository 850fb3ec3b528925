//! The command line of `mls-client`: see `mls-client --help`.

mod cli;

use std::process::ExitCode;

use clap::Parser;
use service_kit::telemetry;

#[tokio::main]
async fn main() -> ExitCode {
    let args = cli::Args::parse();
    if let Err(error) = telemetry::init(false, "warn") {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    match cli::run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
