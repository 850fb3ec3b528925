//! Three sites with a node and a gateway each, and groups of both kinds with members at every site.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context;
use bytes::Bytes;
use futures::future::try_join_all;
use links::{Links, Quality};
use mls_client::{Client, ClientId, GroupId, GroupKind, NewGroup, Randomness};
use testbed::{Cluster, ClusterOptions, Placement, wait::until};

use crate::{limits::SETTLE_DEADLINE, progress::Progress, world::Member};

/// The sites.
pub(super) const SITES: [&str; 3] = ["athens", "bern", "cork"];

/// One way between any two of them.
const DELAY: Duration = Duration::from_millis(5);

/// Timings of nodes and gateways that suit this distance.
pub(super) const PROFILE: &str = "region";

/// The longest election timeout of these timings.
pub(super) const ELECTION_TIMEOUT: Duration = Duration::from_millis(1000);

/// Members of each group at each site in the beginning: one who commits, one who speaks, and one who is removed somewhere.
const MEMBERS_PER_SITE: usize = 3;

/// Clients at each site who wait to be added to the group.
const WAITING_PER_SITE: usize = 2;

/// A message that somebody has sent.
#[derive(Debug, Clone)]
pub(super) struct Said {
    pub(super) body: Vec<u8>,
    /// Members of the state that it was sent in, as its sender saw it.
    pub(super) entitled: BTreeSet<Vec<u8>>,
}

/// What was done to a group, and so has to be true in the end.
#[derive(Debug, Default)]
pub(super) struct Deeds {
    pub(super) said: Vec<Said>,
    pub(super) removed: BTreeSet<Vec<u8>>,
    pub(super) added: BTreeSet<Vec<u8>>,
    /// Answers that were given on a branch.
    pub(super) provisional: usize,
    /// Answers that a quorum gave.
    pub(super) accepted: usize,
    /// Operations that found no quorum and stay pending.
    pub(super) waiting: usize,
    /// What must not happen.
    pub(super) errors: Vec<String>,
}

/// One group.
pub(super) struct Group {
    pub(super) name: String,
    pub(super) kind: GroupKind,
    pub(super) id: GroupId,
    /// By site: its first members, and then those who are outside in the beginning.
    members: Vec<Vec<Arc<Member>>>,
    /// KeyPackages of those outside, each claimed by who commits at its site: without a quorum nobody can claim one.
    key_packages: BTreeMap<Vec<u8>, Bytes>,
    deeds: Mutex<Deeds>,
}

impl Group {
    /// Who commits at a site. Nobody removes it.
    pub(super) fn committer(&self, site: usize) -> &Member {
        &self.members[site][0]
    }

    /// Who speaks at a site. Nobody removes it.
    pub(super) fn speaker(&self, site: usize) -> &Member {
        &self.members[site][1]
    }

    /// The member of a site who is removed, by whomever.
    pub(super) fn unwanted(&self, site: usize) -> &Member {
        &self.members[site][2]
    }

    /// One of those at a site who wait to be added.
    pub(super) fn waiting(&self, site: usize, number: usize) -> &Member {
        &self.members[site][MEMBERS_PER_SITE + number]
    }

    /// A KeyPackage of somebody who waits.
    pub(super) fn key_package(&self, of: &Member) -> Bytes {
        self.key_packages.get(of.id().as_bytes()).cloned().unwrap_or_default()
    }

    pub(super) fn everybody(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.members.iter().flatten()
    }

    pub(super) fn deeds(&self) -> MutexGuard<'_, Deeds> {
        self.deeds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is in it in the beginning.
    pub(super) fn first_members(&self) -> BTreeSet<Vec<u8>> {
        let first = self.members.iter().flat_map(|site| &site[..MEMBERS_PER_SITE]);
        first.map(|member| member.id().as_bytes().to_vec()).collect()
    }
}

/// Everything that runs.
pub(super) struct World {
    pub(super) links: Arc<Links>,
    pub(super) cluster: Cluster,
    pub(super) groups: Vec<Group>,
}

