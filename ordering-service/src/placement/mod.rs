//! Where leaders are: each moves to the site that the submissions to its shard come from, when that pays for long enough, or to the site
//! that the operator prefers.
//!
//! [`tally`] counts submissions by site, [`view`] says what commits would take under each leader, [`rule`] decides, [`task`] asks and
//! carries out.

pub mod rule;
pub mod tally;
pub mod task;
pub mod view;

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use self::{tally::Tally, view::Outlook};
use crate::{
    limits::{DATA_SHARDS, NAME_BYTES, PLACEMENT_WINDOW},
    raft::types::ShardId,
};

/// Whether leaders move by themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaderPlacement {
    /// To where it pays, or to the preferred site.
    #[default]
    Auto,
    /// They stay where elections and operators put them.
    Off,
}

impl FromStr for LeaderPlacement {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            other => Err(format!("expected auto or off, got {other:?}")),
        }
    }
}

/// The leader of `shard` belongs to `site`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Preference {
    /// The shard: 0 is the directory.
    pub shard: ShardId,
    /// The site, as the membership names it.
    pub site: String,
}

impl FromStr for Preference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once('=').and_then(|(shard, site)| {
            let shard = shard.parse().ok().filter(|shard| *shard <= DATA_SHARDS)?;
            (1..=NAME_BYTES).contains(&site.len()).then(|| Self { shard, site: site.to_owned() })
        });
        parsed.ok_or_else(|| {
            format!(
                "expected SHARD=SITE, a shard of 0 to {DATA_SHARDS} and a name of 1 to {NAME_BYTES} bytes, such as 1=athens; got \
                 {text:?}"
            )
        })
    }
}

impl TryFrom<String> for Preference {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Preference> for String {
    fn from(preference: Preference) -> Self {
        preference.to_string()
    }
}

impl fmt::Display for Preference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.shard, self.site)
    }
}

/// How a node places the leaders of the shards that it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placing {
    /// Whether it does.
    pub leaders: LeaderPlacement,
    /// The sites that the operator prefers.
    pub preferred: BTreeMap<ShardId, String>,
    /// The shortest time between two judgements.
    pub window: Duration,
}

impl Default for Placing {
    fn default() -> Self {
        Self { leaders: LeaderPlacement::default(), preferred: BTreeMap::new(), window: PLACEMENT_WINDOW }
    }
}

/// What a node knows about where leaders belong.
#[derive(Default)]
pub struct Placement {
    /// Where submissions come from.
    pub tally: Tally,
    outlooks: Mutex<BTreeMap<ShardId, Outlook>>,
}

impl Placement {
    /// What the network makes a commit take in a shard that this node leads, if enough was counted.
    pub fn outlook(&self, shard: ShardId) -> Option<Outlook> {
        self.outlooks.lock().get(&shard).cloned()
    }

    fn note(&self, shard: ShardId, outlook: Option<&Outlook>) {
        let mut outlooks = self.outlooks.lock();
        match outlook {
            Some(outlook) => drop(outlooks.insert(shard, outlook.clone())),
            None => drop(outlooks.remove(&shard)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferences_are_read_as_they_are_printed() {
        let preference: Preference = "12=north=1".parse().expect("valid");
        assert_eq!((preference.shard, preference.site.as_str()), (12, "north=1"));
        assert_eq!(preference.to_string().parse(), Ok(preference));
        for bad in ["", "1", "1=", "=a", "x=a", "-1=a", "65=a", &format!("1={}", "x".repeat(256))] {
            let error = bad.parse::<Preference>().expect_err(bad);
            assert!(error.contains("SHARD=SITE"), "{error}");
        }
        assert_eq!("off".parse(), Ok(LeaderPlacement::Off));
        assert!("on".parse::<LeaderPlacement>().is_err());
    }
}
