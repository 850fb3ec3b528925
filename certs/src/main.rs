//! The concordat-certs command.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Parser, Subcommand};
use concordat_certs::{Folder, Lifetime, Plan};
use service_kit::tls::Role;

/// A CA for trying Concordat out with TLS: one command makes certificates for every part.
///
/// Not for production: the CA's key lies unprotected in the folder.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a CA, certificates for nodes, gateways and an operator, and a key for clients' tokens.
    Init {
        /// The folder; it must not hold a CA yet.
        dir: PathBuf,
        /// The trust domain: only parts of one domain speak to one another. Lower-case letters, digits, `-`, `.`, `_`.
        #[arg(long, default_value = "dev.concordat")]
        domain: String,
        /// Ordering nodes, numbered from 1.
        #[arg(long, default_value_t = 3)]
        nodes: u64,
        /// Gateways, numbered from 1.
        #[arg(long, default_value_t = 1)]
        gateways: u64,
        /// DNS names and IP addresses at which they are reached.
        #[arg(long = "host", value_name = "HOST", default_values_t = [String::from("localhost"), "127.0.0.1".into(), "::1".into()])]
        hosts: Vec<String>,
        /// How long everything is valid.
        #[arg(long, default_value_t = 30)]
        days: u32,
    },
    /// Issue one certificate, also in place of an old one (a running process takes it by itself).
    Issue {
        /// The folder that `init` made.
        dir: PathBuf,
        /// Whom for: node/3 (or node/any), gateway/east, operator/ann or client/ID.
        #[arg(value_parser = role)]
        role: Role,
        /// DNS names and IP addresses at which it is reached.
        #[arg(long = "host", value_name = "HOST", default_values_t = [String::from("localhost"), "127.0.0.1".into(), "::1".into()])]
        hosts: Vec<String>,
        /// How long it is valid.
        #[arg(long, default_value_t = 30)]
        days: u32,
    },
    /// Print a token for a client (JWT, EdDSA).
    Token {
        /// The folder that `init` made.
        dir: PathBuf,
        /// The client's id.
        client: String,
        /// The audience that the gateways expect.
        #[arg(long, default_value = "concordat")]
        audience: String,
        /// How long it is valid, in seconds.
        #[arg(long, default_value_t = 24 * 60 * 60)]
        seconds: u32,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("concordat-certs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Init { dir, domain, nodes, gateways, hosts, days } => {
            Folder::create(&dir, &Plan { domain, nodes, gateways, hosts, days })?;
            println!(
                "{}: CA, {nodes} nodes, {gateways} gateways, an operator, a key for tokens",
                dir.display()
            );
        }
        Command::Issue { dir, role, hosts, days } => {
            let path = opened(&dir)?.issue(&role, &hosts, Lifetime::days(days))?;
            println!("{0}.pem and {0}.key", path.display());
        }
        Command::Token { dir, client, audience, seconds } => {
            println!("{}", opened(&dir)?.tokens().sign(&client, &audience, seconds.into())?);
        }
    }
    Ok(())
}

fn opened(dir: &std::path::Path) -> anyhow::Result<Folder> {
    Folder::open(dir)
        .with_context(|| format!("make the folder first with: concordat-certs init {}", dir.display()))
}

fn role(text: &str) -> Result<Role, String> {
    Role::from_path(text).ok_or_else(|| {
        "expected node/NUMBER or node/any, gateway/NAME, operator/NAME or client/ID (other bytes than letters, digits, `-`, `.`, `_` as %XX)".into()
    })
}
