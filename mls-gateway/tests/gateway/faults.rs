//! What happens when the cluster misbehaves.

use concordat_proto::gateway::v1::{Mode, subscribe_response::Event};
use service_kit::status::StatusFacts;
use tonic::Code;

use crate::support::{
    Events, accepted, assert_refused, client, create_request, fake::FakeCluster, gateway, member::Member,
    outcome, soon, submit, until,
};

const GROUP: &[u8] = b"group";

#[tokio::test]
async fn a_lost_reply_is_resubmitted_and_answered_as_if_nothing_had_happened() {
    let cluster = FakeCluster::start(3).await;
    let gateway = gateway(&cluster.addresses()).await;
    let (mut alice, mut calls) = (Member::new("alice"), client(&gateway, b"alice"));
    calls.create_group(create_request(alice.create(GROUP))).await.unwrap();
    cluster.set(|state| (state.lose_replies, state.applied) = (2, 0));
    let answer = accepted(submit(&mut calls, alice.update()).await);
    alice.merge();
    assert_eq!((answer.seq, answer.epoch), (2, 1));
    cluster.get(|state| {
        assert_eq!(state.applied, 3, "tried three times");
        assert_eq!(state.logs[GROUP].current().unwrap().seq, 2, "accepted once");
    });
}

#[tokio::test]
async fn a_storm_of_denials_ends_at_the_leader() {
    let cluster = FakeCluster::start(3).await;
    let gateway = gateway(&cluster.addresses()).await;
    let (mut alice, mut calls) = (Member::new("alice"), client(&gateway, b"alice"));
    calls.create_group(create_request(alice.create(GROUP))).await.unwrap();
    cluster.set(|state| (state.deny_leading, state.leader) = (25, 2));
    let answer = accepted(submit(&mut calls, alice.update()).await);
    assert_eq!(answer.epoch, 1);
    cluster.get(|state| assert_eq!(state.deny_leading, 0));
}

#[tokio::test]
async fn leaders_that_were_not_named_in_the_configuration_are_found() {
    let cluster = FakeCluster::start(3).await;
    cluster.set(|state| state.leader = 2);
    let gateway = gateway(&cluster.addresses()[..1]).await;
    let mut calls = client(&gateway, b"alice");
    let answer = calls.create_group(create_request(Member::new("alice").create(GROUP))).await.unwrap();
    assert_eq!(answer.into_inner().accepted.unwrap().seq, 1);
}

#[tokio::test]
async fn without_a_quorum_submissions_fail_with_a_hint_and_subscribers_are_told() {
    let cluster = FakeCluster::start(3).await;
    let gateway = gateway(&cluster.addresses()).await;
    let (mut alice, mut calls) = (Member::new("alice"), client(&gateway, b"alice"));
    calls.create_group(create_request(alice.create(GROUP))).await.unwrap();
    let mut events = Events::open(&mut calls, GROUP, None).await;
    events.caught_up().await;
    let commit = alice.update();

    cluster.set(|state| state.no_quorum = true);
    let Event::ModeChange(change) = events.next().await.unwrap() else { panic!("expected a change of mode") };
    assert_eq!(change.mode(), Mode::Suspect);
    // Until the loss is believed, a submission waits; what became of it is not known then.
    let mut answer = Ok(());
    until("the shard is unavailable", async || {
        answer = outcome(calls.submit(commit.clone()).await).map(drop);
        answer.as_ref().is_err_and(|e| StatusFacts::of(e).reason.as_deref() == Some("NO_QUORUM"))
    })
    .await;
    let facts = assert_refused(&answer.unwrap_err(), Code::Unavailable, "NO_QUORUM");
    assert!(facts.retry_after.is_some());

    cluster.set(|state| state.no_quorum = false);
    let Event::ModeChange(change) = events.next().await.unwrap() else { panic!("expected a change of mode") };
    assert_eq!(change.mode(), Mode::Ordered);
    accepted(submit(&mut calls, commit).await);
    assert_eq!(events.entry().await.seq, 2);
}

