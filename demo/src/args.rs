//! The command line.

use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Act one runs real MLS groups through a cluster of three nodes and two gateways and kills the leader half-way. Act two splits the network
/// between three sites and heals it. Both prove that nothing was lost.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Args {
    /// One act alone; both by default.
    #[arg(long)]
    pub(crate) act: Option<Act>,
    /// Smaller groups and less time.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Repeats who does what: the same seed draws the same sizes and the same plans for every member.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// How long the members are at work in act one, in seconds.
    #[arg(long, value_parser = clap::value_parser!(u64).range(5..=3600))]
    pub(crate) seconds: Option<u64>,
    /// Keep the folder with all data and logs.
    #[arg(long)]
    pub(crate) keep: bool,
}

/// A part of the demonstration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Act {
    /// The leader of the cluster crashes.
    One,
    /// The network splits and heals.
    Two,
}

impl Args {
    /// Whether this act is played.
    pub(crate) fn plays(&self, act: Act) -> bool {
        self.act.is_none_or(|only| only == act)
    }

    /// Groups of each kind in act two.
    pub(crate) fn groups_per_kind(&self) -> usize {
        if self.quick { 2 } else { 4 }
    }

    /// Members of each group at the beginning.
    pub(crate) fn sizes(&self) -> &'static [usize] {
        if self.quick { &[3, 4, 5, 6, 8] } else { &[3, 5, 8, 12, 16, 20] }
    }

    /// How long the members are at work.
    pub(crate) fn work(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(if self.quick { 12 } else { 45 }))
    }
}
