//! Who does what on which side. Each site has a member who commits and one who speaks; they stay. The third of a site is removed,
//! mostly on two sides at once, and two more wait to be added.

use std::time::Duration;

use anyhow::Context;
use futures::future::{join, join_all, try_join_all};
use mls_client::GroupKind;

use super::{
    acts,
    world::{Group, SITES},
};

/// Everybody says something while all is well.
pub(super) async fn together(groups: &[Group]) {
    join_all(groups.iter().flat_map(|group| {
        (0..SITES.len()).map(move |site| acts::say(group, group.speaker(site), "all together"))
    }))
    .await;
}

/// Commits at these sites until every DeMLS group has taken one onto a branch there. The times that this took, in no order.
pub(super) async fn fork(groups: &[Group], sites: &[usize]) -> anyhow::Result<Vec<Duration>> {
    let demls = groups.iter().filter(|group| group.kind == GroupKind::Demls);
    let everywhere = demls.flat_map(|group| sites.iter().map(move |site| (group, *site)));
    try_join_all(everywhere.map(|(group, site)| async move {
        let took = acts::until_forked(group, group.committer(site)).await;
        took.with_context(|| format!("{} does not go on without a quorum in {}", group.name, SITES[site]))
    }))
    .await
}

/// The first two sites have the quorum, the third has none: all commit, add, remove and speak.
pub(super) async fn two_sides(groups: &[Group]) {
    join_all(groups.iter().map(|group| async move {
        let quorum = async {
            acts::say(group, group.speaker(1), "with a quorum").await;
            acts::update(group, group.committer(1)).await;
            acts::invite(group, group.committer(0), group.waiting(0, 0)).await;
            acts::remove(group, group.committer(0), group.unwanted(1)).await;
            acts::say(group, group.speaker(0), "still with a quorum").await;
        };
        let minority = async {
            acts::say(group, group.committer(2), "without a quorum").await;
            if group.kind == GroupKind::Demls {
                acts::invite(group, group.committer(2), group.waiting(2, 0)).await;
                acts::remove(group, group.committer(2), group.unwanted(0)).await;
                acts::say(group, group.speaker(2), "still without").await;
            } else {
                acts::update(group, group.committer(2)).await;
            }
        };
        join(quorum, minority).await;
    }))
    .await;
}

/// Nobody has a quorum, and every site is alone: all commit, add, remove and speak.
pub(super) async fn three_sides(groups: &[Group]) {
    // At site n: who is added there, and whose third member is removed there.
    let plans = [(1, 2), (0, 0), (1, 1)];
    join_all(groups.iter().map(|group| async move {
        join_all(plans.into_iter().enumerate().map(|(site, (added, removed_from))| async move {
            acts::say(group, group.speaker(site), "all alone").await;
            acts::update(group, group.committer(site)).await;
            if group.kind == GroupKind::Demls {
                acts::invite(group, group.committer(site), group.waiting(site, added)).await;
                acts::remove(group, group.committer(site), group.unwanted(removed_from)).await;
                acts::say(group, group.committer(site), "after a removal").await;
            }
        }))
        .await;
    }))
    .await;
}

/// The DeMLS groups go on at a site whose gateway died while it held their branches.
pub(super) async fn after_a_death(groups: &[Group], site: usize) {
    let demls = groups.iter().filter(|group| group.kind == GroupKind::Demls);
    join_all(demls.map(|group| acts::say(group, group.speaker(site), "after my gateway's death"))).await;
}
