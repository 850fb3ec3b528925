//! A gateway follows groups on the node that is nearest to it, wherever their leader is: another one while that is away, and that one again.

#![allow(clippy::unwrap_used)] // A panic in a test is its report.

use std::{sync::Arc, time::Duration};

use links::{Links, Quality};
use mls_client::{
    Client, ClientId, DEFAULT_CIPHERSUITE, GrpcTransport, Identity, NewGroup, Options, Randomness, Store,
};
use testbed::{Cluster, ClusterOptions, Placement, seed, wait::eventually};

const PATIENCE: Duration = Duration::from_secs(60);
const SITES: [&str; 3] = ["a", "b", "c"];

/// Groups and inboxes that are followed on a node.
async fn followed_on(cluster: &Cluster, node: u64) -> Option<f64> {
    let metrics = cluster.node(node).service().metrics().await.ok()?;
    Some(metrics.series("concordat_ordering_subscriptions").map(|(_, count)| count).sum())
}

/// Waits until everything is followed on one of these nodes.
async fn all_followed_on(cluster: &Cluster, nodes: &[u64]) {
    eventually(format!("groups to be followed on {nodes:?} alone"), PATIENCE, async || {
        let mut found = Vec::new();
        for node in (1..=3).filter(|id| cluster.node(*id).service().is_running()) {
            if followed_on(cluster, node).await? > 0.0 {
                found.push(node);
            }
        }
        (found.len() == 1 && nodes.contains(&found[0])).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_follows_on_the_nearest_node_and_comes_back_to_it() {
    let links = Arc::new(Links::start(SITES, seed::seed("following")).unwrap());
    for (a, b) in [("a", "b"), ("b", "c"), ("a", "c")] {
        links.set_both(a, b, Quality::delay(Duration::from_millis(20))).unwrap();
    }
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    // One gateway at each site, so that the order in which they know the nodes does not happen to be the right one for all.
    let placement = Placement { links, nodes: names(&SITES), gateways: names(&SITES) };
    let options = ClusterOptions {
        gateways: 3,
        placement: Some(placement),
        node_args: names(&["--timing", "wan"]),
        gateway_args: names(&["--profile", "wan"]),
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start(options).await.unwrap();
    for (at, gateway) in (1..).zip(cluster.gateways()) {
        let id = ClientId::new(format!("at-{}", gateway.site())).unwrap();
        let mut store = Store::in_memory().unwrap();
        Identity::create(&mut store, id.clone(), DEFAULT_CIPHERSUITE).unwrap();
        let transport = GrpcTransport::new(&format!("http://{}", gateway.address()), &id).unwrap();
        let client =
            Client::new(store, Arc::new(transport), Options::default(), Randomness::from_os()).unwrap();
        let running = client.start();
        client.create_group(NewGroup::default()).await.unwrap();
        all_followed_on(&cluster, &[at]).await;

        if at == 3 {
            let nearest = cluster.node(at);
            nearest.service().kill().await.unwrap();
            all_followed_on(&cluster, &[1, 2]).await;
            nearest.service().start().unwrap();
            nearest.service().wait_ready().await.unwrap();
            all_followed_on(&cluster, &[at]).await;
        }
        drop((running, client));
        // What nobody is interested in any more is followed for a while still.
        gateway.service().kill().await.unwrap();
    }
}
