//! What a split does is seen in the metrics: modes, branches, closes, removals that are owed, and who holds `Stable` back.

#![allow(clippy::unwrap_used)] // A panic in a test is its report.

use std::{sync::Arc, time::Duration};

use links::{Cut, Links, Quality};
use mls_client::{
    Client, ClientId, Committed, DEFAULT_CIPHERSUITE, GroupId, GroupKind, GrpcTransport, Identity, NewGroup,
    Options, Randomness, Status, Store,
};
use testbed::{Cluster, ClusterOptions, Metrics, Placement, wait::eventually};

const SITES: [&str; 3] = ["a", "b", "c"];
/// Far beyond what a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(120);

fn client(name: &str, gateway: &str) -> Client {
    let mut store = Store::in_memory().unwrap();
    let id = ClientId::new(name.to_owned()).unwrap();
    Identity::create(&mut store, id.clone(), DEFAULT_CIPHERSUITE).unwrap();
    let transport = GrpcTransport::new(&format!("http://{gateway}"), &id).unwrap();
    Client::new(store, Arc::new(transport), Options::default(), Randomness::from_os()).unwrap()
}

/// The sum of the samples of a metric whose labels contain these words.
fn value(metrics: &Metrics, name: &str, labels: &str) -> f64 {
    metrics.series(name).filter(|(found, _)| found.contains(labels)).map(|(_, value)| value).sum()
}

/// Waits until a gateway tells this of itself.
async fn gateway_tells(cluster: &Cluster, site: usize, what: &str, holds: impl Fn(&Metrics) -> bool) {
    let gateway = &cluster.gateways()[site];
    eventually(what, PATIENCE, async || {
        gateway.service().metrics().await.is_ok_and(|metrics| holds(&metrics)).then_some(())
    })
    .await
    .unwrap();
}

/// Waits until what all nodes say together is so.
async fn nodes_tell(cluster: &Cluster, name: &str, labels: &str, holds: impl Fn(f64) -> bool) {
    eventually(name, PATIENCE, async || {
        let mut sum = 0.0;
        for node in cluster.nodes() {
            sum += value(&node.service().metrics().await.ok()?, name, labels);
        }
        holds(sum).then_some(())
    })
    .await
    .unwrap();
}

/// Insists until the commit is answered as wanted.
async fn until_answered(
    what: &str,
    commit: impl AsyncFn() -> Result<Committed, mls_client::Error>,
    wanted: impl Fn(&Committed) -> bool,
) {
    eventually(what, PATIENCE, async || commit().await.is_ok_and(|answer| wanted(&answer)).then_some(()))
        .await
        .unwrap();
}

fn is_provisional(committed: &Committed) -> bool {
    matches!(committed, Committed::Provisional { .. })
}