#[tokio::test]
async fn a_forged_log_is_not_passed_on_and_following_goes_on_with_another_node() {
    let cluster = FakeCluster::start(3).await;
    let gateway = gateway(&cluster.addresses()).await;
    let (mut alice, mut calls) = (Member::new("alice"), client(&gateway, b"alice"));
    calls.create_group(create_request(alice.create(GROUP))).await.unwrap();
    let mut events = Events::open(&mut calls, GROUP, None).await;
    events.caught_up().await;
    let followed = cluster.get(|state| *state.follows.keys().next().unwrap());
    cluster.set(|state| state.forger = Some(followed));
    accepted(submit(&mut calls, alice.update()).await);
    let entry = events.entry().await;
    assert_eq!((entry.seq, &entry.author[..]), (2, &b"alice"[..]));
    cluster.get(|state| assert!(state.follows.len() > 1, "another node is followed"));
}

#[tokio::test]
async fn a_forged_page_is_refused() {
    let cluster = FakeCluster::start(1).await;
    let gateway = gateway(&cluster.addresses()).await;
    let mut calls = client(&gateway, b"alice");
    calls.create_group(create_request(Member::new("alice").create(GROUP))).await.unwrap();
    cluster.set(|state| state.forger = Some(0));
    let mut events = Events::open(&mut calls, GROUP, None).await;
    let error = loop {
        match events.next().await {
            Ok(Event::Entry(_)) => panic!("a forged entry was passed on"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_refused(&error, Code::DataLoss, "STORAGE");
}

#[tokio::test]
async fn a_followed_node_that_lags_is_left_for_another() {
    let cluster = FakeCluster::start(3).await;
    let gateway = gateway(&cluster.addresses()).await;
    let (mut alice, mut calls) = (Member::new("alice"), client(&gateway, b"alice"));
    calls.create_group(create_request(alice.create(GROUP))).await.unwrap();
    let mut events = Events::open(&mut calls, GROUP, None).await;
    events.caught_up().await;
    let followed = cluster.get(|state| *state.follows.keys().next().unwrap());
    cluster.set(|state| state.laggard = Some((followed, 1)));
    accepted(submit(&mut calls, alice.update()).await);
    alice.merge();
    assert_eq!(events.entry().await.seq, 2);
    accepted(submit(&mut calls, alice.update()).await);
    assert_eq!(events.entry().await.seq, 3);
}

/// One subscriber does not read at all, the other gets everything meanwhile; then the slow one gets everything, too.
#[tokio::test]
async fn a_slow_subscriber_slows_nobody_and_loses_nothing() {
    const MESSAGES: usize = 400;
    let cluster = FakeCluster::start(1).await;
    let gateway = gateway(&cluster.addresses()).await;
    let (mut alice, mut calls) = (Member::new("alice"), client(&gateway, b"alice"));
    calls.create_group(create_request(alice.create(GROUP))).await.unwrap();
    let mut slow_calls = client(&gateway, b"slow");
    let mut slow = Events::open(&mut slow_calls, GROUP, None).await;
    let mut fast = Events::open(&mut calls, GROUP, None).await;
    let text = "x".repeat(32 * 1024);
    for n in 0..MESSAGES {
        accepted(submit(&mut calls, alice.say(&text)).await);
        // The next is sent only when the fast one has this: if the slow one could hold it up, this would never end.
        let seq = fast.entry().await.seq;
        let expected = n as u64 + 1;
        assert!(seq == expected, "expected {expected}, got {seq}");
    }
    // More than all buffers between the gateway and the slow reader, so that the ring has gone on without it.
    let entries = soon("the slow one catches up", slow.entries(MESSAGES + 1)).await;
    assert!(entries.iter().map(|e| e.seq).eq(1..=MESSAGES as u64 + 1));
    cluster.get(|state| assert!(state.read_entries > 1, "the slow one was served from the log"));
    assert_eq!(gateway.followed_groups(), 1);
}
