//! What an operator types: the programs as processes.

#![allow(clippy::unwrap_used)] // A panic in a test is its report.

use std::{
    fs,
    process::{Command, Output},
    sync::Arc,
    time::Duration,
};

use links::Links;
use mls_client::{
    Client, ClientId, DEFAULT_CIPHERSUITE, GroupKind, GrpcTransport, Identity, NewGroup, Options, Randomness,
    Store,
};
use service_kit::tls::Role;
use testbed::{Cluster, ClusterOptions, Placement, find_binary, limits::STOP_DEADLINE, wait::eventually};

/// Far beyond what a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(60);

fn run(program: &str, args: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new(find_binary(program).unwrap()).args(args).envs(env.iter().copied()).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn admin(cluster: &Cluster, command: &[&str]) -> Output {
    run(
        "ordering-service",
        &[&["admin", "--insecure-dev", "--server", cluster.node(1).address()], command].concat(),
        &[],
    )
}

#[test]
fn flags_stand_over_the_environment_and_that_over_the_file_and_unknown_keys_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("settings.toml");
    let path = file.to_str().unwrap();
    let programs = [
        (
            "ordering-service",
            "data_dir = '/data'\nadmin_listen = 'file:1'\nlisten = 'file:2'\npeer_listen = 'file:3'\n",
        ),
        (
            "mls-gateway",
            "ordering = ['n:7100']\nadmin_listen = 'file:1'\nlisten = 'file:2'\nprofile = 'wan'\n",
        ),
    ];
    for (program, text) in programs {
        fs::write(&file, text).unwrap();
        let args = ["serve", "--config", path, "--print-config", "--listen", "flag:9"];
        let env = [("CONCORDAT_LISTEN", "env:8"), ("CONCORDAT_ADMIN_LISTEN", "env:7")];
        let printed = run(program, &args, &env);
        let text = said(&printed);
        assert!(printed.status.success(), "{text}");
        assert!(text.contains("\nlisten = \"flag:9\"") || text.starts_with("listen = \"flag:9\""), "{text}");
        assert!(text.contains("admin_listen = \"env:7\""), "{text}");
        assert!(text.contains("file:3") || text.contains("wan"), "{text}");
        assert!(text.contains("tls_reload_seconds = 30"), "a default: {text}");

        fs::write(&file, "listn = 'h:1'\n").unwrap();
        let refused = run(program, &["serve", "--config", path], &[]);
        assert!(!refused.status.success() && said(&refused).contains("listn"), "{}", said(&refused));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shrink_takes_nodes_out_one_after_another_and_never_below_a_quorum() {
    let cluster = Cluster::start(ClusterOptions::default()).await.unwrap();
    for _ in 0..2 {
        cluster.add_node().await.unwrap();
    }
    let peers: Vec<String> = cluster.nodes().iter().map(|node| node.peer_address().to_owned()).collect();
    let keep = |nodes: &[usize]| -> Output {
        let keep = nodes.iter().flat_map(|at| ["--keep", peers[*at].as_str()]);
        let args: Vec<&str> = ["shrink", "--site", ""].into_iter().chain(keep).collect();
        admin(&cluster, &args)
    };
    let shrunk = keep(&[0, 1, 2]);
    assert!(shrunk.status.success(), "{}", said(&shrunk));
    let status = cluster.leader(1).await.unwrap().admin().status().await.unwrap();
    for shard in &status.shards {
        let mut ids: Vec<_> = shard.voters.iter().map(|voter| voter.node_id).collect();
        ids.sort_unstable();
        assert_eq!(ids, [1, 2, 3]);
    }
    let again = keep(&[0, 1, 2]);
    assert!(again.status.success() && said(&again).contains("no node has to go"), "{}", said(&again));

    // Of two that would be left one does not answer: the third has to stay.
    cluster.node(2).service().kill().await.unwrap();
    let refused = keep(&[0, 1]);
    assert!(!refused.status.success(), "{}", said(&refused));
    let status = cluster.leader(1).await.unwrap().admin().status().await.unwrap();
    assert!(status.shards.iter().all(|shard| shard.voters.len() == 3), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_node_that_lost_its_disk_forms_no_second_cluster() {
    let cluster = Cluster::start(ClusterOptions::default()).await.unwrap();
    let formed = cluster.node(2).admin().status().await.unwrap().cluster_id;
    let first = cluster.node(1);
    first.service().kill().await.unwrap();
    fs::remove_dir_all(first.data_dir()).unwrap();
    first.service().start().unwrap();
    eventually("the empty node answers", PATIENCE, async || first.admin().status().await.ok()).await.unwrap();

    // What the chart's job says, to the same node, as when the release was installed.
    let nodes: Vec<String> =
        cluster.nodes().iter().map(|node| format!("{},{}", node.peer_address(), node.address())).collect();
    let named = nodes.iter().flat_map(|node| ["--node", node.as_str()]);
    let bootstrap: Vec<&str> = ["bootstrap"].into_iter().chain(named).collect();
    let again = admin(&cluster, &[&bootstrap[..], &["--unless-formed"]].concat());
    assert!(again.status.success() && said(&again).contains("is formed already"), "{}", said(&again));
    assert!(said(&again).contains(&formed), "{}", said(&again));
    let forced = admin(&cluster, &bootstrap);
    assert!(!forced.status.success(), "{}", said(&forced));
    let status = first.admin().status().await.unwrap();
    assert!(status.shards.iter().all(|shard| shard.voters.is_empty()), "{status:?}");
    assert_eq!(cluster.node(2).admin().status().await.unwrap().cluster_id, formed);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eviction_says_first_what_it_costs_and_is_done_when_that_is_confirmed() {
    // At a site of its own a gateway keeps branches.
    let links = Arc::new(Links::start(["here"], 1).unwrap());
    let here = |count| vec!["here".to_owned(); count];
    let placement = Some(Placement { links, nodes: here(1), gateways: here(1) });
    let options = ClusterOptions { nodes: 1, gateways: 1, placement, ..ClusterOptions::default() };
    let cluster = Cluster::start(options).await.unwrap();
    let ann = ClientId::new("ann").unwrap();
    let mut store = Store::in_memory().unwrap();
    Identity::create(&mut store, ann.clone(), DEFAULT_CIPHERSUITE).unwrap();
    let url = format!("http://{}", cluster.gateway_addresses()[0]);
    let transport = Arc::new(GrpcTransport::new(&url, &ann).unwrap());
    let client = Client::new(store, transport, Options::default(), Randomness::from_os()).unwrap();
    client.create_group(NewGroup { kind: GroupKind::Demls, ..NewGroup::default() }).await.unwrap();

    let gateways = || said(&admin(&cluster, &["gateways"]));
    let gateway = eventually("the gateway is registered", PATIENCE, async || {
        gateways().lines().nth(1)?.split_whitespace().next().map(str::to_owned)
    })
    .await
    .unwrap();
    let told = admin(&cluster, &["evict", &gateway]);
    let text = said(&told);
    assert!(!told.status.success() && text.contains("nothing was done"), "{text}");
    assert!(
        text.contains("registered for 1 groups") && text.contains("its authors have to send again"),
        "{text}"
    );
    assert!(text.contains("CONNECTED"), "{text}");
    assert!(gateways().contains(&gateway));

    cluster.gateways()[0].service().stop(STOP_DEADLINE).await.unwrap();
    let done = admin(&cluster, &["evict", &gateway, "--yes"]);
    assert!(done.status.success() && said(&done).contains("evicted from 1 groups"), "{}", said(&done));
    assert!(gateways().contains("no gateway is registered"), "{}", gateways());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_check_of_helm_test_passes_with_certificates_and_says_what_it_did() {
    let options = ClusterOptions { nodes: 1, gateways: 1, secured: true, ..ClusterOptions::default() };
    let cluster = Cluster::start(options).await.unwrap();
    let files = cluster.certificates().unwrap().files(Role::Client(b"check".to_vec())).unwrap();
    let gateway = format!("https://{}", cluster.gateway_addresses()[0]);
    let args = ["--gateway", &gateway, "check", "--name", "check"];
    let env = [
        ("CONCORDAT_CA", files.ca.to_str().unwrap()),
        ("CONCORDAT_CERT", files.certificate.to_str().unwrap()),
        ("CONCORDAT_KEY", files.key.to_str().unwrap()),
    ];
    let checked = run("mls-client", &args, &env);
    let text = said(&checked);
    assert!(checked.status.success(), "{text}");
    for step in ["accepted: entry 2", "read back: entry 2", "submitted again: entry 2 again"] {
        assert!(text.contains(step), "{text}");
    }
    // In the name of somebody else it is refused, and says so.
    let refused = run("mls-client", &["--gateway", &gateway, "check", "--name", "another"], &env);
    assert!(!refused.status.success(), "{}", said(&refused));
}
