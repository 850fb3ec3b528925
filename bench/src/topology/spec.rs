//! Topologies: sites, what stands there, and the links between them, as TOML.

use std::{collections::BTreeSet, num::NonZeroU64, path::Path, time::Duration};

use anyhow::Context;
use links::{Links, Quality, limits::DELAY_MAX};
use serde::{Deserialize, Serialize};

use super::limits::{MEMBERS_MAX, SITES_MAX};

/// A topology as its file has it.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Topology {
    /// Name in reports.
    pub(crate) name: String,
    /// Where the round trips come from.
    pub(crate) source: String,
    /// The services' timing profile: lan, region or wan.
    pub(crate) timing: Timing,
    /// The site at which groups are at home: where leaders are placed, and the server of the design `lead`.
    pub(crate) home: String,
    pub(crate) sites: Vec<Site>,
    pub(crate) links: Vec<Link>,
    /// What changes while the load runs, again and again from the beginning.
    #[serde(default)]
    pub(crate) changes: Vec<Change>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Timing {
    Lan,
    Region,
    Wan,
}

impl Timing {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::Region => "region",
            Self::Wan => "wan",
        }
    }
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Site {
    pub(crate) name: String,
    /// Ordering nodes of the design `consensus`: none or one.
    pub(crate) nodes: u32,
    /// Gateways: one, to which the site's members connect.
    pub(crate) gateways: u32,
    /// The site's share of the members, as a weight.
    pub(crate) members: u32,
}

/// Both directions between two sites, or one of them.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Link {
    /// Two sites; the round trip is split evenly.
    pub(crate) between: Option<[String; 2]>,
    /// In place of `between`: one direction.
    pub(crate) from_to: Option<[String; 2]>,
    /// With `between`.
    pub(crate) round_trip_ms: Option<f64>,
    /// With `from_to`.
    pub(crate) one_way_ms: Option<f64>,
    #[serde(default)]
    pub(crate) jitter_ms: f64,
    /// Unlimited without it.
    pub(crate) bandwidth_mbit: Option<f64>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    /// Seconds after the change before.
    pub(crate) after_s: f64,
    pub(crate) between: [String; 2],
    pub(crate) event: Event,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Event {
    Cut,
    Heal,
}

impl Topology {
    /// Reads and checks a topology. `file` is its name in messages.
    pub(crate) fn parse(file: &str, text: &str) -> anyhow::Result<Self> {
        let topology: Self = toml::from_str(text).map_err(|error| anyhow::anyhow!("{file}: {error}"))?;
        topology.check().map_err(|wrong| anyhow::anyhow!("{file}: {wrong}"))?;
        Ok(topology)
    }

    /// A preset's name, or else a file.
    pub(crate) fn find(name: &str) -> anyhow::Result<Self> {
        if let Some((_, text)) = super::presets::ALL.iter().find(|(preset, _)| *preset == name) {
            return Self::parse(&format!("preset {name}"), text);
        }
        let text = std::fs::read_to_string(Path::new(name)).with_context(|| {
            let presets: Vec<_> = super::presets::ALL.iter().map(|(name, _)| *name).collect();
            format!("there is no topology `{name}`: name a file, or one of {}", presets.join(", "))
        })?;
        Self::parse(name, &text)
    }

    fn check(&self) -> Result<(), String> {
        let names: BTreeSet<_> = self.sites.iter().map(|site| site.name.as_str()).collect();
        let known = names.iter().copied().collect::<Vec<_>>().join(", ");
        let is_site = |key: &str, name: &str| match names.contains(name) {
            true => Ok(()),
            false => Err(format!("{key}: there is no site `{name}`; name one of {known}")),
        };
        if self.sites.is_empty() || self.sites.len() > SITES_MAX || names.len() < self.sites.len() {
            return Err(format!(
                "sites: expected 1 to {SITES_MAX} sites with different names, got {}",
                self.sites.len()
            ));
        }
        is_site("home", &self.home)?;
        for (i, site) in self.sites.iter().enumerate() {
            if site.nodes > 1 || site.gateways != 1 {
                let (nodes, gateways) = (site.nodes, site.gateways);
                return Err(format!(
                    "sites[{i}] (`{}`): expected nodes 0 or 1 and gateways 1, got {nodes} and {gateways}; make a site for each",
                    site.name
                ));
            }
            if site.members > MEMBERS_MAX {
                return Err(format!(
                    "sites[{i}].members: at most {MEMBERS_MAX}, got {}; it is a weight",
                    site.members
                ));
            }
        }
        let nodes = self.sites.iter().map(|site| site.nodes).sum::<u32>();
        if nodes == 0 || nodes.is_multiple_of(2) {
            return Err(format!(
                "sites: {nodes} nodes can not form a quorum well; let an odd number of sites have `nodes = 1`"
            ));
        }
        if self.site(&self.home).is_none_or(|site| site.nodes == 0) {
            return Err(format!("home: site `{}` has no node; give it one or choose another", self.home));
        }
        if self.sites.iter().all(|site| site.members == 0) {
            return Err("sites: nobody is a member; give a site `members = 1`".into());
        }
        for (i, link) in self.links.iter().enumerate() {
            link.check(&format!("links[{i}]"), &is_site)?;
        }
        for (a, from) in self.sites.iter().enumerate() {
            for to in self.sites.iter().skip(a + 1) {
                for (from, to) in [(&from.name, &to.name), (&to.name, &from.name)] {
                    let found = self.links.iter().filter(|link| link.covers(from, to)).count();
                    if found != 1 {
                        return Err(format!(
                            "links: {found} links go from `{from}` to `{to}`; add or remove one, so that there is one"
                        ));
                    }
                }
            }
        }
        for (i, change) in self.changes.iter().enumerate() {
            let key = format!("changes[{i}]");
            change.between.iter().try_for_each(|name| is_site(&format!("{key}.between"), name))?;
            if !(0.01..=3600.0).contains(&change.after_s) {
                return Err(format!("{key}.after_s: expected 0.01 to 3600 seconds, got {}", change.after_s));
            }
        }
        Ok(())
    }

