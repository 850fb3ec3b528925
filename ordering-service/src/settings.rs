//! The settings of a node: defaults < TOML file < environment < flags.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use group_log::Retention;
use service_kit::settings::{SettingsError, address, check_address, need, positive};

use crate::{
    branches::Waits,
    config::{Config, Join},
    limits,
    placement::{LeaderPlacement, Placing, Preference},
    raft::timing::{Compaction, Profile, SNAPSHOT_EVERY},
    retention::Keeping,
    storage::limits::{BLOCK_CACHE_BYTES, BLOCK_CACHE_MIB},
};

service_kit::settings! {
    /// Everything that can be set. A key of the file is the flag's name with `_` for `-`.
    pub struct Settings {
        /// This node's number: at least 1, and never used twice in a cluster. Without one it is drawn at random when the data directory
        /// is begun, and kept there: a lost disk comes back as another node.
        #[arg(long, env = "CONCORDAT_NODE_ID")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub node_id: Option<u64>,
        /// Where the data lives; created if it does not exist.
        #[arg(long, env = "CONCORDAT_DATA_DIR", value_name = "DIR")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub data_dir: Option<PathBuf>,
        /// Where gateways and operators connect [default: 127.0.0.1:7100].
        #[arg(long, env = "CONCORDAT_LISTEN", value_name = "HOST:PORT")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub listen: Option<String>,
        /// Where the other nodes connect [default: 127.0.0.1:7200].
        #[arg(long, env = "CONCORDAT_PEER_LISTEN", value_name = "HOST:PORT")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub peer_listen: Option<String>,
        /// Where /livez, /readyz and /metrics are served (HTTP) [default: 127.0.0.1:7300].
        #[arg(long, env = "CONCORDAT_ADMIN_LISTEN", value_name = "HOST:PORT")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub admin_listen: Option<String>,
        /// Become a member without an operator: ask one of these nodes (their --peer-listen addresses) until one agrees. A member that
        /// had this node's peer address before is taken for lost, and removed. Separate them by commas in the environment.
        #[arg(long, env = "CONCORDAT_JOIN", value_delimiter = ',', num_args = 1.., value_name = "HOST:PORT")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub join: Option<Vec<String>>,
        /// With --join: where gateways and operators reach this node [default: as --listen].
        #[arg(long, env = "CONCORDAT_ADVERTISE", value_name = "HOST:PORT")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub advertise: Option<String>,
        /// With --join: where the other nodes reach this node [default: as --peer-listen].
        #[arg(long, env = "CONCORDAT_ADVERTISE_PEER", value_name = "HOST:PORT")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub advertise_peer: Option<String>,
        /// With --join: the place with its own network that this node stands in.
        #[arg(long, env = "CONCORDAT_SITE", value_name = "NAME")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub site: Option<String>,
        /// How far apart the nodes are: lan (round trips of at most 2 ms), region (30 ms) or wan (200 ms). The same at every node
        /// [default: lan].
        #[arg(long, env = "CONCORDAT_TIMING")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub timing: Option<Profile>,
        /// Take a snapshot when a shard's log has grown by so many entries [default: 200000].
        #[arg(long, env = "CONCORDAT_SNAPSHOT_EVERY", value_name = "ENTRIES")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub snapshot_every: Option<u64>,
        /// Keep so many entries that a snapshot covers, so that a node that was away briefly catches up without one
        /// [default: 100000].
        #[arg(long, env = "CONCORDAT_KEEP_ENTRIES", value_name = "ENTRIES")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub keep_entries: Option<u64>,
        /// Keep so many MiB of the database's blocks and filters in memory, 8 to 65536. Set 64 for each million groups, or creating
        /// groups and restarts become slow [default: 64].
        #[arg(long, env = "CONCORDAT_BLOCK_CACHE_MIB", value_name = "MIB")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub block_cache_mib: Option<u64>,
        /// End a collection of branches after so many milliseconds, whichever gateways have not reported [default: 10000].
        #[arg(long, env = "CONCORDAT_COLLECT_MS", value_name = "MS")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub collect_ms: Option<u64>,
        /// Stop waiting for a gateway that nobody has seen for so many hours; 0 for never. What it still holds comes late [default: 168].
        #[arg(long, env = "CONCORDAT_EVICT_AFTER_HOURS", value_name = "HOURS")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub evict_after_hours: Option<u64>,
        /// Keep so many of the newest entries of each group that does not choose itself; 0 for all. Readers whose place is gone come back by
        /// an external commit [default: 0].
        #[arg(long, env = "CONCORDAT_RETAIN_ENTRIES", value_name = "ENTRIES")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub retain_entries: Option<u64>,
        /// Keep the entries of each group that does not choose itself for so many hours; 0 for ever [default: 0].
        #[arg(long, env = "CONCORDAT_RETAIN_HOURS", value_name = "HOURS")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub retain_hours: Option<u64>,
        /// Keep at most so many of each group's newest entries, whatever it chooses; 0 for no bound [default: 0].
        #[arg(long, env = "CONCORDAT_RETAIN_ENTRIES_MAX", value_name = "ENTRIES")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub retain_entries_max: Option<u64>,
        /// Keep each group's entries for at most so many hours, whatever it chooses; 0 for no bound [default: 0].
        #[arg(long, env = "CONCORDAT_RETAIN_HOURS_MAX", value_name = "HOURS")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub retain_hours_max: Option<u64>,
        /// Look for what is not to be kept any longer every so many seconds [default: 60].
        #[arg(long, env = "CONCORDAT_RETAIN_CHECK_SECONDS", value_name = "SECONDS")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub retain_check_seconds: Option<u64>,
        /// Whether leaders move to the sites that submissions come from, as far as gateways name theirs: auto or off [default: auto]. The
        /// same at every node, as is --prefer-leader: those of the node that leads a shard are in force.
        #[arg(long, env = "CONCORDAT_LEADER_PLACEMENT", value_name = "MODE")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub leader_placement: Option<LeaderPlacement>,
        /// The site that the leader of a shard belongs to, wherever submissions come from; shard 0 is the directory. Repeat for each
        /// shard; separate them by commas in the environment.
        #[arg(long, env = "CONCORDAT_PREFER_LEADER", value_delimiter = ',', value_name = "SHARD=SITE")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub prefer_leader: Option<Vec<Preference>>,
        /// Judge every so many milliseconds where leaders belong. A leader moves after 6 such windows in a row in which another place was
        /// better, and not within 6 windows after its last change [default: 5000].
        #[arg(long, env = "CONCORDAT_PLACEMENT_WINDOW_MS", value_name = "MS")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub placement_window_ms: Option<u64>,
    }
}

