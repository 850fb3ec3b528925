//! The process around the API: its end, its health, its admin endpoints.

use bytes::Bytes;
use concordat_proto::gateway::v1::subscribe_response::Event;
use group_log::ChainHash;
use mls_gateway::server::{Gateway, Parts, StartError};
use service_kit::{net::tcp_network, rng::Randomness};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::{Code, Status};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::support::{
    Events, accepted, assert_refused, channel, client, create_request, fake::FakeCluster, member::Member,
    soon, submit,
};

const GROUP: &[u8] = b"group";

async fn gateway_with_admin(ordering: Vec<String>) -> Gateway {
    let network = tcp_network();
    let incoming = network.listen("127.0.0.1:0".into()).await.unwrap();
    let admin = network.listen("127.0.0.1:0".into()).await.unwrap();
    let mut parts = Parts::new(ordering, incoming, network, Randomness::from_os());
    parts.admin = Some(admin);
    Gateway::start(parts).unwrap()
}

async fn get(gateway: &Gateway, path: &str) -> String {
    let address = gateway.admin_address().unwrap().to_string();
    let mut io = tcp_network().dial(address).await.unwrap();
    io.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    io.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_gateway_that_stops_ends_its_streams_with_a_status_that_says_to_go_on_elsewhere() {
    let cluster = FakeCluster::start(1).await;
    let gateway = gateway_with_admin(cluster.addresses()).await;
    soon("the gateway", gateway.ready()).await;
    let mut calls = client(&gateway, b"alice");
    calls.create_group(create_request(Member::new("alice").create(GROUP))).await.unwrap();
    let mut events = Events::open(&mut calls, GROUP, None).await;
    let (read, _) = events.caught_up().await;
    let stopping = tokio::spawn(gateway.stop());
    let error = loop {
        if let Err(error) = events.next().await {
            break error;
        }
    };
    let facts = assert_refused(&error, Code::Unavailable, "NO_QUORUM");
    assert!(facts.retry_after.is_some());
    let last = read.last().unwrap();
    assert_eq!(facts.metadata["cursor_seq"], last.seq.to_string());
    let hash = ChainHash::from_slice(&last.chain_hash).unwrap();
    assert_eq!(facts.metadata["cursor_chain_hash"], hash.to_string());
    drop((events, calls));
    soon("the end", stopping).await.unwrap();
}

/// What the status that ended a stream says about where to go on.
fn place(error: &Status) -> (u64, Bytes) {
    let facts = assert_refused(error, Code::Unavailable, "NO_QUORUM");
    let hash = &facts.metadata["cursor_chain_hash"];
    let bytes = (0..hash.len()).step_by(2).map(|at| u8::from_str_radix(&hash[at..at + 2], 16).unwrap());
    (facts.metadata["cursor_seq"].parse().unwrap(), bytes.collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_goes_on_where_a_stopping_gateway_ended_without_a_gap_or_a_repetition() {
    let cluster = FakeCluster::start(1).await;
    let writer = gateway_with_admin(cluster.addresses()).await;
    soon("the gateway", writer.ready()).await;
    let mut calls = client(&writer, b"alice");
    let mut alice = Member::new("alice");
    calls.create_group(create_request(alice.create(GROUP))).await.unwrap();
    let mut writes = calls.clone();
    let writing = tokio::spawn(async move {
        for n in 0..100 {
            accepted(submit(&mut writes, alice.say(&n.to_string())).await);
        }
    });
    let (mut from, mut read) = (None, Vec::new());
    while read.len() < 101 {
        let gateway = gateway_with_admin(cluster.addresses()).await;
        soon("the gateway", gateway.ready()).await;
        let mut events = Events::open(&mut client(&gateway, b"alice"), GROUP, from.take()).await;
        let first = (101 - read.len()).min(10);
        read.extend(events.entries(first).await);
        let stopping = tokio::spawn(gateway.stop());
        let error = loop {
            match events.next().await {
                Ok(Event::Entry(entry)) => read.push(entry),
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        from = Some(place(&error));
        drop(events);
        soon("the end", stopping).await.unwrap();
    }
    writing.await.unwrap();
    assert!(read.iter().map(|entry| entry.seq).eq(1..=101));
}

#[tokio::test]
async fn health_readiness_and_metrics_tell_how_it_is() {
    let cluster = FakeCluster::start(1).await;
    cluster.set(|state| state.no_quorum = true);
    let gateway = gateway_with_admin(cluster.addresses()).await;
    assert!(get(&gateway, "/livez").await.starts_with("HTTP/1.1 200"));
    assert!(get(&gateway, "/readyz").await.starts_with("HTTP/1.1 503"));
    cluster.set(|state| state.no_quorum = false);
    soon("the gateway", gateway.ready()).await;
    assert!(get(&gateway, "/readyz").await.starts_with("HTTP/1.1 200"));
    let mut calls = client(&gateway, b"alice");
    calls.create_group(create_request(Member::new("alice").create(GROUP))).await.unwrap();
    let metrics = get(&gateway, "/metrics").await;
    assert!(metrics.contains("concordat_gateway_ordering_seconds_count"), "{metrics}");
    assert!(metrics.contains("concordat_gateway_shard_mode{shard=\"1\"} 1"), "{metrics}");

    let mut health = HealthClient::new(channel(&gateway));
    let service = "concordat.gateway.v1.Gateway".to_owned();
    let answer = health.check(HealthCheckRequest { service }).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);
}

#[tokio::test]
async fn a_gateway_without_ordering_nodes_does_not_start() {
    let network = tcp_network();
    let incoming = network.listen("127.0.0.1:0".into()).await.unwrap();
    let error = Gateway::start(Parts::new(Vec::new(), incoming, network, Randomness::from_os())).err();
    assert!(matches!(error, Some(StartError::NoOrderingNode)));
}

#[tokio::test]
async fn a_gateway_tells_what_can_be_called() {
    let cluster = FakeCluster::start(1).await;
    let gateway = gateway_with_admin(cluster.addresses()).await;
    let mut reflection = ServerReflectionClient::new(channel(&gateway));
    let list = MessageRequest::ListServices(String::new());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let answers = reflection.server_reflection_info(tokio_stream::iter([request])).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("no list") };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["concordat.gateway.v1.Gateway", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{names:?}");
    }
}