    pub(crate) fn site(&self, name: &str) -> Option<&Site> {
        self.sites.iter().find(|site| site.name == name)
    }

    /// Starts the links.
    pub(crate) fn links(&self, seed: u64) -> anyhow::Result<Links> {
        let links = Links::start(self.sites.iter().map(|site| site.name.clone()), seed)?;
        for link in &self.links {
            for (from, to) in link.directions() {
                links.set(from, to, link.quality())?;
            }
        }
        Ok(links)
    }

    /// How long so many bytes take from one site to another beside the delay, where the bandwidth is limited.
    pub(crate) fn sending(&self, from: &str, to: &str, bytes: usize) -> Duration {
        let link = self.links.iter().find(|link| link.covers(from, to));
        let rate = link.and_then(|link| link.quality().bandwidth);
        rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(bytes as f64 / rate.get() as f64))
    }

    /// The mean round trip between two sites: the delays, and half the jitter each way.
    pub(crate) fn round_trip(&self, a: &str, b: &str) -> Duration {
        self.one_way(a, b) + self.one_way(b, a)
    }

    /// The mean way from one site straight to another: the delay, and half the jitter.
    fn one_way(&self, from: &str, to: &str) -> Duration {
        let link = self.links.iter().find(|link| link.covers(from, to));
        link.map_or(Duration::ZERO, |link| link.quality().delay + link.quality().jitter / 2)
    }

    /// What an item of a group without an order needs to the last site with members, as the mean over all members.
    pub(crate) fn longest_way(&self) -> Duration {
        let longest = |from: &Site| {
            let ways = self.sites.iter().zip(self.shortest_ways(&from.name, 0));
            ways.filter(|(site, _)| site.members > 0).map(|(_, way)| way).max().unwrap_or_default()
        };
        let members: u32 = self.sites.iter().map(|site| site.members).sum();
        self.sites.iter().map(|site| longest(site) * site.members).sum::<Duration>() / members.max(1)
    }

    /// The shortest way for so many bytes from one site to each other, over other sites where that is shorter, in the order of the sites.
    pub(crate) fn shortest_ways(&self, from: &str, bytes: usize) -> Vec<Duration> {
        let hop = |a: &Site, b: &Site| self.one_way(&a.name, &b.name) + self.sending(&a.name, &b.name, bytes);
        let start = |site: &Site| if site.name == from { Duration::ZERO } else { Duration::MAX };
        let mut ways: Vec<Duration> = self.sites.iter().map(start).collect();
        // As often as a way can have hops (Bellman-Ford).
        for _ in 1..self.sites.len() {
            for (a, at) in self.sites.iter().enumerate() {
                for (b, to) in self.sites.iter().enumerate().filter(|(b, _)| *b != a) {
                    ways[b] = ways[b].min(ways[a].saturating_add(hop(at, to)));
                }
            }
        }
        ways
    }
}

impl Link {
    fn check(&self, key: &str, is_site: &impl Fn(&str, &str) -> Result<(), String>) -> Result<(), String> {
        let (which, sites, millis) = match (&self.between, &self.from_to, self.round_trip_ms, self.one_way_ms)
        {
            (Some(sites), None, Some(millis), None) => ("between", sites, millis),
            (None, Some(sites), None, Some(millis)) => ("from_to", sites, millis),
            _ => {
                return Err(format!(
                    "{key}: expected `between` with `round_trip_ms`, or `from_to` with `one_way_ms`"
                ));
            }
        };
        sites.iter().try_for_each(|name| is_site(&format!("{key}.{which}"), name))?;
        if sites[0] == sites[1] {
            return Err(format!("{key}.{which}: a site is not linked to itself; name two sites"));
        }
        let most = 2.0 * DELAY_MAX.as_secs_f64() * 1e3;
        for (field, value) in [("round_trip_ms or one_way_ms", millis), ("jitter_ms", self.jitter_ms)] {
            // Also refuses what is no number.
            if !(0.0..=most).contains(&value) {
                return Err(format!("{key}.{field}: expected 0 to {most} milliseconds, got {value}"));
            }
        }
        match self.bandwidth_mbit {
            Some(rate) if !(0.001..=1e6).contains(&rate) => Err(format!(
                "{key}.bandwidth_mbit: expected 0.001 to 1000000, got {rate}; leave it out for no limit"
            )),
            _ => Ok(()),
        }
    }

