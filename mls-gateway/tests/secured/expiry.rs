//! A client's certificate ends while it calls.

use std::time::Duration;

use concordat_certs::Lifetime;
use concordat_proto::gateway::v1::{
    GetKeyPackageStatusRequest, WatchWelcomesRequest, gateway_client::GatewayClient,
};
use futures::StreamExt;
use service_kit::{
    channel::Channel,
    clock::SystemClock,
    net::tcp_network,
    status::reason,
    tls::{Credentials, Role, TlsNetwork},
};
use time::OffsetDateTime;
use tonic::{Code, Status, transport::Endpoint};

use crate::{table::Server, world::World};

/// Long enough for a slow machine to renew in time.
const LIFETIME: Duration = Duration::from_secs(8);
const AFTERWARDS: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(5);

/// Gives a client a certificate, in place of the one that it has.
fn certify(world: &World, name: &str, lifetime: Lifetime) -> service_kit::tls::Files {
    let issued = world.authority.issue(&Role::Client(name.into()), &world.hosts, lifetime).unwrap();
    world.hand_out(name, &issued)
}

/// A client that looks every second whether it has a new certificate.
fn client(world: &World, name: &str, lifetime: Lifetime) -> GatewayClient<Channel> {
    let files = certify(world, name, lifetime);
    let credentials =
        Credentials::load("caller", files, SystemClock::shared(), Duration::from_secs(1)).unwrap();
    let network = TlsNetwork::public_client(tcp_network(), credentials);
    let endpoint = Endpoint::from_shared(format!("http://{}", world.places(Server::Gateway)[0])).unwrap();
    GatewayClient::new(Channel::lazy(&endpoint, network))
}

async fn call(client: &mut GatewayClient<Channel>) -> Result<(), Status> {
    client.get_key_package_status(GetKeyPackageStatusRequest {}).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_renews_in_time_goes_on_and_who_does_not_is_refused_from_the_moment_on() {
    let world = World::start_replacing(Some(1)).await;
    let now = OffsetDateTime::now_utc;
    let ends = now().replace_nanosecond(0).unwrap() + LIFETIME;
    let short = Lifetime { not_after: ends, ..Lifetime::days(1) };
    let mut forgetful = client(&world, "forgetful", short);
    let mut careful = client(&world, "careful", short);
    // Both have calls of the old certificate under way when the new one comes.
    call(&mut forgetful).await.unwrap();
    call(&mut careful).await.unwrap();
    certify(&world, "careful", Lifetime::days(1));

    let caring = tokio::spawn(async move {
        let mut calls = 0_u32;
        while now() < ends + AFTERWARDS {
            call(&mut careful).await.unwrap_or_else(|lost| panic!("after {calls} calls: {lost}"));
            calls += 1;
            tokio::time::sleep(PAUSE).await;
        }
    });
    let mut watched = forgetful.watch_welcomes(WatchWelcomesRequest::default()).await.unwrap().into_inner();
    let watching = tokio::spawn(async move {
        let end = loop {
            match watched.next().await {
                Some(Ok(_)) => {}
                Some(Err(status)) => break status,
                None => panic!("the stream ended without a word"),
            }
        };
        (end, now())
    });
    let (mut before, mut refused) = (0, 0);
    while now() < ends + AFTERWARDS {
        let begun = now();
        match call(&mut forgetful).await {
            Ok(()) => {
                assert!(begun < ends, "a call that began {:?} after the end was let in", begun - ends);
                before += 1;
            }
            Err(status) => {
                assert!(now() >= ends, "refused {:?} before the end: {status}", ends - now());
                // Over its connection it is told why; then that is replaced, and another one ends in the handshake.
                let is_told = status.code() == Code::Unauthenticated
                    && reason(&status).as_deref() == Some("UNAUTHENTICATED");
                let is_cut_off = std::error::Error::source(&status).is_some();
                assert!(is_told || is_cut_off, "{status}");
                refused += 1;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    assert!(before > 0 && refused > 0, "{before} calls before the end, {refused} refused after it");
    let (end, at) = watching.await.unwrap();
    assert_eq!((end.code(), reason(&end).as_deref()), (Code::Unauthenticated, Some("UNAUTHENTICATED")));
    assert!(at >= ends, "the stream ended {:?} early", ends - at);
    caring.await.unwrap();
    world.stop().await;
}