impl Settings {
    /// What holds where nothing is set. The data directory has no default.
    pub fn defaults() -> Self {
        Self {
            listen: Some("127.0.0.1:7100".into()),
            peer_listen: Some("127.0.0.1:7200".into()),
            admin_listen: Some("127.0.0.1:7300".into()),
            timing: Some(Profile::Lan),
            snapshot_every: Some(SNAPSHOT_EVERY),
            keep_entries: Some(limits::LOG_ENTRIES_KEPT),
            block_cache_mib: Some(MIB_OF_BLOCKS),
            collect_ms: Some(millis(limits::COLLECT_FOR)),
            evict_after_hours: Some(limits::EVICT_AFTER.as_secs() / HOUR),
            retain_entries: Some(0),
            retain_hours: Some(0),
            retain_entries_max: Some(0),
            retain_hours_max: Some(0),
            retain_check_seconds: Some(limits::RETENTION_INTERVAL.as_secs()),
            leader_placement: Some(LeaderPlacement::Auto),
            placement_window_ms: Some(millis(limits::PLACEMENT_WINDOW)),
            ..Self::common_defaults()
        }
    }

    /// The configuration that they come to.
    ///
    /// # Errors
    /// A value that is missing or makes no sense; its key is named.
    pub fn config(self) -> Result<Config, SettingsError> {
        let (join, placing) = (self.join()?, self.placing()?);
        let config = Config {
            node_id: self.node_id.map(|id| positive("node_id", id)).transpose()?,
            join,
            data_dir: need("data_dir", "a directory", self.data_dir)?,
            listen: address("listen", self.listen)?,
            peer_listen: address("peer_listen", self.peer_listen)?,
            admin_listen: Some(address("admin_listen", self.admin_listen)?),
            timing: self.timing.unwrap_or_default(),
            compaction: Compaction {
                snapshot_every: positive("snapshot_every", self.snapshot_every.unwrap_or(SNAPSHOT_EVERY))?,
                keep_entries: self.keep_entries.unwrap_or(limits::LOG_ENTRIES_KEPT),
            },
            block_cache_bytes: block_cache(self.block_cache_mib.unwrap_or(MIB_OF_BLOCKS))?,
            waits: waits(
                positive("collect_ms", self.collect_ms.unwrap_or(millis(limits::COLLECT_FOR)))?,
                self.evict_after_hours,
            ),
            keeping: Keeping {
                limits: retention(self.retain_entries, self.retain_hours),
                most: retention(self.retain_entries_max, self.retain_hours_max),
                look_every: Duration::from_secs(positive(
                    "retain_check_seconds",
                    self.retain_check_seconds.unwrap_or(limits::RETENTION_INTERVAL.as_secs()),
                )?),
            },
            placing,
        };
        if config.data_dir.as_os_str().is_empty() {
            return Err(SettingsError::value("data_dir", "a directory", "an empty name"));
        }
        Ok(config)
    }