impl World {
    pub(super) async fn start(per_kind: usize, seed: u64, progress: &Progress) -> anyhow::Result<Self> {
        progress.now("starting three sites".into());
        let links = Arc::new(Links::start(SITES, seed)?);
        for (a, b) in [(0, 1), (1, 2), (0, 2)] {
            links.set_both(SITES[a], SITES[b], Quality::delay(DELAY))?;
        }
        let sites = SITES.map(str::to_owned).to_vec();
        let options = ClusterOptions {
            nodes: 3,
            gateways: 3,
            node_args: ["--timing", PROFILE].map(str::to_owned).to_vec(),
            gateway_args: ["--profile", PROFILE].map(str::to_owned).to_vec(),
            placement: Some(Placement { links: Arc::clone(&links), nodes: sites.clone(), gateways: sites }),
            ..ClusterOptions::default()
        };
        let cluster = Cluster::start(options).await.context("starting the processes")?;
        progress.done("three sites, 10 ms apart, with an ordering node and a gateway each, are ready");
        let (dir, gateways) = (cluster.dir(), cluster.gateway_addresses());
        progress.now("founding groups".into());
        let kinds = [(GroupKind::Demls, "demls"), (GroupKind::Mls, "mls")];
        let names = kinds.iter().flat_map(|kind| (1..=per_kind).map(move |number| (kind, number)));
        let founding = names.enumerate().map(|(index, ((kind, word), number))| {
            found(format!("{word}-{number}"), *kind, index, &gateways, &dir, seed)
        });
        let groups = try_join_all(founding).await?;
        progress.done(&format!(
            "{per_kind} DeMLS and {per_kind} plain MLS groups of {} members, {MEMBERS_PER_SITE} at every site, and others waiting to be added",
            MEMBERS_PER_SITE * SITES.len()
        ));
        Ok(Self { links, cluster, groups })
    }
}

/// Makes the group with this number, with all its first members.
async fn found(
    name: String,
    kind: GroupKind,
    number: usize,
    gateways: &[String],
    dir: &Path,
    seed: u64,
) -> anyhow::Result<Group> {
    let mut members = Vec::new();
    for (site, gateway) in SITES.iter().zip(gateways) {
        let here = (1..=MEMBERS_PER_SITE + WAITING_PER_SITE).map(|client_number| {
            let client = format!("{name}-{site}-{client_number}");
            let path = dir.join("clients").join(format!("{client}.state"));
            let rng =
                Randomness::from_seed(seed ^ (number * 1000 + members.len() * 100 + client_number) as u64);
            async move { anyhow::Ok(Arc::new(crate::world::open(client, gateway, &path, rng).await?)) }
        });
        let here = try_join_all(here).await?;
        members.push(here);
    }
    let founder: Client = members[0][0].client.clone();
    let id = founder
        .create_group(NewGroup { kind, ..NewGroup::default() })
        .await
        .with_context(|| format!("creating {name}"))?;
    let mut key_packages = BTreeMap::new();
    for site in &members {
        for outside in &site[MEMBERS_PER_SITE..] {
            let claimed =
                site[0].client.claim_key_package(outside.id()).await.context("claiming a KeyPackage")?;
            key_packages.insert(outside.id().as_bytes().to_vec(), claimed);
        }
    }
    let group = Group { name, kind, id, members, key_packages, deeds: Mutex::default() };
    let first = group.first_members();
    let invited: Vec<ClientId> = group
        .everybody()
        .filter(|member| first.contains(member.id().as_bytes()) && member.id() != founder.id())
        .map(|member| member.id().clone())
        .collect();
    founder
        .invite(&group.id, &invited)
        .await
        .with_context(|| format!("inviting everybody to {}", group.name))?;
    until(format!("all members to join {}", group.name), SETTLE_DEADLINE, || {
        let inside = group.everybody().filter(|member| member.is_in(&group.id)).count();
        (inside == first.len()).then_some(())
    })
    .await?;
    Ok(group)
}

#[cfg(test)]
mod tests {
    use ordering_service::raft::timing::{Profile, Timing};

    use super::*;

    #[test]
    fn the_election_timeout_is_that_of_the_profile() {
        let profile: Profile = PROFILE.parse().expect("a profile");
        assert_eq!(Timing::of(profile).election_max, ELECTION_TIMEOUT);
    }
}
