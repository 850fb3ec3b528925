//! Clients flood one group far beyond what it is given. Another group at the same gateway, in the same shard, goes on as before.

#![allow(clippy::unwrap_used)] // A panic in a test is its report.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use concordat_proto::{
    gateway::v1::{
        CreateGroupRequest, SubmitRequest, SubmitStreamRequest, gateway_client::GatewayClient,
        submit_response::Outcome, submit_stream_response::Result as Answer,
    },
    log::v1::GroupKind,
};
use service_kit::{
    channel::Channel,
    status::{StatusFacts, decode, reason},
};
use testbed::{
    Cluster, ClusterOptions,
    cluster::Dialer,
    mls_bytes::{ContentType, group_info, private_message},
    raw::name_client,
    wait::until,
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request};

/// A second, at the gateway: each client's entries, and each group's.
const CLIENT_ENTRIES: u64 = 50;
const GROUP_ENTRIES: u64 = 100;
const FLOODERS: u64 = 4;
/// Each flooder sends so many in a row, so often: ten times what it may.
const FLOOD_BATCH: usize = 25;
const FLOOD_EVERY: Duration = Duration::from_millis(50);
/// How often somebody says something in the other group.
const TALK_EVERY: Duration = Duration::from_millis(25);
/// Turns with and without the flood, one after the other: whatever else this machine does concerns both.
const TURNS: usize = 6;
const TURN_ENTRIES: usize = 60;
/// By this much the median may be longer while there is a flood, which after all shares the processors.
const SLOWER_AT_MOST: f64 = 3.0;
const PATIENCE: Duration = Duration::from_secs(60);

const FLOODED: &[u8] = b"flooded";
const QUIET: &[u8] = b"quiet";

#[derive(Default)]
struct Flood {
    goes_on: AtomicBool,
    sent: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
}

fn named<T>(client: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    name_client(request.metadata_mut(), client.as_bytes());
    request
}

async fn create(channel: &Channel, client: &str, group: &[u8]) {
    let create =
        CreateGroupRequest { group_info: group_info(group, 0), kind: GroupKind::Mls.into(), policy: None };
    GatewayClient::new(channel.clone()).create_group(named(client, create)).await.unwrap();
}

fn said(group: &[u8], by: u64, count: u64) -> SubmitRequest {
    let text = [by.to_be_bytes(), count.to_be_bytes()].concat().repeat(16);
    SubmitRequest {
        message: private_message(group, 0, ContentType::Application, &text),
        ..SubmitRequest::default()
    }
}

