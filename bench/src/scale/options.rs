//! Which curves, and how far.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::{args::Common, measure::Window, paths};

pub(crate) const HELP: &str = "\
  bench scale --quick                           small sizes, half a minute
  bench scale                                   up to a million groups: a few minutes
  bench scale --curves groups --max-groups 1000000

Curves: groups (memory, disk, restart and commit latency of one node), log-length (a commit to a long log), members (of one group), subscribers (of one \
group at one gateway), shards (throughput with 256 in flight).";

/// `bench scale`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Which curves, separated by commas. By default all.
    #[arg(long, value_enum, value_delimiter = ',')]
    curves: Vec<Curve>,
    /// The most groups of one node. By default a million; quick: 10000.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1000..=10_000_000))]
    max_groups: Option<u64>,
}

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Curve {
    /// Groups of one node.
    Groups,
    /// Entries of one group.
    LogLength,
    /// Members of one group.
    Members,
    /// Subscribers of one group at one gateway.
    Subscribers,
    /// Data shards of a cluster.
    Shards,
}

/// Curves that can be measured.
pub(super) struct Plan {
    pub(super) curves: Vec<Curve>,
    pub(super) groups: Vec<u64>,
    pub(super) log_lengths: Vec<u64>,
    pub(super) members: Vec<u64>,
    pub(super) subscribers: Vec<u64>,
    pub(super) shards: Vec<u32>,
    pub(super) window: Window,
    pub(super) seed: u64,
    pub(super) data: PathBuf,
}

/// What of a plan belongs into a report.
#[derive(Debug, Serialize)]
pub(crate) struct Configuration {
    curves: Vec<Curve>,
    groups: Vec<u64>,
    log_lengths: Vec<u64>,
    members: Vec<u64>,
    subscribers: Vec<u64>,
    shards: Vec<u32>,
    seconds: u64,
}

impl Options {
    /// Fills in what was not given.
    pub(super) fn plan(&self) -> anyhow::Result<Plan> {
        let quick = self.common.quick;
        let max_groups = self.max_groups.unwrap_or(if quick { 10_000 } else { 1_000_000 });
        let up_to = |max: u64, sizes: &[u64]| sizes.iter().copied().filter(|size| *size <= max).collect();
        let mut groups: Vec<u64> = up_to(max_groups, &[1_000, 10_000, 100_000, 1_000_000]);
        if groups.last() != Some(&max_groups) {
            groups.push(max_groups);
        }
        Ok(Plan {
            curves: if self.curves.is_empty() {
                Curve::value_variants().to_vec()
            } else {
                self.curves.clone()
            },
            groups,
            log_lengths: up_to(
                if quick { 10_000 } else { 1_000_000 },
                &[1, 1_000, 10_000, 100_000, 1_000_000],
            ),
            members: up_to(if quick { 128 } else { 1_000 }, &[2, 16, 128, 1_000]),
            subscribers: up_to(if quick { 100 } else { 2_000 }, &[1, 10, 100, 1_000, 2_000]),
            shards: if quick { vec![1, 4] } else { vec![1, 2, 4, 8, 16] },
            window: Window {
                warm_up: Duration::from_millis(500),
                measured: Duration::from_secs(if quick { 2 } else { 3 }),
            },
            seed: self.common.seed.unwrap_or_else(rand::random),
            data: paths::data(self.common.data_dir.as_deref())?,
        })
    }
}

impl Plan {
    /// Steps of the progress bar.
    pub(super) fn steps(&self) -> usize {
        let steps = |curve: &Curve| match curve {
            Curve::Groups => self.groups.len(),
            Curve::LogLength => self.log_lengths.len(),
            Curve::Members => self.members.len(),
            Curve::Subscribers => self.subscribers.len(),
            Curve::Shards => self.shards.len(),
        };
        self.curves.iter().map(steps).sum()
    }

    pub(super) fn configuration(&self) -> Configuration {
        Configuration {
            curves: self.curves.clone(),
            groups: self.groups.clone(),
            log_lengths: self.log_lengths.clone(),
            members: self.members.clone(),
            subscribers: self.subscribers.clone(),
            shards: self.shards.clone(),
            seconds: self.window.measured.as_secs(),
        }
    }

    /// A folder for the servers' data, which goes when this is dropped.
    pub(super) fn scratch(&self) -> anyhow::Result<tempfile::TempDir> {
        Ok(tempfile::Builder::new().prefix("scale-").tempdir_in(&self.data)?)
    }
}
