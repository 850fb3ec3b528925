//! A server replaces its connections all the time, and calls over a channel notice nothing.

#![allow(clippy::unwrap_used)] // A panic in a test is its report.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, future::BoxFuture};
use service_kit::{
    channel::Channel,
    net::{Connector, Incoming, Io, Network, SharedNetwork, tcp_network},
};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::task::AbortOnDropHandle;
use tonic::{
    Status,
    body::Body,
    client::GrpcService,
    transport::{Endpoint, Server},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

/// Connections are replaced after this time.
const AGE: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(60);
const CHANNELS: u64 = 4;
const CALLERS_PER_CHANNEL: usize = 4;
/// Connections that each channel uses up on average.
const CONNECTIONS_PER_CHANNEL: u64 = 50;

/// A server, and how often somebody connected to it.
struct World {
    address: String,
    connections: Arc<AtomicU64>,
    _server: AbortOnDropHandle<()>,
}

impl World {
    async fn start() -> Self {
        let incoming = tcp_network().listen("127.0.0.1:0".into()).await.unwrap();
        let address = incoming.local_addr().to_string();
        let (_, health) = tonic_health::server::health_reporter();
        let server = Server::builder().max_connection_age(AGE).add_service(health);
        let served = async move { server.serve_with_incoming(incoming).await.unwrap() };
        let server = AbortOnDropHandle::new(tokio::spawn(served));
        Self { address, connections: Arc::default(), _server: server }
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap()
    }

    fn network(&self) -> SharedNetwork {
        Arc::new(Counted { inner: tcp_network(), dialed: Arc::clone(&self.connections) })
    }
}

struct Counted {
    inner: SharedNetwork,
    dialed: Arc<AtomicU64>,
}

impl Network for Counted {
    fn dial(&self, address: String) -> BoxFuture<'static, std::io::Result<Io>> {
        self.dialed.fetch_add(1, Ordering::Relaxed);
        self.inner.dial(address)
    }

    fn listen(&self, address: String) -> BoxFuture<'static, std::io::Result<Incoming>> {
        self.inner.listen(address)
    }
}

/// Calls over `channel`, one after another, until the server has been connected to `until` times or a call fails.
async fn call_until<C>(channel: C, connections: Arc<AtomicU64>, until: u64) -> Result<u64, Status>
where
    C: GrpcService<Body, ResponseBody = Body> + Send + 'static,
    C::Future: Send,
{
    let mut calls = 0;
    let mut health = HealthClient::new(channel);
    while connections.load(Ordering::Relaxed) < until {
        health.check(HealthCheckRequest::default()).await?;
        calls += 1;
    }
    Ok(calls)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_while_connections_are_replaced_under_load() {
    let world = World::start().await;
    let until = CHANNELS * CONNECTIONS_PER_CHANNEL;
    let mut callers = JoinSet::new();
    for _ in 0..CHANNELS {
        let channel = Channel::lazy(&world.endpoint(), world.network());
        for _ in 0..CALLERS_PER_CHANNEL {
            callers.spawn(call_until(channel.clone(), Arc::clone(&world.connections), until));
        }
    }
    let results = timeout(PATIENCE, callers.join_all()).await.expect("connections are replaced");
    let failed: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    assert!(failed.is_empty(), "{} of {} callers lost a call: {failed:?}", failed.len(), results.len());
    assert!(results.into_iter().map(|calls| calls.unwrap()).sum::<u64>() > until);
}

/// A stream keeps the old connection open, so that the first call afterwards runs into it.
#[tokio::test(flavor = "multi_thread")]
async fn calls_go_on_beside_a_stream_that_keeps_the_old_connection() {
    let world = World::start().await;
    let channel = Channel::lazy(&world.endpoint(), world.network());
    let mut watched =
        HealthClient::new(channel.clone()).watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    watched.next().await.unwrap().unwrap();
    let calls = call_until(channel, Arc::clone(&world.connections), 10);
    timeout(PATIENCE, calls).await.expect("connections are replaced").unwrap();
    assert!(futures::poll!(watched.next()).is_pending(), "the stream goes on over its own connection");
}

/// What the channel is for. If this fails, hyper has learnt to do it.
#[tokio::test(flavor = "multi_thread")]
async fn a_channel_of_tonic_alone_loses_the_call_that_finds_the_connection_replaced() {
    let world = World::start().await;
    let plain = world.endpoint().connect_with_connector_lazy(Connector::new(world.network()));
    let mut watched =
        HealthClient::new(plain.clone()).watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    watched.next().await.unwrap().unwrap();
    let calls = call_until(plain, Arc::clone(&world.connections), 1000);
    let lost = timeout(PATIENCE, calls).await.expect("connections are replaced").unwrap_err();
    assert!(std::error::Error::source(&lost).is_some(), "it was lost on the way: {lost}");
}
