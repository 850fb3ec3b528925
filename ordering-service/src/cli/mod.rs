//! The command line.

mod admin;
mod backup;
mod first_nodes;
mod probe;
mod restore;
mod serve;
mod shrink;
mod table;

use clap::{Parser, Subcommand};

/// A node of the cluster that orders MLS groups.
///
/// A cluster is three or five nodes (`serve`), formed once (`admin bootstrap`). Afterwards nodes are added with `admin add-learner`
/// and `admin promote`, and taken out with `admin remove`. Node ids are never used twice, also not after a disk was lost: remove
/// the node, then add the machine again under a new id.
///
/// Three nodes on one machine, without certificates (docs/security.md says how to make some):
///
///   ordering-service serve --insecure-dev --node-id 1 --data-dir /tmp/n1 --listen 127.0.0.1:7101 --peer-listen 127.0.0.1:7201 &
///   ordering-service serve --insecure-dev --node-id 2 --data-dir /tmp/n2 --listen 127.0.0.1:7102 --peer-listen 127.0.0.1:7202 &
///   ordering-service serve --insecure-dev --node-id 3 --data-dir /tmp/n3 --listen 127.0.0.1:7103 --peer-listen 127.0.0.1:7203 &
///   ordering-service admin --insecure-dev --server 127.0.0.1:7101 bootstrap --node 1=127.0.0.1:7201,127.0.0.1:7101 \
///       --node 2=127.0.0.1:7202,127.0.0.1:7102 --node 3=127.0.0.1:7203,127.0.0.1:7103
///   ordering-service admin --insecure-dev --server 127.0.0.1:7101 status
#[derive(Debug, Parser)]
#[command(version, verbatim_doc_comment)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node until SIGTERM or SIGINT.
    Serve(Box<serve::Serve>),
    /// Make the first node of a new cluster out of a backup (see `admin backup`). The other nodes start empty, with --join.
    Restore(restore::Restore),
    /// Ask a node or a gateway on this machine whether it lives, or is ready; fails if not. For health checks of containers.
    Probe(probe::Probe),
    /// Ask a running node, or change the cluster that it belongs to.
    Admin(admin::Admin),
}

/// Carries out a command line.
///
/// # Errors
/// What went wrong, in words for an operator.
pub async fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Serve(serve) => serve::run(*serve).await,
        Command::Restore(restore) => restore::run(restore).await,
        Command::Probe(probe) => probe::run(probe).await,
        Command::Admin(admin) => admin::run(admin).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
