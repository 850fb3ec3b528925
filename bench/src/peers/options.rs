//! What to compare, and how long.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::ensure;
use clap::Args;
use serde::Serialize;

use crate::{args::Common, measure::Window, paths, process::version, systems::System};

pub(crate) const HELP: &str = "\
The work: a compare-and-swap append of one commit to a group (a key, a subject) of its own, three replicas on this machine, \
acknowledged after fsync on a majority. `jetstream-default` acknowledges before it syncs and is marked as not durable. `floor` is no \
service: what passing an append on, syncing and answering takes without agreeing on anything.

  bench/peers/fetch.sh                          fetch etcd and the NATS server
  bench peers --quick                           a first look
  bench peers                                   five rounds at five levels: about twelve minutes
  bench peers --levels 256 --systems concordat,jetstream --rounds 9

Use an idle machine. On a busy one the ratios hold better than the figures, but their spread grows.";

/// `bench peers`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Which systems, separated by commas. By default all.
    #[arg(long, value_enum, value_delimiter = ',')]
    systems: Vec<System>,
    /// Appends in flight, separated by commas. By default 1,16,64,256,1024; quick: 1,256.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=8192))]
    levels: Vec<u32>,
    /// Interleaved rounds. By default 5; quick: 2.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// Seconds measured at each level, after one of warming up. By default 3; quick: 2.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: Option<u64>,
    /// Bytes of a commit.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65536))]
    bytes: u32,
    /// Data shards of Concordat.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    data_shards: u32,
    /// etcd's binary. By default the one that bench/peers/fetch.sh brought, or the one in PATH.
    #[arg(long, value_name = "FILE")]
    etcd: Option<PathBuf>,
    /// The NATS server's binary. By default the one that bench/peers/fetch.sh brought, or the one in PATH.
    #[arg(long, value_name = "FILE")]
    nats_server: Option<PathBuf>,
}

/// A comparison that can be carried out.
pub(super) struct Plan {
    pub(super) systems: Vec<System>,
    pub(super) levels: Vec<usize>,
    pub(super) rounds: u32,
    pub(super) window: Window,
    pub(super) bytes: usize,
    pub(super) data_shards: u32,
    pub(super) seed: u64,
    pub(super) data: PathBuf,
    pub(super) etcd: Option<PathBuf>,
    pub(super) nats_server: Option<PathBuf>,
}

/// What of a plan belongs into a report.
#[derive(Debug, Serialize)]
pub(crate) struct Configuration {
    systems: Vec<System>,
    levels: Vec<usize>,
    rounds: u32,
    seconds: u64,
    bytes: usize,
    data_shards: u32,
}

impl Options {
    /// Fills in what was not given, and finds the binaries.
    pub(super) fn plan(&self) -> anyhow::Result<Plan> {
        let quick = self.common.quick;
        let all = || clap::ValueEnum::value_variants().to_vec();
        let systems: Vec<System> = if self.systems.is_empty() { all() } else { self.systems.clone() };
        let defaults: &[u32] = if quick { &[1, 256] } else { &[1, 16, 64, 256, 1024] };
        let levels = if self.levels.is_empty() { defaults } else { &self.levels };
        let needed = |system: &[System]| systems.iter().any(|s| system.contains(s));
        ensure!(!levels.is_empty() && !systems.is_empty(), "nothing to measure");
        let etcd = needed(&[System::Etcd]).then(|| paths::peer("etcd", self.etcd.as_deref()));
        let nats = needed(&[System::Jetstream, System::JetstreamDefault])
            .then(|| paths::peer("nats-server", self.nats_server.as_deref()));
        Ok(Plan {
            levels: levels.iter().map(|level| *level as usize).collect(),
            rounds: self.rounds.unwrap_or(if quick { 2 } else { 5 }),
            window: Window {
                warm_up: Duration::from_secs(1),
                measured: Duration::from_secs(self.seconds.unwrap_or(if quick { 2 } else { 3 })),
            },
            bytes: self.bytes as usize,
            data_shards: self.data_shards,
            seed: self.common.seed.unwrap_or_else(rand::random),
            data: paths::data(self.common.data_dir.as_deref())?,
            etcd: etcd.transpose()?,
            nats_server: nats.transpose()?,
            systems,
        })
    }
}

impl Plan {
    /// What the binaries say about themselves.
    pub(super) fn versions(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let mut versions = BTreeMap::new();
        if self.systems.iter().any(|system| system.is_ours()) {
            let binary = testbed::find_binary("ordering-service")?;
            versions.insert("concordat".into(), version(&binary, &["--version"])?);
        }
        if let Some(binary) = &self.etcd {
            versions.insert("etcd".into(), version(binary, &["--version"])?);
        }
        if let Some(binary) = &self.nats_server {
            versions.insert("nats-server".into(), version(binary, &["--version"])?);
        }
        Ok(versions)
    }

    pub(super) fn configuration(&self) -> Configuration {
        Configuration {
            systems: self.systems.clone(),
            levels: self.levels.clone(),
            rounds: self.rounds,
            seconds: self.window.measured.as_secs(),
            bytes: self.bytes,
            data_shards: self.data_shards,
        }
    }
}
