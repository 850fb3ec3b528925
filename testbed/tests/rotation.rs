//! Certificates and the CA are replaced while clients commit: no call fails, and what is connected anew shows what is new.

#![allow(clippy::unwrap_used)] // A panic in a test is its report.

use std::{sync::Arc, time::Duration};

use concordat_certs::Lifetime;
use links::Links;
use service_kit::tls::Role;
use testbed::{
    Cluster, ClusterOptions, Placement,
    cluster::Dialer,
    limits::STOP_DEADLINE,
    load::{Load, LoadOptions},
    seed,
    wait::eventually,
};
use time::OffsetDateTime;

const PROGRESS: Duration = Duration::from_secs(60);

fn valid_for(duration: time::Duration) -> Lifetime {
    let now = OffsetDateTime::now_utc();
    Lifetime { not_before: now - time::Duration::HOUR, not_after: now + duration }
}

fn seconds(moment: OffsetDateTime) -> u64 {
    u64::try_from(moment.unix_timestamp()).unwrap()
}

/// When the certificate ends that is shown at `address`.
async fn shown(dialer: &Dialer, address: &str) -> Option<u64> {
    Some(dialer.network().dial(address.to_owned()).await.ok()?.identity()?.expires_at)
}

/// Every listener of every process: nodes for gateways and operators, nodes for nodes, gateways for clients, gateways for gateways.
fn listeners(cluster: &Cluster) -> Vec<String> {
    let nodes = cluster.nodes();
    let nodes = nodes.iter().flat_map(|node| [node.address().to_owned(), node.peer_address().to_owned()]);
    let gateways = cluster.gateways();
    let gateways =
        gateways.iter().flat_map(|gateway| [gateway.address().to_owned(), gateway.relay().to_owned()]);
    nodes.chain(gateways).collect()
}

async fn until_all_show(cluster: &Cluster, lifetime: Lifetime) {
    let dialer = cluster.dialer(&Role::Gateway("testbed".into())).unwrap();
    let wanted = seconds(lifetime.not_after);
    for address in listeners(cluster) {
        let what = format!("{address} shows the new certificate");
        let looked = eventually(what, PROGRESS, async || {
            (shown(&dialer, &address).await == Some(wanted)).then_some(())
        });
        looked.await.unwrap();
    }
}

/// Credentials that each process has taken up since it was started.
async fn taken_up(cluster: &Cluster) -> Vec<f64> {
    let mut counts = Vec::new();
    let (nodes, gateways) = (cluster.nodes(), cluster.gateways());
    let services = nodes.iter().map(|n| n.service()).chain(gateways.iter().map(|g| g.service()));
    for service in services {
        let metrics = service.metrics().await.unwrap();
        let published =
            metrics.series("concordat_tls_reloads_total").filter(|(labels, _)| labels.contains("published"));
        counts.push(published.map(|(_, count)| count).sum());
    }
    counts
}

async fn until_taken_up(cluster: &Cluster, before: Vec<f64>) {
    eventually("every process trusts other CAs", PROGRESS, async || {
        taken_up(cluster).await.iter().zip(&before).all(|(now, before)| now > before).then_some(())
    })
    .await
    .unwrap();
}

/// A secured cluster of one site, every process of which runs with `args`, and what works on it.
async fn under_load(name: &str, args: &[&str]) -> (Cluster, Load) {
    let seed = seed::seed(name);
    // One site: nothing is in between, but gateways listen to one another.
    let links = Arc::new(Links::start(["here"], seed).unwrap());
    let here = |count| vec!["here".to_owned(); count];
    let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
    let cluster = Cluster::start(ClusterOptions {
        gateways: 2,
        placement: Some(Placement { links, nodes: here(3), gateways: here(2) }),
        secured: true,
        node_args: args.clone(),
        gateway_args: args,
        ..ClusterOptions::default()
    })
    .await
    .unwrap();
    let options = LoadOptions {
        groups: 4,
        clients_per_group: 0,
        gateway_clients_per_group: 3,
        seed,
        ..LoadOptions::default()
    };
    let load = Load::start(&cluster, &options).await.unwrap();
    load.progress(100, PROGRESS).await.unwrap();
    (cluster, load)
}

/// Connections last a second, and the certificates of the beginning only a few: all connections that they made are cut then, in the midst
/// of the load, but everybody has certificates again that are good for longer.
#[tokio::test(flavor = "multi_thread")]
async fn connections_are_replaced_every_second_and_certificates_end_and_no_call_fails() {
    let (cluster, load) = under_load("rotation, every second", &["--tls-connection-seconds", "1"]).await;
    let certificates = cluster.certificates().unwrap();
    let short = valid_for(time::Duration::SECOND * 20);
    certificates.renew(short).await.unwrap();
    until_all_show(&cluster, short).await;
    let long = valid_for(time::Duration::DAY);
    certificates.renew(long).await.unwrap();
    until_all_show(&cluster, long).await;
    let left = short.not_after - OffsetDateTime::now_utc();
    assert!(left > time::Duration::seconds(3), "the machine is too slow to renew in time");
    while OffsetDateTime::now_utc() < short.not_after + time::Duration::seconds(3) {
        load.progress(50, PROGRESS).await.unwrap();
    }
    load.progress(200, PROGRESS).await.unwrap();
    let summary = load.finish(&cluster).await.unwrap();
    eprintln!("rotation, every second: {summary:?}");
    assert_eq!(summary.unknown, 0, "a call failed while connections were replaced");
    for gateway in cluster.gateways() {
        let log = std::fs::read_to_string(gateway.service().log_path()).unwrap();
        assert_eq!(log.matches("a peer is heard").count(), 1, "a link between gateways was cut:\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_the_authority_are_replaced_under_load_and_no_call_fails() {
    let (cluster, load) = under_load("rotation", &[]).await;
    let certificates = cluster.certificates().unwrap();

    let before = taken_up(&cluster).await;
    certificates.begin_new_authority().await.unwrap();
    until_taken_up(&cluster, before).await;
    load.progress(100, PROGRESS).await.unwrap();

    // Twice: the second ones replace certificates of the new CA.
    for days in [2, 3] {
        let lifetime = valid_for(time::Duration::DAY * days);
        certificates.renew(lifetime).await.unwrap();
        until_all_show(&cluster, lifetime).await;
        load.progress(100, PROGRESS).await.unwrap();
    }

    let before = taken_up(&cluster).await;
    certificates.end_old_authorities().await.unwrap();
    until_taken_up(&cluster, before).await;
    load.progress(100, PROGRESS).await.unwrap();

    // Everybody connects anew to one node, and it to everybody: only certificates of the new CA are taken now.
    let node = cluster.node(1);
    assert!(node.service().stop(STOP_DEADLINE).await.unwrap().success());
    node.service().start().unwrap();
    node.service().wait_ready().await.unwrap();
    load.progress(200, PROGRESS).await.unwrap();
    let summary = load.finish(&cluster).await.unwrap();
    eprintln!("rotation: {summary:?}");
    assert_eq!(summary.unknown, 0, "a call failed while certificates were replaced");
    for gateway in cluster.gateways() {
        eventually("gateways hear one another", PROGRESS, async || {
            let metrics = gateway.service().metrics().await.ok()?;
            (metrics.sum("concordat_gateway_relay_links") == Some(1.0)).then_some(())
        })
        .await
        .unwrap();
    }
}
