//! Leaders go to the site that commits come from, or to the one that the operator prefers: by themselves, back again after the leader there
//! was dead, and without a call that fails. They go far away when they are told to, also right after an election.

#![allow(clippy::unwrap_used)] // A panic in a test is its report.

use std::{process::Command, sync::Arc, time::Duration};

use concordat_proto::ordering::v1::LocateRequest;
use links::{Links, Quality};
use mls_client::{
    Client, ClientId, DEFAULT_CIPHERSUITE, GrpcTransport, Identity, NewGroup, Options, Randomness, Store,
};
use testbed::{
    Cluster, ClusterOptions, Placement, find_binary,
    load::{Load, LoadOptions},
    ordering::OrderingClient,
    seed,
    wait::eventually,
};

const PATIENCE: Duration = Duration::from_secs(90);
const SITES: [&str; 3] = ["a", "b", "c"];
/// Leaders are judged often, so that the test need not wait for long.
const NODE_ARGS: [&str; 4] = ["--timing", "region", "--placement-window-ms", "300"];

/// One node at each of three sites, every two 30 ms apart, and gateways at some.
async fn cluster(seed: u64, gateways: &[&str], node_args: &[&str]) -> Cluster {
    let node_args = [&NODE_ARGS[..], node_args].concat();
    cluster_over([15, 15, 15], "region", seed, gateways, &node_args).await
}

/// One node at each of three sites, and gateways at some; `delays` are those from a to b, from b to c and from a to c, in milliseconds.
async fn cluster_over(
    delays: [u64; 3],
    profile: &str,
    seed: u64,
    gateways: &[&str],
    node_args: &[&str],
) -> Cluster {
    let links = Arc::new(Links::start(SITES, seed).unwrap());
    for ((a, b), delay) in [("a", "b"), ("b", "c"), ("a", "c")].into_iter().zip(delays) {
        links.set_both(a, b, Quality::delay(Duration::from_millis(delay))).unwrap();
    }
    let names = |sites: &[&str]| sites.iter().map(|site| (*site).to_owned()).collect();
    let placement = Placement { links, nodes: names(&SITES), gateways: names(gateways) };
    let options = ClusterOptions {
        gateways: gateways.len() as u64,
        placement: Some(placement),
        node_args: names(node_args),
        gateway_args: names(&["--profile", profile]),
        ..ClusterOptions::default()
    };
    Cluster::start(options).await.unwrap()
}

async fn led_by(cluster: &Cluster, shard: u32, node: u64) {
    eventually(format!("node {node} to lead shard {shard}"), PATIENCE, async || {
        (cluster.current_leader(shard).await? == node).then_some(())
    })
    .await
    .unwrap();
}

async fn hand_over(cluster: &Cluster, shard: u32, node: u64) {
    eventually(format!("shard {shard} to be handed to node {node}"), PATIENCE, async || {
        let leader = cluster.current_leader(shard).await?;
        if leader != node {
            // Refused while a leader is new.
            let _ = cluster.node(leader).admin().transfer_leader(shard, node).await;
        }
        (leader == node).then_some(())
    })
    .await
    .unwrap();
}

/// Leaderships that were moved for this reason.
async fn moves(cluster: &Cluster, reason: &str) -> f64 {
    let mut sum = 0.0;
    for node in cluster.nodes() {
        let metrics = node.service().metrics().await.unwrap();
        let counted = metrics.series("concordat_raft_leader_moves_total").filter(|(labels, _)| {
            labels.contains(&format!("reason=\"{reason}\"")) && labels.contains("outcome=\"moved\"")
        });
        sum += counted.map(|(_, count)| count).sum::<f64>();
    }
    sum
}

