//! Several gateways that reach one another.

use concordat_proto::{
    gateway::v1::{CloseGroupRequest, GetGroupInfoRequest, SetPolicyRequest, submit_response::Outcome},
    log::v1::Policy,
};
use group_log::fork::Mode;
use tonic::Code;

use super::site::{
    GROUP, Site, accepted_in_the_end, add, after, branch_entry, create, made_in, provisional, sites,
};
use crate::support::{
    Events, assert_refused, create_request, fake::FakeCluster, member::Member, outcome, submit, until,
};

async fn ready(cluster: &FakeCluster, sites: &[Site]) {
    for (n, site) in sites.iter().enumerate() {
        let mut calls = site.client(&[n as u8 + 1]);
        Events::open(&mut calls, GROUP, None).await.caught_up().await;
        site.registered(cluster).await;
    }
}

/// In a chain of three, so that two of them reach one another through the third only.
#[tokio::test]
async fn gateways_that_reach_one_another_make_one_branch_and_two_have_every_entry() {
    let cluster = FakeCluster::start(3).await;
    let sites = sites(&cluster, 3, |a, b| a.abs_diff(b) == 1).await;
    let (mut one, mut three) = (sites[0].client(b"alice"), sites[2].client(b"bob"));
    let (mut alice, mut bob) = (Member::new("alice"), Member::new("bob"));
    let first = create(&mut one, &mut alice).await;
    let second = add(&mut one, &mut alice, &mut bob, &first).await;
    ready(&cluster, &sites).await;
    cluster.set(|state| state.no_quorum = true);
    for site in &sites {
        site.in_mode(Mode::Forked).await;
    }
    let (by_alice, by_bob) = (made_in(&second, alice.update()), made_in(&second, bob.update()));
    let (a, b) = tokio::join!(one.submit(by_alice.clone()), three.submit(by_bob.clone()));
    let (winner, loser) = match (outcome(a), outcome(b)) {
        (Ok(winner), Err(loser)) | (Err(loser), Ok(winner)) => (provisional(winner), loser),
        other => panic!("expected that one wins, got {other:?}"),
    };
    assert_eq!(winner.copies, 2);
    assert_refused(&loser, Code::FailedPrecondition, "NOT_A_LEAF");
    let mut told = Events::open(&mut three, GROUP, None).await;
    assert_eq!(branch_entry(&mut told).await, winner.entry_id);
    let mut told = Events::open(&mut one, GROUP, None).await;
    assert_eq!(branch_entry(&mut told).await, winner.entry_id);

    cluster.set(|state| state.no_quorum = false);
    for site in &sites {
        site.in_mode(Mode::Ordered).await;
    }
    cluster.get(|state| {
        let head = *state.forks.groups[GROUP].fork.current().unwrap();
        assert_eq!((head.state_id.to_bytes(), head.epoch), (winner.state_id, 2));
    });
}

#[tokio::test]
async fn a_gateway_that_is_cut_off_from_the_nodes_is_served_through_another() {
    let cluster = FakeCluster::start(3).await;
    let sites = sites(&cluster, 3, |a, b| a.abs_diff(b) == 1).await;
    let mut calls = sites[0].client(b"alice");
    let mut alice = Member::new("alice");
    let first = create(&mut calls, &mut alice).await;
    ready(&cluster, &sites).await;
    let mut events = Events::open(&mut calls, GROUP, None).await;
    events.caught_up().await;
    // The first reaches the third through the second, which reaches no node either.
    sites[0].cut_from_cluster();
    sites[1].cut_from_cluster();
    let commit = made_in(&first, alice.update());
    let state = after(&first, &commit);
    assert_eq!(accepted_in_the_end(&mut calls, &commit).await.state_id, state.to_bytes());
    assert_eq!(events.entry().await.state_id, state.to_bytes(), "the log comes the same way");
    // Asked again, with the same answer: whichever way it came.
    assert_eq!(accepted_in_the_end(&mut calls, &commit).await.state_id, state.to_bytes());

    // So does everything else that a client may want of the cluster.
    let info =
        calls.get_group_info(GetGroupInfoRequest { group_id: GROUP.into() }).await.unwrap().into_inner();
    assert_eq!(info.head.unwrap().state_id, state.to_bytes());
    let policy = Some(Policy { past_epochs: Some(3), ..Policy::default() });
    let set = SetPolicyRequest { group_id: GROUP.into(), epoch: 1, policy };
    calls.set_policy(set).await.unwrap().into_inner().accepted.unwrap();
    let mut bob = Member::new("bob");
    let mut request = create_request(bob.create(b"second"));
    request.kind = concordat_proto::log::v1::GroupKind::Demls.into();
    calls.create_group(request).await.unwrap().into_inner().accepted.unwrap();
    let close = CloseGroupRequest { group_id: GROUP.into(), epoch: 1 };
    calls.close_group(close).await.unwrap().into_inner().accepted.unwrap();
}

#[tokio::test]
async fn parts_that_were_apart_keep_both_branches_and_one_of_them_wins() {
    let cluster = FakeCluster::start(3).await;
    let sites = sites(&cluster, 2, |_, _| true).await;
    let (mut one, mut two) = (sites[0].client(b"alice"), sites[1].client(b"bob"));
    let (mut alice, mut bob) = (Member::new("alice"), Member::new("bob"));
    let first = create(&mut one, &mut alice).await;
    let second = add(&mut one, &mut alice, &mut bob, &first).await;
    ready(&cluster, &sites).await;
    cluster.set(|state| state.no_quorum = true);
    sites.iter().for_each(Site::cut_off);
    let (by_alice, by_bob) = (made_in(&second, alice.update()), made_in(&second, bob.update()));
    let (a, b) = tokio::join!(submit(&mut one, by_alice.clone()), submit(&mut two, by_bob.clone()));
    let (a, b) = (provisional(a), provisional(b));
    assert_eq!((a.copies, b.copies), (1, 1), "alone");
    sites.iter().for_each(Site::mend);
    for calls in [&mut one, &mut two] {
        let mut told = Events::open(calls, GROUP, None).await;
        let mut both = [branch_entry(&mut told).await, branch_entry(&mut told).await];
        both.sort();
        let mut expected = [a.entry_id.clone(), b.entry_id.clone()];
        expected.sort();
        assert_eq!(both, expected, "each learns of the other's");
    }
    cluster.set(|state| state.no_quorum = false);
    until("it is decided", async || {
        cluster.get(|state| {
            let fork = &state.forks.groups[GROUP].fork;
            fork.current().unwrap().epoch == 2 && fork.state().collecting.is_none()
        })
    })
    .await;
    for site in &sites {
        site.in_mode(Mode::Ordered).await;
    }
    let answers = [submit(&mut one, by_alice).await, submit(&mut two, by_bob).await];
    assert_eq!(answers.iter().filter(|answer| matches!(answer, Outcome::Accepted(_))).count(), 1);
    let lost = answers.iter().filter(|answer| matches!(answer, Outcome::Superseded(_)));
    assert_eq!(lost.count(), 1, "the other had ended the epoch before it went to the side");
}
