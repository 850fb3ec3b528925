//! The command line.

use std::time::Duration;

use clap::Parser;

/// Runs real MLS groups through a cluster of three nodes and two gateways, kills the leader half-way, and proves that nothing was lost.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Args {
    /// The second act instead: the network splits and heals.
    #[arg(long)]
    pub(crate) netsplit: bool,
    /// Smaller groups and less time.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Repeats who does what: the same seed draws the same sizes and the same plans for every member.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// How long the members are at work, in seconds.
    #[arg(long, value_parser = clap::value_parser!(u64).range(5..=3600))]
    pub(crate) seconds: Option<u64>,
    /// Keep the folder with all data and logs.
    #[arg(long)]
    pub(crate) keep: bool,
}

impl Args {
    /// Members of each group at the beginning.
    pub(crate) fn sizes(&self) -> &'static [usize] {
        if self.quick { &[3, 4, 5, 6, 8] } else { &[3, 5, 8, 12, 16, 20] }
    }

    /// How long the members are at work.
    pub(crate) fn work(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(if self.quick { 12 } else { 45 }))
    }
}