    fn placing(&self) -> Result<Placing, SettingsError> {
        let window_ms = self.placement_window_ms.unwrap_or(millis(limits::PLACEMENT_WINDOW));
        let mut preferred = BTreeMap::new();
        for Preference { shard, site } in self.prefer_leader.iter().flatten() {
            if preferred.insert(*shard, site.clone()).is_some_and(|before| before != *site) {
                let got = format!("two for shard {shard}");
                return Err(SettingsError::value("prefer_leader", "one site a shard", got));
            }
        }
        Ok(Placing {
            leaders: self.leader_placement.unwrap_or_default(),
            preferred,
            window: Duration::from_millis(positive("placement_window_ms", window_ms)?),
        })
    }

    fn join(&self) -> Result<Option<Join>, SettingsError> {
        let Some(seeds) = self.join.clone() else { return Ok(None) };
        if seeds.is_empty() {
            return Err(SettingsError::value("join", "host:port of at least one node", "nothing"));
        }
        seeds.iter().try_for_each(|seed| check_address("join", seed))?;
        let site = self.site.clone().unwrap_or_default();
        if site.len() > limits::NAME_BYTES {
            return Err(SettingsError::value(
                "site",
                format!("at most {} bytes", limits::NAME_BYTES),
                site.len(),
            ));
        }
        Ok(Some(Join {
            seeds,
            peer_address: reachable(
                "advertise_peer",
                self.advertise_peer.as_ref(),
                self.peer_listen.as_ref(),
            )?,
            address: reachable("advertise", self.advertise.as_ref(), self.listen.as_ref())?,
            site,
        }))
    }
}

/// Seconds of an hour.
const HOUR: u64 = 3600;

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// [`BLOCK_CACHE_BYTES`] in MiB.
const MIB_OF_BLOCKS: u64 = (BLOCK_CACHE_BYTES / MIB) as u64;
const MIB: usize = 1024 * 1024;

/// In bytes.
fn block_cache(mib: u64) -> Result<usize, SettingsError> {
    let bytes = usize::try_from(mib).ok().and_then(|mib| mib.checked_mul(MIB));
    bytes.filter(|_| BLOCK_CACHE_MIB.contains(&mib)).ok_or_else(|| {
        let expected = format!("{} to {} MiB", BLOCK_CACHE_MIB.start(), BLOCK_CACHE_MIB.end());
        SettingsError::value("block_cache_mib", expected, mib)
    })
}