/// Sends without waiting for answers, whenever the flood goes on.
async fn flood(channel: Channel, number: u64, flood: Arc<Flood>) {
    let (requests, outgoing) = mpsc::channel(FLOOD_BATCH);
    let stream = named(&format!("flooder-{number}"), ReceiverStream::new(outgoing));
    let counted = Arc::clone(&flood);
    let send = async move {
        let mut ticks = interval(FLOOD_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut id = 0;
        loop {
            ticks.tick().await;
            for _ in 0..FLOOD_BATCH {
                if !flood.goes_on.load(Ordering::Relaxed) {
                    break;
                }
                id += 1;
                let request = SubmitStreamRequest { id, request: Some(said(FLOODED, number, id)) };
                if requests.send(request).await.is_err() {
                    return;
                }
                flood.sent.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let read = async move {
        let mut answers = GatewayClient::new(channel).submit_stream(stream).await.unwrap().into_inner();
        while let Some(answer) = answers.message().await.unwrap() {
            match answer.result.unwrap() {
                Answer::Response(_) => counted.accepted.fetch_add(1, Ordering::Relaxed),
                Answer::Error(error) => {
                    let status = decode(&error);
                    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                    assert_eq!(reason(&status).as_deref(), Some("QUOTA"));
                    assert!(
                        StatusFacts::of(&status).retry_after.is_some(),
                        "it does not say when to come back"
                    );
                    counted.refused.fetch_add(1, Ordering::Relaxed)
                }
            };
        }
    };
    tokio::select! {
        () = send => {}
        () = read => {}
    }
}

/// How long each of a number of entries took, from sending it to its answer.
async fn talk(channel: &Channel, count: &mut u64) -> Vec<Duration> {
    let mut client = GatewayClient::new(channel.clone());
    let mut ticks = interval(TALK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut took = Vec::new();
    for _ in 0..TURN_ENTRIES {
        ticks.tick().await;
        *count += 1;
        let request = named("talker", said(QUIET, 0, *count));
        let begun = Instant::now();
        let answer = client.submit(request).await.unwrap().into_inner().outcome;
        took.push(begun.elapsed());
        assert!(matches!(answer, Some(Outcome::Accepted(_))), "{answer:?}");
    }
    took
}

fn median(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took[took.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_on_one_group_is_refused_and_does_not_slow_another() {
    let quotas = [("--quota-client-entries", CLIENT_ENTRIES), ("--quota-group-entries", GROUP_ENTRIES)];
    let gateway_args =
        quotas.iter().flat_map(|(flag, limit)| [(*flag).to_owned(), limit.to_string()]).collect();
    // One data shard: both groups share its leader and its log.
    let options = ClusterOptions { gateways: 1, data_shards: 1, gateway_args, ..ClusterOptions::default() };
    let cluster = Cluster::start(options).await.unwrap();
    let address = cluster.gateway_addresses().remove(0);
    let channel = || Dialer::plaintext().channel(&address);
    let quiet = channel();
    create(&quiet, "talker", QUIET).await;
    create(&quiet, "flooder-1", FLOODED).await;
    let flooding = Arc::new(Flood::default());
    let mut flooders = JoinSet::new();
    for number in 1..=FLOODERS {
        flooders.spawn(flood(channel(), number, Arc::clone(&flooding)));
    }
    let mut count = 0;
    // What may be used at once is used up first, so that every turn is the same.
    flooding.goes_on.store(true, Ordering::Relaxed);
    let refused = || (flooding.refused.load(Ordering::Relaxed) > 10 * GROUP_ENTRIES).then_some(());
    until("the flood is beyond what it may at once", PATIENCE, refused).await.unwrap();

    let (mut during, mut without) = (Vec::new(), Vec::new());
    let mut refused_in_turns = 0;
    for _ in 0..TURNS {
        flooding.goes_on.store(true, Ordering::Relaxed);
        let before = flooding.refused.load(Ordering::Relaxed);
        during.extend(talk(&quiet, &mut count).await);
        refused_in_turns += u64::from(flooding.refused.load(Ordering::Relaxed) > before);
        flooding.goes_on.store(false, Ordering::Relaxed);
        let answered = || {
            let answered =
                flooding.accepted.load(Ordering::Relaxed) + flooding.refused.load(Ordering::Relaxed);
            (answered >= flooding.sent.load(Ordering::Relaxed)).then_some(())
        };
        until("the flood is answered", PATIENCE, answered).await.unwrap();
        without.extend(talk(&quiet, &mut count).await);
    }
    let (slow, fast) = (median(during), median(without));
    let ratio = slow.as_secs_f64() / fast.as_secs_f64();
    let (sent, accepted) = (flooding.sent.load(Ordering::Relaxed), flooding.accepted.load(Ordering::Relaxed));
    eprintln!(
        "flood: {sent} sent, {accepted} accepted; the other group's median is {slow:?} with it and {fast:?} without: {ratio:.2} times"
    );
    assert_eq!(refused_in_turns, TURNS as u64, "there was a turn without a flood");
    assert!(accepted > 0 && accepted * 2 < sent, "{accepted} of {sent} were accepted: that is no flood");
    assert!(ratio < SLOWER_AT_MOST, "a flood on another group made {fast:?} to {slow:?}");

    // The flooded group itself has nothing left for somebody who has done nothing.
    flooding.goes_on.store(true, Ordering::Relaxed);
    let mut bystander = GatewayClient::new(quiet.clone());
    let begun = Instant::now();
    let mut tries = 0;
    loop {
        tries += 1;
        let request = named("bystander", said(FLOODED, 99, tries));
        match bystander.submit(request).await {
            Err(status) => {
                assert_eq!(reason(&status).as_deref(), Some("QUOTA"), "{status}");
                break;
            }
            Ok(_) => assert!(begun.elapsed() < PATIENCE, "the group has room for everybody"),
        }
    }
    flooders.shutdown().await;
}
