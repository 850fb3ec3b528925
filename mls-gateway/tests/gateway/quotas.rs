//! What one client or one group uses up is not missing to others.

use std::sync::Arc;

use bytes::Bytes;
use concordat_proto::gateway::v1::{
    ClaimKeyPackageRequest, GetHeadRequest, SubmitStreamRequest, SubscribeRequest, UploadKeyPackagesRequest,
    WatchWelcomesRequest, submit_stream_response,
};
use futures::{StreamExt, stream};
use mls_gateway::{
    limits::{GROUP_IN_FLIGHT_MAX, NODE_IN_FLIGHT_MAX, STREAM_IN_FLIGHT_MAX},
    quota::{Quotas, Rate},
};
use service_kit::{clock::ManualClock, status::decode};
use tonic::{Code, Status};

use crate::support::{
    Client, accepted, assert_refused, client, create_request, fake::FakeCluster, gateway, gateway_with,
    member::Member, real::RealCluster, soon, submit, until,
};

/// Of one length, so that where one does not fit no other does.
const SAID: &str =
    "something that is said again and again, until it is enough for today, and tomorrow it begins anew";
const UNLIMITED: Rate = Rate { per_second: 1 << 40, burst: 1 << 40 };

fn unlimited() -> Quotas {
    Quotas {
        client_entries: UNLIMITED,
        client_bytes: UNLIMITED,
        group_entries: UNLIMITED,
        group_bytes: UNLIMITED,
        ..Quotas::default()
    }
}

