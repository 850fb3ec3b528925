//! A gateway in memory, for real clients with real MLS: the shipping rules over one log per group, and a network that loses things.

// Each test uses its part; a panic is the report.
#![allow(dead_code, unused_imports, clippy::unwrap_used)]

pub(crate) mod gateway;
pub(crate) mod net;
pub(crate) mod transport;

use std::{path::Path, sync::Arc, time::Duration};

use mls_client::{Client, ClientId, DEFAULT_CIPHERSUITE, Identity, Options, Randomness, Store};

pub(crate) use self::{gateway::FakeGateway, transport::FakeTransport};

/// A client id.
pub(crate) fn id(name: &str) -> ClientId {
    ClientId::new(name.to_owned()).unwrap()
}

/// The seed of a randomized test: from the environment, or the given one.
pub(crate) fn seed(default: u64) -> u64 {
    std::env::var("CONCORDAT_SEED")
        .ok()
        .map_or(default, |seed| seed.parse().expect("CONCORDAT_SEED is a number"))
}

/// Options without pauses: tasks only yield, so that a seed gives one interleaving.
pub(crate) fn impatient() -> Options {
    Options {
        patience: Duration::from_secs(3600),
        first_pause: Duration::ZERO,
        longest_pause: Duration::ZERO,
        ..Options::default()
    }
}

/// Opens the client `name` with its state in `folder`, making an identity the first time.
pub(crate) fn open(folder: &Path, name: &str, transport: Arc<FakeTransport>, rng: &Randomness) -> Client {
    let mut store = Store::open(&folder.join(name)).unwrap();
    if Identity::load(&store).unwrap().is_none() {
        Identity::create(&mut store, id(name), DEFAULT_CIPHERSUITE).unwrap();
    }
    Client::new(store, transport, impatient(), rng.fork()).unwrap()
}

/// A client whose state lives in memory.
pub(crate) fn client(gateway: &FakeGateway, name: &str) -> Client {
    let mut store = Store::in_memory().unwrap();
    Identity::create(&mut store, id(name), DEFAULT_CIPHERSUITE).unwrap();
    let transport = Arc::new(FakeTransport::new(gateway.clone(), id(name), Randomness::from_seed(1)));
    Client::new(store, transport, impatient(), Randomness::from_os()).unwrap()
}

/// Clients that have published KeyPackages, the first in a group with all others.
pub(crate) async fn group_of(gateway: &FakeGateway, names: &[&str]) -> (Vec<Client>, mls_client::GroupId) {
    let clients: Vec<_> = names.iter().map(|name| client(gateway, name)).collect();
    for client in &clients {
        client.publish_key_packages().await.unwrap();
    }
    let group = clients[0].create_group(Default::default()).await.unwrap();
    let others: Vec<_> = names[1..].iter().map(|name| id(name)).collect();
    clients[0].invite(&group, &others).await.unwrap();
    for client in &clients[1..] {
        assert_eq!(client.join_waiting(QUIET).await.unwrap(), std::slice::from_ref(&group));
    }
    (clients, group)
}

/// How long to wait for something that waits already, or never comes.
pub(crate) const QUIET: Duration = Duration::from_millis(1);

/// All clients have applied the whole log and are in one state.
pub(crate) async fn assert_agreement(
    clients: &[&Client],
    group: &mls_client::GroupId,
) -> mls_client::GroupView {
    let first = clients[0].sync(group).await.unwrap();
    for client in clients {
        let view = client.sync(group).await.unwrap();
        assert_eq!(view.epoch, first.epoch);
        assert_eq!(view.state_id, first.state_id);
        assert_eq!(view.epoch_authenticator, first.epoch_authenticator);
        assert_eq!(view.members, first.members);
        assert!(!view.epoch_authenticator.is_empty());
    }
    first
}

/// What a client has received and sent, in order.
pub(crate) fn texts(client: &Client, group: &mls_client::GroupId) -> Vec<String> {
    let messages = client.messages(group, 0, usize::MAX).unwrap();
    messages.into_iter().map(|m| String::from_utf8(m.body).unwrap()).collect()
}
