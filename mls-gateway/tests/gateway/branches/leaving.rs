//! A gateway lets go of groups that nobody uses there, and follows them again when somebody asks.

use std::time::Duration;

use group_log::{GroupId, fork::GatewayId};
use mls_gateway::demls::Times;
use tokio::time::sleep;
use tonic::Code;

use super::site::{GROUP, Site, add, after, create, in_front_of, made_in, provisional, times};
use crate::support::{
    Client, Events, accepted, assert_refused, fake::FakeCluster, member::Member, outcome, soon, submit, until,
};

/// A group that nobody uses for so long is let go.
const IDLE: Duration = Duration::from_millis(400);

async fn sites(cluster: &FakeCluster) -> Vec<Site> {
    in_front_of(cluster.addresses(), 2, |_, _| true, Times { idle: IDLE, ..times() }).await
}

fn id_of(site: &Site) -> GatewayId {
    site.gateway().demls().unwrap().store().gateway_id()
}

/// The number of the gateway's registration, if the cluster counts on it.
fn number(cluster: &FakeCluster, site: &Site) -> Option<u64> {
    let id = id_of(site);
    cluster.get(|state| {
        let registered = &state.forks.groups[GROUP].fork.state().gateways;
        registered.get(&id).map(|registration| registration.number)
    })
}

fn holds_group(site: &Site) -> bool {
    site.gateway().demls().unwrap().get(&GroupId::new(GROUP.to_vec()).unwrap()).is_some()
}

async fn is_let_go(cluster: &FakeCluster, site: &Site) {
    until("the cluster does not wait for the gateway", async || number(cluster, site).is_none()).await;
    until("the gateway has forgotten the group", async || !holds_group(site)).await;
    assert!(site.gateway().demls().unwrap().store().groups().unwrap().is_empty(), "on its disk, too");
}

async fn subscribe(calls: &mut Client) -> Events {
    let mut events = Events::open(calls, GROUP, None).await;
    events.caught_up().await;
    events
}

#[tokio::test]
async fn a_group_that_nobody_uses_is_let_go_and_followed_again_when_somebody_asks() {
    let cluster = FakeCluster::start(3).await;
    let sites = sites(&cluster).await;
    let (mut there, mut here) = (sites[0].client(b"alice"), sites[1].client(b"bob"));
    let (mut alice, mut bob) = (Member::new("alice"), Member::new("bob"));
    let first = create(&mut there, &mut alice).await;
    let _subscribed = subscribe(&mut there).await;
    let second = add(&mut there, &mut alice, &mut bob, &first).await;
    let events = subscribe(&mut here).await;
    for site in &sites {
        site.registered(&cluster).await;
    }
    let before = number(&cluster, &sites[1]).unwrap();

    drop(events);
    is_let_go(&cluster, &sites[1]).await;
    assert!(number(&cluster, &sites[0]).is_some(), "where somebody is subscribed, it stays");
    // Nothing waits for the one that has let go.
    let commit = made_in(&second, alice.update());
    let third = after(&second, &commit);
    let seq = accepted(submit(&mut there, commit.clone()).await).seq;
    alice.merge();
    until("it is stable", async || cluster.get(|state| state.forks.groups[GROUP].fork.state().stable >= seq))
        .await;

    let mut again = Events::open(&mut here, GROUP, None).await;
    let (entries, _) = again.caught_up().await;
    assert!(entries.len() as u64 >= seq, "the whole log is there again");
    sites[1].registered(&cluster).await;
    assert!(number(&cluster, &sites[1]).unwrap() > before);
    // It may fork again, from where it has promised now.
    cluster.set(|state| state.no_quorum = true);
    bob.process_message(&commit.message);
    let branch = made_in(&third, bob.update());
    provisional(submit(&mut here, branch.clone()).await);
    cluster.set(|state| state.no_quorum = false);
    until("the branch is canonical", async || {
        cluster.get(|state| {
            let head = *state.forks.groups[GROUP].fork.current().unwrap();
            head.state_id == after(&third, &branch)
        })
    })
    .await;
}

#[tokio::test]
async fn a_gateway_with_a_branch_does_not_let_go_before_the_branch_is_stable() {
    let cluster = FakeCluster::start(3).await;
    let sites = sites(&cluster).await;
    let (mut there, mut here) = (sites[0].client(b"alice"), sites[1].client(b"bob"));
    let (mut alice, mut bob) = (Member::new("alice"), Member::new("bob"));
    let first = create(&mut there, &mut alice).await;
    let subscribed = subscribe(&mut there).await;
    let second = add(&mut there, &mut alice, &mut bob, &first).await;
    let events = subscribe(&mut here).await;
    for site in &sites {
        site.registered(&cluster).await;
    }
    cluster.set(|state| state.no_quorum = true);
    let branch = made_in(&second, bob.update());
    provisional(submit(&mut here, branch.clone()).await);
    drop((events, subscribed));
    // Far longer than it takes to let go of an idle group.
    sleep(IDLE * 4).await;
    assert!(sites.iter().all(|site| holds_group(site) && number(&cluster, site).is_some()));

    cluster.set(|state| state.no_quorum = false);
    for site in &sites {
        is_let_go(&cluster, site).await;
    }
    cluster.get(|state| {
        let fork = &state.forks.groups[GROUP].fork;
        assert_eq!(fork.current().unwrap().state_id, after(&second, &branch));
        assert!(fork.state().pending_marks.is_empty());
        assert_eq!(
            fork.state().stable_epoch,
            fork.current().unwrap().epoch,
            "everything became stable before"
        );
    });
}

#[tokio::test]
async fn what_was_let_go_does_not_fork_until_it_is_registered_again() {
    let cluster = FakeCluster::start(3).await;
    let sites = sites(&cluster).await;
    let mut calls = sites[0].client(b"alice");
    let mut alice = Member::new("alice");
    let first = create(&mut calls, &mut alice).await;
    is_let_go(&cluster, &sites[0]).await;
    cluster.set(|state| state.no_quorum = true);
    sites[0].misses_the_quorum().await;
    let commit = made_in(&first, alice.update());
    let refused = soon("an answer", calls.submit(commit.clone())).await;
    assert_refused(&outcome(refused).unwrap_err(), Code::Unavailable, "MAY_NOT_FORK");
    cluster.set(|state| state.no_quorum = false);
    sites[0].registered(&cluster).await;
    cluster.set(|state| state.no_quorum = true);
    // That takes longer than a group lives here that nobody uses: whoever waits for an answer does.
    provisional(submit(&mut calls, commit).await);
}