fn waits(collect_ms: u64, evict_after_hours: Option<u64>) -> Waits {
    let collect_for = Duration::from_millis(collect_ms);
    let hours = |hours: u64| Duration::from_secs(hours.saturating_mul(HOUR));
    let evict_after = evict_after_hours.map_or(limits::EVICT_AFTER, hours);
    Waits {
        collect_for,
        collect_at_least: limits::COLLECT_AT_LEAST.min(collect_for),
        evict_after: Some(evict_after).filter(|after| !after.is_zero()),
    }
}

fn retention(entries: Option<u64>, hours: Option<u64>) -> Retention {
    let set = |value: Option<u64>| value.filter(|value| *value > 0);
    Retention {
        max_entries: set(entries),
        max_age_ms: set(hours).map(|hours| hours.saturating_mul(HOUR * 1000)),
    }
}

/// Where others reach what this node listens on. Others can neither reach port 0 nor the address that stands for all.
fn reachable(
    key: &'static str,
    told: Option<&String>,
    listen: Option<&String>,
) -> Result<String, SettingsError> {
    let address = need(key, "host:port", told.or(listen).cloned())?;
    check_address(key, &address)?;
    if address.starts_with("0.0.0.0:") || address.starts_with("[::]:") || address.ends_with(":0") {
        return Err(SettingsError::value(key, "an address that other nodes can reach", address));
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use service_kit::settings::{layered, printed};

    use super::*;

    fn complete() -> Settings {
        Settings { node_id: Some(3), data_dir: Some("/data".into()), ..Settings::defaults() }
    }

    type Spoil = fn(&mut Settings);

    #[test]
    fn each_value_is_checked_and_named() {
        assert!(complete().config().is_ok());
        let wrong: [(&str, Spoil); 16] = [
            ("placement_window_ms", |s| s.placement_window_ms = Some(0)),
            ("prefer_leader", |s| {
                let site = |site: &str| Preference { shard: 1, site: site.into() };
                s.prefer_leader = Some(vec![site("a"), site("b")]);
            }),
            ("block_cache_mib", |s| s.block_cache_mib = Some(7)),
            ("block_cache_mib", |s| s.block_cache_mib = Some(u64::MAX)),
            ("collect_ms", |s| s.collect_ms = Some(0)),
            ("join", |s| s.join = Some(vec!["n:7200".into(), "n".into()])),
            ("join", |s| s.join = Some(Vec::new())),
            ("advertise", |s| {
                s.join = Some(vec!["n:7200".into()]);
                s.listen = Some("0.0.0.0:7100".into());
            }),
            ("site", |s| {
                s.join = Some(vec!["n:7200".into()]);
                s.site = Some("x".repeat(300));
            }),
            ("node_id", |s| s.node_id = Some(0)),
            ("data_dir", |s| s.data_dir = Some("".into())),
            ("listen", |s| s.listen = Some("7100".into())),
            ("peer_listen", |s| s.peer_listen = Some(":7200".into())),
            ("admin_listen", |s| s.admin_listen = Some("host:port".into())),
            ("snapshot_every", |s| s.snapshot_every = Some(0)),
            ("retain_check_seconds", |s| s.retain_check_seconds = Some(0)),
        ];
        for (key, spoil) in wrong {
            let mut settings = complete();
            spoil(&mut settings);
            let error = settings.config().expect_err(key).to_string();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn printed_settings_are_a_file_that_means_the_same() {
        let preferred = vec![Preference { shard: 1, site: "north".into() }];
        let settings = Settings { prefer_leader: Some(preferred), ..complete() };
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        std::fs::write(file.path(), printed(&settings).expect("printed")).expect("written");
        let read = layered(&Settings::defaults(), Some(file.path()), &Settings::default());
        assert_eq!(read.expect("valid"), settings);
    }
}
