//! A DeMLS group over real gateways in front of a real cluster of three nodes, on loopback: ordered, cut in two, and healed.

#![allow(clippy::unwrap_used)] // A panic is the report.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use mls_client::{
    Client, ClientId, Committed, DEFAULT_CIPHERSUITE, GroupId, GroupKind, GrpcTransport, Identity, NewGroup,
    Options, Randomness, Status, Store,
};
use mls_gateway::server::{DemlsParts, Gateway, Parts};
use ordering_service::dev::DevCluster;
use service_kit::{cut::CutNetwork, net::SharedNetwork};
use tokio::time::{sleep, timeout};

/// Far beyond what a busy machine needs; a test that waits this long has failed.
const DEADLINE: Duration = Duration::from_secs(180);

fn id(name: &str) -> ClientId {
    ClientId::new(name.to_owned()).unwrap()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(DEADLINE, wait).await.is_ok(), "never happened: {what}");
}

fn client(name: &str, gateway: &Gateway) -> Client {
    let mut store = Store::in_memory().unwrap();
    Identity::create(&mut store, id(name), DEFAULT_CIPHERSUITE).unwrap();
    let transport = GrpcTransport::new(&format!("http://{}", gateway.address()), &id(name)).unwrap();
    Client::new(store, Arc::new(transport), Options::default(), Randomness::from_os()).unwrap()
}

fn texts(client: &Client, group: &GroupId) -> BTreeSet<String> {
    let messages = client.messages(group, 0, 1000).unwrap();
    messages.into_iter().map(|message| String::from_utf8(message.body).unwrap()).collect()
}

/// All are members, in one state that is final, and keep nothing else.
async fn settled(clients: &[&Client], group: &GroupId, members: usize) {
    until("all are settled in one state", || {
        let views: Vec<_> = clients.iter().filter_map(|client| client.group(group).ok()).collect();
        views.len() == clients.len()
            && views.iter().all(|view| {
                view.status == Status::Active
                    && view.epoch_authenticator == views[0].epoch_authenticator
                    && view.members.len() == members
                    && !view.provisional
                    && !view.repairing
                    && view.retained_states == 1
            })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_cut_in_two_goes_on_in_both_parts_and_heals() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = DevCluster::start(&folder.path().join("cluster"), 3, 2).await.unwrap();
    let (mut gateways, mut wires) = (Vec::new(), Vec::new());
    for n in 0..2 {
        let wire = CutNetwork::new();
        let network: SharedNetwork = wire.shared();
        let incoming = network.listen("127.0.0.1:0".into()).await.unwrap();
        let mut parts = Parts::new(cluster.api_addresses(), incoming, network, Randomness::from_os());
        parts.members_only = true;
        parts.demls = Some(DemlsParts::new(folder.path().join(format!("gateway-{n}"))));
        let gateway = Gateway::start(parts).unwrap();
        gateway.ready().await;
        gateways.push(gateway);
        wires.push(wire);
    }
    let clients: Vec<_> =
        [("ann", 0), ("bob", 1), ("cy", 1)].map(|(name, n)| client(name, &gateways[n])).into();
    let [ann, bob, cy] = &clients[..] else { unreachable!() };
    let running: Vec<_> = clients.iter().map(Client::start).collect();
    for client in &clients {
        client.publish_key_packages().await.unwrap();
    }
    let new = NewGroup { kind: GroupKind::Demls, ..NewGroup::default() };
    let group = ann.create_group(new).await.unwrap();
    ann.invite(&group, &[id("bob"), id("cy")]).await.unwrap();
    settled(&[ann, bob, cy], &group, 3).await;
    bob.send(&group, "hello").await.unwrap();
    assert!(matches!(cy.update(&group).await.unwrap(), Committed::Accepted { .. }));
    settled(&[ann, bob, cy], &group, 3).await;

    wires[1].cut(cluster.api_addresses());
    let provisional = bob.update(&group).await.unwrap();
    assert!(matches!(provisional, Committed::Provisional { .. }), "{provisional:?}");
    bob.send(&group, "without a quorum").await.unwrap();
    until("cy reads the branch", || texts(cy, &group).contains("without a quorum")).await;
    assert!(cy.group(&group).unwrap().provisional);
    assert!(matches!(ann.update(&group).await.unwrap(), Committed::Accepted { .. }));
    ann.send(&group, "with a quorum").await.unwrap();

    wires[1].cut([]);
    for client in &clients {
        until("everybody has read everything", || texts(client, &group).len() == 3).await;
    }
    settled(&[ann, bob, cy], &group, 3).await;
    for running in running {
        running.stop().await;
    }
    drop(clients);
    for gateway in gateways {
        gateway.stop().await;
    }
    cluster.stop().await;
}