/// The cluster answers nothing for the flooded group, so that whatever the gateway lets through stays in its way.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_on_one_group_takes_no_place_that_another_group_needs() {
    let cluster = FakeCluster::start(1).await;
    let gateway = gateway_with(&cluster.addresses(), |parts| parts.quotas = unlimited()).await;
    let (mut flooder, mut other) = (Member::new("alice"), Member::new("bob"));
    let (mut flooding, mut calls) = (client(&gateway, b"alice"), client(&gateway, b"bob"));
    flooding.create_group(create_request(flooder.create(b"flooded"))).await.unwrap();
    calls.create_group(create_request(other.create(b"quiet"))).await.unwrap();
    cluster.set(|state| _ = state.stalled.insert(Bytes::from_static(b"flooded")));

    // More than the way to the node holds.
    let streams = NODE_IN_FLIGHT_MAX / STREAM_IN_FLIGHT_MAX + 2;
    let request = flooder.say("flood");
    let mut refused = Vec::new();
    for _ in 0..streams {
        let flood = (0..STREAM_IN_FLIGHT_MAX as u64)
            .map(|id| SubmitStreamRequest { id, request: Some(request.clone()) })
            .collect::<Vec<_>>();
        // Left open: unanswered submissions stay under way.
        let flood = stream::iter(flood).chain(stream::pending());
        refused.push(flooding.submit_stream(flood).await.unwrap().into_inner());
    }
    until("the flood fills the group's places", async || {
        cluster.get(|state| state.unanswered) >= GROUP_IN_FLIGHT_MAX
    })
    .await;
    accepted(submit(&mut calls, other.say("in time")).await);

    // What was over was refused at once, and says when to come back.
    let answer = soon("a refusal", refused.last_mut().unwrap().message()).await.unwrap().unwrap();
    let Some(submit_stream_response::Result::Error(error)) = answer.result else {
        panic!("expected a refusal, got {answer:?}")
    };
    let status = decode(&error);
    let facts = assert_refused(&status, Code::ResourceExhausted, "QUOTA");
    assert!(facts.retry_after.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_a_quota_is_refused_with_the_time_after_which_it_fits() {
    let cluster = FakeCluster::start(1).await;
    let clock = ManualClock::at_ms(0);
    let rate = Rate { per_second: 1, burst: 3 };
    let gateway = gateway_with(&cluster.addresses(), |parts| {
        parts.quotas =
            Quotas { client_entries: rate, client_reads: rate, client_claims: rate, ..unlimited() };
        parts.clock = Arc::new(clock.clone());
    })
    .await;
    let mut alice = Member::new("alice");
    let mut calls = client(&gateway, b"alice");
    calls.create_group(create_request(alice.create(b"group"))).await.unwrap();
    for _ in 0..2 {
        accepted(submit(&mut calls, alice.say("within")).await);
    }
    let over = alice.say("over");
    let error = calls.submit(over.clone()).await.unwrap_err();
    let facts = assert_refused(&error, Code::ResourceExhausted, "QUOTA");
    assert_eq!(facts.retry_after.map(|after| after.as_millis()), Some(1000));
    assert_eq!(cluster.get(|state| state.logs[&b"group"[..]].current().unwrap().seq), 3, "it is in no log");
    // Another client is not concerned.
    calls_of_another(&gateway).await;
    clock.advance_ms(1000);
    accepted(submit(&mut calls, over).await);

    let head = GetHeadRequest { group_id: Bytes::from_static(b"group"), linearizable: false };
    for _ in 0..3 {
        calls.get_head(head.clone()).await.unwrap();
    }
    let error = calls.get_head(head).await.unwrap_err();
    assert_refused(&error, Code::ResourceExhausted, "QUOTA");

    let claim = ClaimKeyPackageRequest { client_id: Bytes::from_static(b"bob"), claim_id: Bytes::new() };
    for _ in 0..3 {
        // The fake cluster keeps none; that is not the client's fault.
        let error = calls.claim_key_package(claim.clone()).await.unwrap_err();
        assert_refused(&error, Code::Unimplemented, "UNKNOWN_COMMAND");
    }
    let error = calls.claim_key_package(claim).await.unwrap_err();
    assert_refused(&error, Code::ResourceExhausted, "QUOTA");
}

async fn calls_of_another(gateway: &mls_gateway::server::Gateway) {
    let mut bob = Member::new("bob");
    let mut calls = client(gateway, b"bob");
    calls.create_group(create_request(bob.create(b"other"))).await.unwrap();
    accepted(submit(&mut calls, bob.say("mine")).await);
}

/// Says something in `group` until that is refused.
async fn until_refused(calls: &mut Client, says: &mut Member) -> Status {
    for _ in 0..100 {
        match calls.submit(says.say(SAID)).await {
            Ok(_) => {}
            Err(status) => return status,
        }
    }
    panic!("nothing is refused")
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_and_bytes_of_a_client_and_of_a_group_are_metered_each_by_itself() {
    type Set = fn(&mut Quotas, Rate);
    let (entries, bytes) = (Rate { per_second: 1, burst: 5 }, Rate { per_second: 100, burst: 5000 });
    let cases: [(&str, &str, Rate, Set); 4] = [
        ("the client's quota", "entries", entries, |quotas, rate| quotas.client_entries = rate),
        ("the client's quota", "bytes", bytes, |quotas, rate| quotas.client_bytes = rate),
        ("the group's quota", "entries", entries, |quotas, rate| quotas.group_entries = rate),
        ("the group's quota", "bytes", bytes, |quotas, rate| quotas.group_bytes = rate),
    ];
    for (whose, unit, rate, set) in cases {
        let cluster = FakeCluster::start(1).await;
        let gateway = gateway_with(&cluster.addresses(), |parts| {
            parts.quotas = unlimited();
            set(&mut parts.quotas, rate);
            parts.clock = Arc::new(ManualClock::at_ms(0));
        })
        .await;
        let (mut here, mut there) = (Member::new("alice"), Member::new("carol"));
        let (mut alice, mut bob) = (client(&gateway, b"alice"), client(&gateway, b"bob"));
        alice.create_group(create_request(here.create(b"here"))).await.unwrap();
        client(&gateway, b"carol").create_group(create_request(there.create(b"there"))).await.unwrap();
        let refused = until_refused(&mut alice, &mut here).await;
        let facts = assert_refused(&refused, Code::ResourceExhausted, "QUOTA");
        assert!(facts.retry_after.is_some(), "{whose}, {unit}");
        assert!(refused.message().contains(whose) && refused.message().contains(unit), "{refused}");
        // The client's is used up in every group, the group's for every client, and nobody else's is.
        let (same_group, same_client) =
            (bob.submit(here.say(SAID)).await, alice.submit(there.say(SAID)).await);
        let is_client = whose.contains("client");
        assert_eq!((same_group.is_ok(), same_client.is_ok()), (is_client, !is_client), "{whose}, {unit}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_beyond_the_quota_are_refused_until_another_one_is_closed() {
    let cluster = FakeCluster::start(1).await;
    let gateway = gateway_with(&cluster.addresses(), |parts| {
        parts.quotas = Quotas { client_streams: 2, group_subscriptions: 3, ..Quotas::default() };
    })
    .await;
    let mut alice = Member::new("alice");
    let mut calls = client(&gateway, b"alice");
    let group_id = alice.create(b"group");
    calls.create_group(create_request(group_id)).await.unwrap();
    let request = SubscribeRequest { group_id: Bytes::from_static(b"group"), ..SubscribeRequest::default() };
    let inbox = calls.watch_welcomes(WatchWelcomesRequest::default()).await.unwrap();
    let _followed = calls.subscribe(request.clone()).await.unwrap();
    let error = calls.subscribe(request.clone()).await.unwrap_err();
    assert_refused(&error, Code::ResourceExhausted, "QUOTA");
    let error = calls.submit_stream(stream::pending()).await.unwrap_err();
    assert_refused(&error, Code::ResourceExhausted, "QUOTA");
    drop(inbox);
    let mut opened = Vec::new();
    until("the place of the closed stream", async || {
        opened.extend(calls.subscribe(request.clone()).await);
        !opened.is_empty()
    })
    .await;

    // The group's own: two are held by alice, one more is free.
    let mut bobs = client(&gateway, b"bob");
    let _third = bobs.subscribe(request.clone()).await.unwrap();
    let error = bobs.subscribe(request).await.unwrap_err();
    assert_refused(&error, Code::ResourceExhausted, "QUOTA");
}

#[tokio::test(flavor = "multi_thread")]
async fn key_packages_are_claimed_no_faster_than_the_quota_says() {
    let cluster = RealCluster::start().await;
    let clock = ManualClock::at_ms(0);
    let east = gateway(&cluster.addresses()).await;
    let west = gateway_with(&cluster.addresses(), |parts| {
        parts.quotas = Quotas { client_claims: Rate { per_second: 1, burst: 2 }, ..Quotas::default() };
        parts.clock = Arc::new(clock.clone());
    })
    .await;
    let bob = Member::new("bob");
    let key_packages = (0..5).map(|_| bob.key_package(false)).collect();
    let upload = UploadKeyPackagesRequest { key_packages, replace: false };
    client(&east, b"bob").upload_key_packages(upload).await.unwrap();
    let mut mallorys = client(&west, b"mallory");
    let claim = ClaimKeyPackageRequest { client_id: Bytes::from_static(b"bob"), claim_id: Bytes::new() };
    for left in [4, 3] {
        let claimed = mallorys.claim_key_package(claim.clone()).await.unwrap().into_inner();
        assert_eq!(claimed.one_time_left, left);
    }
    let error = mallorys.claim_key_package(claim.clone()).await.unwrap_err();
    assert_refused(&error, Code::ResourceExhausted, "QUOTA");
    assert_eq!(
        client(&west, b"alice").claim_key_package(claim.clone()).await.unwrap().into_inner().one_time_left,
        2
    );
    clock.advance_ms(1000);
    mallorys.claim_key_package(claim).await.unwrap();
}
