//! Clients at work in the background: they join, follow, reconnect, and do what they owe, by themselves.

#![allow(clippy::unwrap_used)] // A panic is the report.

mod support;

use std::{sync::Arc, sync::atomic::Ordering::SeqCst, time::Duration};

use futures::future::join_all;
use mls_client::{
    Client, DEFAULT_CIPHERSUITE, EventKind, GroupId, Identity, LeftReason, NewGroup, Options, Randomness,
    Status, Store,
};
use support::{FakeGateway, FakeTransport, id, seed, texts};
use tokio::time::{sleep, timeout};

/// Far beyond what a busy machine needs; a test that waits this long has failed.
const DEADLINE: Duration = Duration::from_secs(120);

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(timeout(DEADLINE, wait).await.is_ok(), "never happened: {what}");
}

fn start(gateway: &FakeGateway, name: &str, rng: &Randomness) -> (Client, Arc<FakeTransport>) {
    let mut store = Store::in_memory().unwrap();
    Identity::create(&mut store, id(name), DEFAULT_CIPHERSUITE).unwrap();
    let transport = Arc::new(FakeTransport::new(gateway.clone(), id(name), rng.fork()));
    let pauses = (Duration::from_millis(1), Duration::from_millis(8));
    let options = Options { first_pause: pauses.0, longest_pause: pauses.1, ..Options::default() };
    (Client::new(store, transport.clone(), options, rng.fork()).unwrap(), transport)
}

fn in_group(client: &Client, group: &GroupId) -> bool {
    client.group(group).is_ok_and(|view| view.status == Status::Active)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_commits_and_talks_at_once_over_a_bad_network() {
    let seed = seed(3);
    println!("seed {seed}");
    let (rng, gateway) = (Randomness::from_seed(seed), FakeGateway::default());
    let names = ["ann", "bob", "cy", "dan", "eve", "fay"];
    let (clients, transports): (Vec<_>, Vec<_>) =
        names.iter().map(|name| start(&gateway, name, &rng)).unzip();
    let running: Vec<_> = clients.iter().map(Client::start).collect();
    join_all(clients.iter().map(Client::publish_key_packages)).await;
    transports.iter().for_each(|transport| transport.faults.store(15, SeqCst));

    let group = clients[0].create_group(NewGroup::default()).await.unwrap();
    // Ann invites some, and those who have come invite the others, while everybody talks and renews keys.
    clients[0].invite(&group, &[id("bob"), id("cy")]).await.unwrap();
    until("bob and cy are in", || clients[..3].iter().all(|client| in_group(client, &group))).await;
    let work = clients[..3].iter().zip(&names[3..]).map(|(client, friend)| {
        let group = group.clone();
        async move {
            client.invite(&group, &[id(friend)]).await.unwrap();
            for n in 0..3 {
                client.update(&group).await.unwrap();
                client.send(&group, format!("{n} from {:?}", client.id().to_bytes())).await.unwrap();
            }
        }
    });
    join_all(work).await;
    until("all are in", || clients.iter().all(|client| in_group(client, &group))).await;
    clients[5].send(&group, "the end").await.unwrap();

    let head = gateway.log(&group).last().unwrap().seq;
    let views = || clients.iter().map(|client| client.group(&group).unwrap()).collect::<Vec<_>>();
    until("all have the whole log", || views().iter().all(|view| view.seq >= head)).await;
    let views = views();
    for view in &views {
        assert_eq!(view.epoch_authenticator, views[0].epoch_authenticator);
        assert_eq!(view.members, names.map(|name| name.as_bytes().to_vec()));
    }
    for client in &clients[..3] {
        assert_eq!(texts(client, &group).len(), 10, "{:?}", client.id().to_bytes());
        assert_eq!(client.counters().messages_unreadable, 0);
        assert_eq!(client.counters().messages_sent, 3);
    }
    assert!(clients.iter().any(|client| client.counters().calls_retried > 0));
    assert!(clients.iter().all(|client| client.counters().ordering_latency.len() < 64));
    for running in running {
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_works_any_more_when_a_client_has_stopped() {
    let (rng, gateway) = (Randomness::from_seed(2), FakeGateway::default());
    for _ in 0..100 {
        let (ann, transport) = start(&gateway, "ann", &rng);
        let running = ann.start();
        let group = ann.create_group(NewGroup::default()).await.unwrap();
        ann.send(&group, "on the way").await.unwrap();
        running.stop().await;
        drop(ann);
        // Whoever works has a transport.
        assert_eq!(Arc::strong_count(&transport), 1);
    }
}

#[tokio::test]
async fn a_running_member_commits_that_another_wants_to_leave() {
    let (rng, gateway) = (Randomness::from_seed(1), FakeGateway::default());
    let (ann, _) = start(&gateway, "ann", &rng);
    let (bob, _) = start(&gateway, "bob", &rng);
    let _running = [ann.start(), bob.start()];
    bob.publish_key_packages().await.unwrap();
    let mut events = bob.events();
    let group = ann.create_group(NewGroup::default()).await.unwrap();
    ann.invite(&group, &[id("bob")]).await.unwrap();
    until("bob is in", || in_group(&bob, &group)).await;
    bob.leave(&group).await.unwrap();
    let left = async {
        loop {
            if let EventKind::Left { reason } = events.recv().await.unwrap().kind {
                return reason;
            }
        }
    };
    assert_eq!(timeout(DEADLINE, left).await.unwrap(), LeftReason::Left);
    until("ann is alone", || ann.group(&group).unwrap().members == [b"ann".to_vec()]).await;
}

#[tokio::test]
async fn what_was_begun_without_a_gateway_is_finished_when_it_is_back() {
    let (rng, gateway) = (Randomness::from_seed(2), FakeGateway::default());
    let mut store = Store::in_memory().unwrap();
    Identity::create(&mut store, id("ann"), DEFAULT_CIPHERSUITE).unwrap();
    let transport = Arc::new(FakeTransport::new(gateway.clone(), id("ann"), rng.fork()));
    let options = Options {
        patience: Duration::ZERO,
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(8),
        ..Options::default()
    };
    let ann = Client::new(store, transport.clone(), options, rng).unwrap();
    let group = ann.create_group(NewGroup::default()).await.unwrap();
    transport.faults.store(100, SeqCst);
    assert!(ann.update(&group).await.unwrap_err().is_temporary());
    assert!(ann.send(&group, "later").await.unwrap_err().is_temporary());
    assert!(ann.group(&group).unwrap().commit_pending);
    transport.faults.store(0, SeqCst);
    let _running = ann.start();
    until("all is done", || {
        let view = ann.group(&group).unwrap();
        !view.commit_pending && view.outbox == 0 && view.epoch == 1
    })
    .await;
    assert_eq!(texts(&ann, &group), ["later"]);
}
