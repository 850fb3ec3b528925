//! A gateway may open a branch only if the cluster counts on it for the group. It sees to that as early as it can, and says so when it is
//! too late.

use std::time::Instant;

use concordat_proto::gateway::v1::WatchWelcomesRequest;
use group_log::{GroupId, fork::Mode};
use tonic::Code;

use super::site::{
    FORKED_WITHIN, GROUP, accepted_in_the_end, add, after, create, in_front_of, made_in, provisional, sites,
    times,
};
use crate::support::{
    assert_refused, fake::FakeCluster, member::Member, outcome, real::RealCluster, soon, submit, until,
};

#[tokio::test]
async fn whoever_is_told_that_a_group_exists_can_go_on_with_it_at_once() {
    let cluster = FakeCluster::start(3).await;
    let site = sites(&cluster, 1, |_, _| false).await.remove(0);
    let mut calls = site.client(b"alice");
    let mut alice = Member::new("alice");
    let first = create(&mut calls, &mut alice).await;
    let lost = Instant::now();
    cluster.set(|state| state.no_quorum = true);
    let commit = made_in(&first, alice.update());
    assert_eq!(
        provisional(submit(&mut calls, commit.clone()).await).state_id,
        after(&first, &commit).to_bytes()
    );
    assert!(lost.elapsed() < FORKED_WITHIN, "it took {:?}", lost.elapsed());
}

#[tokio::test]
async fn a_gateway_that_comes_too_late_opens_no_branch_and_says_why() {
    let cluster = FakeCluster::start(3).await;
    let sites = sites(&cluster, 2, |_, _| false).await;
    let (mut there, mut here) = (sites[0].client(b"alice"), sites[1].client(b"bob"));
    let (mut alice, mut bob) = (Member::new("alice"), Member::new("bob"));
    let first = create(&mut there, &mut alice).await;
    let second = add(&mut there, &mut alice, &mut bob, &first).await;
    cluster.set(|state| state.no_quorum = true);
    // Nobody has asked for the group here before, and by now it is known that nobody can be asked to count on this gateway.
    sites[1].misses_the_quorum().await;
    let commit = made_in(&second, bob.update());
    let refused = outcome(soon("an answer", here.submit(commit.clone())).await).unwrap_err();
    let facts = assert_refused(&refused, Code::Unavailable, "MAY_NOT_FORK");
    assert!(facts.retry_after.is_some(), "the quorum may come back");
    assert!(!sites[1].group().may_fork().await);
    // Where the cluster counted on the gateway, the group goes on.
    let other = made_in(&second, alice.update());
    provisional(submit(&mut there, other).await);
}

#[tokio::test]
async fn a_gateway_that_comes_too_late_is_served_by_one_that_did_not() {
    let cluster = FakeCluster::start(3).await;
    let sites = sites(&cluster, 2, |_, _| true).await;
    let (mut there, mut here) = (sites[0].client(b"alice"), sites[1].client(b"bob"));
    let (mut alice, mut bob) = (Member::new("alice"), Member::new("bob"));
    let first = create(&mut there, &mut alice).await;
    let second = add(&mut there, &mut alice, &mut bob, &first).await;
    cluster.set(|state| state.no_quorum = true);
    sites[1].misses_the_quorum().await;
    let commit = made_in(&second, bob.update());
    let answer = provisional(submit(&mut here, commit.clone()).await);
    let third = after(&second, &commit);
    assert_eq!((answer.state_id, answer.copies), (third.to_bytes(), 2));
    assert!(!sites[1].group().may_fork().await && sites[1].group().mode() == Mode::Suspect);
    // Messages find their way, too.
    bob.merge();
    provisional(submit(&mut here, made_in(&third, bob.say("hello"))).await);

    cluster.set(|state| state.no_quorum = false);
    until("the branch is canonical", async || {
        cluster.get(|state| state.forks.groups[GROUP].fork.current().unwrap().state_id == third)
    })
    .await;
    sites[1].registered(&cluster).await;
}

#[tokio::test]
async fn what_a_late_gateway_refused_is_ordered_when_the_quorum_is_back() {
    let cluster = FakeCluster::start(3).await;
    let sites = sites(&cluster, 2, |_, _| false).await;
    let (mut there, mut here) = (sites[0].client(b"alice"), sites[1].client(b"bob"));
    let (mut alice, mut bob) = (Member::new("alice"), Member::new("bob"));
    let first = create(&mut there, &mut alice).await;
    let second = add(&mut there, &mut alice, &mut bob, &first).await;
    cluster.set(|state| state.no_quorum = true);
    let commit = made_in(&second, bob.update());
    outcome(soon("an answer", here.submit(commit.clone())).await).unwrap_err();
    cluster.set(|state| state.no_quorum = false);
    let state = accepted_in_the_end(&mut here, &commit).await.state_id;
    assert_eq!(state, after(&second, &commit).to_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_is_enough_for_the_cluster_to_count_on_the_gateway_of_who_is_invited() {
    let cluster = RealCluster::start().await;
    let sites = in_front_of(cluster.addresses(), 2, |_, _| true, times()).await;
    let (mut there, mut here) = (sites[0].client(b"alice"), sites[1].client(b"bob"));
    let (mut alice, mut bob) = (Member::new("alice"), Member::new("bob"));
    let first = create(&mut there, &mut alice).await;
    let mut inbox = here.watch_welcomes(WatchWelcomesRequest { cursor: None }).await.unwrap().into_inner();
    add(&mut there, &mut alice, &mut bob, &first).await;
    soon("a Welcome", inbox.message()).await.unwrap().unwrap();
    // Bob has not asked for anything yet.
    let (registry, id) = (sites[1].gateway().demls().unwrap(), GroupId::new(GROUP.to_vec()).unwrap());
    until("the gateway may fork", async || match registry.get(&id) {
        Some(group) => group.may_fork().await,
        None => false,
    })
    .await;
}
