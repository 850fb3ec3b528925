//! The command line of `bench topology`, and the plan that follows from it.

use std::{path::PathBuf, time::Duration};

use anyhow::ensure;
use clap::Args;
use serde::Serialize;

use super::{
    limits::TURN_MEMBERS_MAX,
    ordered::Ordered,
    presets,
    spec::Topology,
    world::{Design, slowest_of},
};
use crate::{args::Common, paths};

pub(crate) const HELP: &str = "\
  bench topology --quick                        metro and continent, in under three minutes
  bench topology --seconds 10                   all presets, shorter loads: some three quarters of an hour
  bench topology                                all presets: about an hour and a half

Presets: one-rack, metro, region, continent, planet, planet-5, planet-7, mesh. Any TOML file of the same kind works as well; they are in \
bench/topologies. Writes an HTML page that opens without a network, CSV and JSON.";

/// `bench topology`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) common: Common,
    /// A preset or a TOML file. Repeat it for several. By default all presets, and two of them with --quick.
    #[arg(long = "topology", value_name = "PRESET|FILE")]
    topologies: Vec<String>,
    /// Commits a second, all groups together.
    #[arg(long)]
    rate: Option<f64>,
    /// Seconds that each load lasts.
    #[arg(long)]
    seconds: Option<f64>,
    /// Members of a group; several sizes are measured one after another.
    #[arg(long, value_delimiter = ',')]
    members: Vec<usize>,
    /// Members of a group with which MLS and DiMLS are compared: an update by itself, and over the links. At most 256.
    #[arg(long, value_delimiter = ',')]
    sizes: Vec<usize>,
    /// Members of one group that commit at the same moment; several levels are measured one after another.
    #[arg(long, value_delimiter = ',')]
    contention: Vec<usize>,
    /// Seconds that a leader is dead and that a site is cut off.
    #[arg(long)]
    fault_seconds: Option<f64>,
}

/// What is to be measured.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) topologies: Vec<Topology>,
    pub(crate) seed: u64,
    pub(crate) data: PathBuf,
    pub(crate) rate: f64,
    pub(crate) time: Duration,
    pub(crate) members: Vec<usize>,
    pub(crate) contention: Vec<usize>,
    pub(crate) fault: Duration,
    /// Group sizes at which MLS and DiMLS are compared.
    pub(crate) sizes: Vec<usize>,
}

/// The plan as reports show it.
#[derive(Debug, Serialize)]
pub(crate) struct Configuration {
    pub(crate) topologies: Vec<Topology>,
    pub(crate) rate_per_s: f64,
    pub(crate) seconds: f64,
    pub(crate) fault_seconds: f64,
    pub(crate) members: Vec<usize>,
    pub(crate) contention: Vec<usize>,
    pub(crate) sizes: Vec<usize>,
    /// Designs that were asked for and cannot be measured, and why.
    pub(crate) missing: Vec<(String, String)>,
}

impl Options {
    pub(crate) fn plan(&self) -> anyhow::Result<Plan> {
        let quick = self.common.quick;
        let named: Vec<String> = match (self.topologies.is_empty(), quick) {
            (false, _) => self.topologies.clone(),
            (true, true) => presets::QUICK.iter().map(|name| (*name).to_owned()).collect(),
            (true, false) => presets::FULL.iter().map(|name| (*name).to_owned()).collect(),
        };
        let or = |given: &[usize], quickly: &[usize], fully: &[usize]| match (given.is_empty(), quick) {
            (false, _) => given.to_vec(),
            (true, true) => quickly.to_vec(),
            (true, false) => fully.to_vec(),
        };
        let plan = Plan {
            topologies: named.iter().map(|name| Topology::find(name)).collect::<anyhow::Result<_>>()?,
            seed: self.common.seed.unwrap_or_else(|| rand::random::<u32>().into()),
            data: paths::data(self.common.data_dir.as_deref())?,
            rate: self.rate.unwrap_or(40.0),
            time: seconds("--seconds", self.seconds.unwrap_or(if quick { 4.0 } else { 30.0 }), 600.0)?,
            members: or(&self.members, &[16], &[2, 16, 128, 1000]),
            contention: or(&self.contention, &[8], &[1, 2, 5, 10, 20, 50]),
            fault: seconds(
                "--fault-seconds",
                self.fault_seconds.unwrap_or(if quick { 4.0 } else { 15.0 }),
                300.0,
            )?,
            sizes: or(&self.sizes, &[4, 16, 64], &[4, 16, 64, 256]),
        };
        ensure!(
            (0.1..=5000.0).contains(&plan.rate),
            "--rate: expected 0.1 to 5000 a second, got {}",
            plan.rate
        );
        for members in &plan.members {
            ensure!((2..=2000).contains(members), "--members: expected 2 to 2000, got {members}");
        }
        for members in &plan.sizes {
            ensure!((2..=256).contains(members), "--sizes: expected 2 to 256, got {members}");
        }
        for members in &plan.contention {
            ensure!((1..=200).contains(members), "--contention: expected 1 to 200, got {members}");
        }
        Ok(plan)
    }
}

fn seconds(flag: &str, value: f64, most: f64) -> anyhow::Result<Duration> {
    ensure!((1.0..=most).contains(&value), "{flag}: expected 1 to {most} seconds, got {value}");
    Ok(Duration::from_secs_f64(value))
}

impl Plan {
    /// Steps of the progress bar.
    pub(crate) fn runs(&self) -> usize {
        let ordered: usize =
            [Design::Consensus, Design::Lead].map(|design| Ordered::steps(self, design)).iter().sum();
        self.sizes.len() + self.topologies.len() * (ordered + self.sizes.len())
    }

    /// The longest that the network makes a commit take on any of the topologies.
    pub(crate) fn slowest(&self) -> Duration {
        self.topologies.iter().map(slowest_of).max().unwrap_or_default()
    }

    /// Sizes at which turns are measured.
    pub(crate) fn in_turn(&self) -> impl Iterator<Item = usize> + '_ {
        self.members.iter().copied().filter(|members| *members <= TURN_MEMBERS_MAX)
    }

    /// Sizes at which consensus is measured beside those of [`Plan::members`], for the comparison with DiMLS.
    pub(crate) fn compared(&self) -> impl Iterator<Item = usize> + '_ {
        self.sizes.iter().copied().filter(|size| !self.members.contains(size))
    }

    pub(crate) fn configuration(&self) -> Configuration {
        let missing = super::MISSING.iter().map(|(design, why)| ((*design).into(), (*why).into())).collect();
        Configuration {
            topologies: self.topologies.clone(),
            rate_per_s: self.rate,
            seconds: self.time.as_secs_f64(),
            fault_seconds: self.fault.as_secs_f64(),
            members: self.members.clone(),
            contention: self.contention.clone(),
            sizes: self.sizes.clone(),
            missing,
        }
    }
}
