//! The process around the API: its end, its health, its admin endpoints.

use mls_gateway::server::{Gateway, Parts, StartError};
use service_kit::{net::tcp_network, rng::Randomness};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::support::{
    Events, assert_refused, channel, client, create_request, fake::FakeCluster, member::Member, soon,
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
    events.caught_up().await;
    let stopping = tokio::spawn(gateway.stop());
    let error = loop {
        if let Err(error) = events.next().await {
            break error;
        }
    };
    let facts = assert_refused(&error, Code::Unavailable, "NO_QUORUM");
    assert!(facts.retry_after.is_some());
    drop((events, calls));
    soon("the end", stopping).await.unwrap();
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