/// Clients of gateways alone.
fn through_gateways(seed: u64) -> LoadOptions {
    LoadOptions { clients_per_group: 0, gateway_clients_per_group: 4, seed, ..LoadOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_far_from_where_all_commits_come_from_moves_there_once_and_no_call_fails() {
    let seed = seed::seed("placement");
    let cluster = cluster(seed, &["c"], &[]).await;
    for shard in 0..=2 {
        hand_over(&cluster, shard, 1).await;
    }
    let load = Load::start(&cluster, &through_gateways(seed)).await.unwrap();
    for shard in [1, 2] {
        led_by(&cluster, shard, 3).await;
    }
    load.progress(500, PATIENCE).await.unwrap();
    // From where it is now, nothing is nearer.
    eventually("the new leader knows what commits take", PATIENCE, async || {
        let status = cluster.node(3).admin().status().await.ok()?;
        let expected = status.shards.get(1)?.expected_commit.as_ref()?;
        (expected.best_node_id == 3 && (29_000..45_000).contains(&expected.here_us)).then_some(())
    })
    .await
    .unwrap();
    let summary = load.finish(&cluster).await.unwrap();
    eprintln!("placement: {summary:?}");
    assert_eq!(summary.unknown, 0, "a call failed while leaders moved");
    assert_eq!(moves(&cluster, "latency").await, 2.0, "each data shard moves once");
    assert_eq!(
        cluster.current_leader(0).await,
        Some(1),
        "nothing was submitted to the directory from a site"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_leader_at_home_died_and_came_back_leadership_returns_home() {
    let seed = seed::seed("placement");
    let cluster = cluster(seed, &["c"], &[]).await;
    let load = Load::start(&cluster, &through_gateways(seed)).await.unwrap();
    for shard in [1, 2] {
        led_by(&cluster, shard, 3).await;
    }
    let home = cluster.node(3);
    home.service().kill().await.unwrap();
    eventually("another leader of shard 1", PATIENCE, async || {
        (cluster.current_leader(1).await? != 3).then_some(())
    })
    .await
    .unwrap();
    load.progress(300, PATIENCE).await.unwrap();
    home.service().start().unwrap();
    home.service().wait_ready().await.unwrap();
    for shard in [1, 2] {
        led_by(&cluster, shard, 3).await;
    }
    load.progress(300, PATIENCE).await.unwrap();
    eprintln!("placement: {:?}", load.finish(&cluster).await.unwrap());
}

/// A new leader searches the logs of the others for what they share with its own: with a thousand entries, for half a second here.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_just_elected_hands_over_to_a_node_far_away_at_the_first_call() {
    let seed = seed::seed("placement");
    let node_args = ["--timing", "wan", "--leader-placement", "off"];
    let cluster = cluster_over([40, 5, 40], "wan", seed, &[], &node_args).await;
    let load = Load::start(&cluster, &LoadOptions { seed, ..LoadOptions::default() }).await.unwrap();
    load.progress(1000, PATIENCE).await.unwrap();
    load.finish(&cluster).await.unwrap();
    for round in 0..4 {
        for shard in [1, 2] {
            hand_over(&cluster, shard, 2 + round % 2).await;
            let elected = cluster.current_leader(shard).await.unwrap();
            cluster.node(elected).admin().transfer_leader(shard, 1).await.unwrap();
            led_by(&cluster, shard, 1).await;
        }
    }
}

fn client(name: &str, gateway: &str) -> Client {
    let id = ClientId::new(name.to_owned()).unwrap();
    let mut store = Store::in_memory().unwrap();
    Identity::create(&mut store, id.clone(), DEFAULT_CIPHERSUITE).unwrap();
    let transport = GrpcTransport::new(&format!("http://{gateway}"), &id).unwrap();
    Client::new(store, Arc::new(transport), Options::default(), Randomness::from_os()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn preferred_sites_lead_without_any_load_and_get_the_groups_of_their_gateways() {
    let prefer = ["--prefer-leader", "0=a", "--prefer-leader", "1=b", "--prefer-leader", "2=c"];
    let cluster = cluster(seed::seed("placement"), &["b", "c"], &prefer).await;
    for (shard, node) in [(0, 1), (1, 2), (2, 3)] {
        led_by(&cluster, shard, node).await;
    }
    let server = cluster.node(1).address().to_owned();
    let status = Command::new(find_binary("ordering-service").unwrap())
        .args(["admin", "--insecure-dev", "--server", &server, "status"])
        .output()
        .unwrap();
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    let row =
        |shard: &str| status.lines().find(|line| line.starts_with(shard)).unwrap_or_default().to_owned();
    assert!(
        row("shard").contains("prefers") && row("2 ").split_whitespace().any(|word| word == "c"),
        "{status}"
    );

    let gateways = cluster.gateways();
    let nodes = OrderingClient::new(cluster.ordering_addresses());
    for (gateway, shard) in gateways.iter().zip([1, 2]) {
        let client = client(gateway.site(), gateway.address());
        for _ in 0..4 {
            // A gateway knows the leaders' sites soon after they are there.
            eventually(format!("a group from {} in shard {shard}", gateway.site()), PATIENCE, async || {
                let group = client.create_group(NewGroup::default()).await.ok()?;
                let request = LocateRequest { group_id: group.to_bytes(), linearizable: true };
                let located = nodes.wire(&server).locate(request).await.ok()?.into_inner();
                (located.shard == shard).then_some(())
            })
            .await
            .unwrap();
        }
    }
}
