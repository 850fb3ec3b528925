//! The command line.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

use crate::{advise, peers, scale, systems, topology};

/// Measures Concordat on this machine: real processes, real sockets, real disks.
#[derive(Debug, Parser)]
#[command(
    name = "bench",
    version,
    after_help = "Every number comes from the run that prints it. Run on an idle machine, and compare figures of one run only.\n\
                  Results go to <target>/bench as JSON (everything) and CSV (one line a measurement)."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Compare with etcd and NATS JetStream: the same work, clients and machine, in interleaved rounds.
    #[command(after_help = peers::HELP)]
    Peers(peers::Options),
    /// Cost as work grows: groups, log length, subscribers, shards; each curve beside the growth that is expected.
    #[command(after_help = scale::HELP)]
    Scale(scale::Options),
    /// What an order costs as sites move apart: designs side by side on emulated topologies.
    #[command(after_help = topology::HELP)]
    Topology(topology::Options),
    /// Which way of ordering to choose on a topology, from what `bench topology` has measured.
    Advise(advise::Options),
    /// One process of the floor that `bench peers` measures.
    #[command(hide = true)]
    FloorNode(systems::FloorNodeOptions),
}

/// What every benchmark takes.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Common {
    /// For a first look: fewer levels, rounds and sizes.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Draws payloads and the order of the runs: the same seed, the same order. By default a new one, which is reported.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Where the servers keep their data while they run. Must be on the disk that is to be measured.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where the results go. By default <target>/bench.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}