    fn covers(&self, from: &str, to: &str) -> bool {
        self.directions().contains(&(from, to))
    }

    fn directions(&self) -> Vec<(&str, &str)> {
        let mut directions = Vec::new();
        if let Some([a, b]) = &self.between {
            directions.extend([(a.as_str(), b.as_str()), (b, a)]);
        }
        if let Some([from, to]) = &self.from_to {
            directions.push((from, to));
        }
        directions
    }

    fn quality(&self) -> Quality {
        let delay = self.one_way_ms.or(self.round_trip_ms.map(|ms| ms / 2.0)).unwrap_or(0.0);
        let ms = |value: f64| Duration::from_secs_f64(value / 1e3);
        let bandwidth = self.bandwidth_mbit.and_then(|mbit| NonZeroU64::new((mbit * 1e6 / 8.0) as u64));
        Quality { delay: ms(delay), jitter: ms(self.jitter_ms), bandwidth }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        name = "two"
        source = "a test"
        timing = "lan"
        home = "a"
        [[sites]]
        name = "a"
        nodes = 1
        gateways = 1
        members = 1
        [[sites]]
        name = "b"
        nodes = 0
        gateways = 1
        members = 3
        [[links]]
        between = ["a", "b"]
        round_trip_ms = 10.0
    "#;

    #[test]
    fn every_preset_is_valid() {
        for (name, text) in super::super::presets::ALL {
            let topology = Topology::parse(name, text).unwrap();
            assert_eq!(topology.name, *name);
            assert!(!topology.source.is_empty());
            topology.links(1).unwrap();
        }
    }

    #[test]
    fn round_trips_are_split_evenly() {
        let topology = Topology::parse("two.toml", GOOD).unwrap();
        assert_eq!(topology.round_trip("a", "b"), Duration::from_millis(10));
        assert_eq!(topology.links(1).unwrap().round_trip("b", "a").unwrap(), Duration::from_millis(10));
    }

    #[test]
    fn the_shortest_way_may_lead_over_another_site() {
        let site =
            |name: &str| format!("[[sites]]\nname = \"{name}\"\nnodes = 1\ngateways = 1\nmembers = 1\n");
        let link = |a: &str, b: &str, ms: f64| {
            format!("[[links]]\nbetween = [\"{a}\", \"{b}\"]\nround_trip_ms = {ms:.1}\nbandwidth_mbit = 8\n")
        };
        let text = format!(
            "name = \"t\"\nsource = \"a test\"\ntiming = \"lan\"\nhome = \"a\"\n{}{}{}{}{}{}",
            site("a"),
            site("b"),
            site("c"),
            link("a", "b", 10.0),
            link("b", "c", 20.0),
            link("a", "c", 100.0)
        );
        let topology = Topology::parse("three.toml", &text).unwrap();
        let millis = |bytes| -> Vec<f64> {
            topology.shortest_ways("a", bytes).iter().map(|way| way.as_secs_f64() * 1e3).collect()
        };
        assert_eq!(millis(0), [0.0, 5.0, 15.0]);
        // A kilobyte takes a millisecond on each link.
        assert_eq!(millis(1000), [0.0, 6.0, 17.0]);
    }

    #[test]
    fn mistakes_name_the_file_the_key_and_the_remedy() {
        for (from, to, key) in [
            ("home = \"a\"", "home = \"x\"", "home: there is no site `x`; name one of a, b"),
            ("home = \"a\"", "home = \"b\"", "home: site `b` has no node"),
            (
                "round_trip_ms = 10.0",
                "round_trip_ms = -1.0",
                "links[0].round_trip_ms or one_way_ms: expected 0",
            ),
            ("round_trip_ms = 10.0", "one_way_ms = 1.0", "links[0]: expected `between` with `round_trip_ms`"),
            ("[\"a\", \"b\"]", "[\"a\", \"c\"]", "links[0].between: there is no site `c`"),
            ("[\"a\", \"b\"]", "[\"a\", \"a\"]", "name two sites"),
            ("nodes = 0", "nodes = 1", "2 nodes can not form a quorum well"),
            ("nodes = 0", "nodes = 7", "sites[1] (`b`)"),
            ("name = \"b\"", "name = \"a\"", "sites: expected 1 to"),
            ("source", "sauce", "unknown field `sauce`"),
            ("round_trip_ms = 10.0", "round_trip_ms = 10.0\nbandwidth_mbit = 0", "leave it out for no limit"),
        ] {
            let error = Topology::parse("two.toml", &GOOD.replace(from, to)).unwrap_err().to_string();
            assert!(error.starts_with("two.toml: ") && error.contains(key), "{error}\nlacks {key}");
        }
        let error = Topology::find("nowhere").unwrap_err();
        assert!(format!("{error:#}").contains("continent"), "{error:#}");
    }
}