fn is_accepted(committed: &Committed) -> bool {
    matches!(committed, Committed::Accepted { .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_split_does_is_seen_in_the_metrics_of_both_services() {
    let links = Arc::new(Links::start(SITES, 7).unwrap());
    for (a, b) in [("a", "b"), ("b", "c"), ("a", "c")] {
        links.set_both(a, b, Quality::delay(Duration::from_millis(1))).unwrap();
    }
    let sites = SITES.map(str::to_owned).to_vec();
    let placement = Some(Placement { links: Arc::clone(&links), nodes: sites.clone(), gateways: sites });
    let options = ClusterOptions { gateways: 3, placement, ..ClusterOptions::default() };
    let cluster = Cluster::start(options).await.unwrap();
    let gateways = cluster.gateway_addresses();
    let names = ["ann", "bob", "cy"];
    let clients: Vec<Client> = names.iter().zip(&gateways).map(|(name, at)| client(name, at)).collect();
    let [ann, bob, cy] = &clients[..] else { unreachable!() };
    let running: Vec<_> = clients.iter().map(Client::start).collect();
    let group = together(ann, &[bob, cy]).await;
    for site in 0..3 {
        gateway_tells(&cluster, site, "the group is ordered", |m| {
            value(m, "concordat_gateway_groups", "\"ordered\"") == 1.0
        })
        .await;
    }

    // Nobody has a quorum: the group goes on, and the branch becomes canonical.
    links.split(&[&["a"], &["b"], &["c"]], Cut::Stall).unwrap();
    until_answered("a branch takes a commit", async || cy.update(&group).await, is_provisional).await;
    gateway_tells(&cluster, 2, "the group is forked, and no shard is ordered", |m| {
        value(m, "concordat_gateway_groups", "\"forked\"") == 1.0
            && value(m, "concordat_gateway_groups", "\"ordered\"") == 0.0
            && m.sum("concordat_gateway_open_branches") == Some(1.0)
            && m.sum("concordat_gateway_retained_states") >= Some(1.0)
            && m.series("concordat_gateway_shard_mode").any(|(_, mode)| mode > 1.0)
    })
    .await;
    links.heal_all();
    until_answered("the branch is in the log", async || cy.update(&group).await, is_accepted).await;
    nodes_tell(&cluster, "concordat_ordering_closes_total", "\"adopted\"", |closes| closes >= 1.0).await;
    gateway_tells(&cluster, 2, "everything is ordered again, and nothing is retained", |m| {
        value(m, "concordat_gateway_groups", "\"ordered\"") == 1.0
            && m.sum("concordat_gateway_forked_seconds_count") >= Some(1.0)
            && m.sum("concordat_gateway_open_branches") == Some(0.0)
            && m.sum("concordat_gateway_retained_states") == Some(0.0)
    })
    .await;
    nodes_tell(&cluster, "concordat_ordering_gateways_holding_stable", "", |count| count == 0.0).await;

    // One is cut off and removes another, while the others go on: the removal is owed until somebody makes it again.
    links.split(&[&["a", "b"], &["c"]], Cut::Stall).unwrap();
    let bob_id = bob.id().clone();
    let remove = async || cy.remove(&group, std::slice::from_ref(&bob_id)).await;
    until_answered("the branch takes a removal", remove, is_provisional).await;
    until_answered("the quorum takes another commit", async || ann.update(&group).await, is_accepted).await;
    for running in running {
        running.stop().await;
    }
    links.heal_all();
    nodes_tell(&cluster, "concordat_ordering_groups_owing_removals", "", |groups| groups == 1.0).await;
    let _running = ann.start();
    nodes_tell(&cluster, "concordat_ordering_groups_owing_removals", "", |groups| groups == 0.0).await;
    nodes_tell(&cluster, "concordat_ordering_gateways_holding_stable", "", |count| count == 0.0).await;

    // A gateway that is gone acknowledges nothing: it alone holds `Stable` back until it returns.
    let gone = Arc::clone(&cluster.gateways()[2]);
    gone.service().kill().await.unwrap();
    until_answered("a commit without it", async || ann.update(&group).await, is_accepted).await;
    nodes_tell(&cluster, "concordat_ordering_gateways_away", "", |count| count >= 1.0).await;
    nodes_tell(&cluster, "concordat_ordering_gateways_holding_stable", "", |count| count == 1.0).await;
    gone.service().start().unwrap();
    nodes_tell(&cluster, "concordat_ordering_gateways_holding_stable", "", |count| count == 0.0).await;
}

/// A DeMLS group of all of them.
async fn together(founder: &Client, others: &[&Client]) -> GroupId {
    for client in others {
        client.publish_key_packages().await.unwrap();
    }
    let new = NewGroup { kind: GroupKind::Demls, ..NewGroup::default() };
    let group = founder.create_group(new).await.unwrap();
    let ids: Vec<ClientId> = others.iter().map(|client| client.id().clone()).collect();
    founder.invite(&group, &ids).await.unwrap();
    let is_in = |client: &&Client| client.group(&group).is_ok_and(|view| view.status == Status::Active);
    eventually("all are in", PATIENCE, async || others.iter().all(is_in).then_some(())).await.unwrap();
    group
}
