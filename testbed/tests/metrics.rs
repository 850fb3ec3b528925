//! Every metric that a dashboard or an alert names is exported by running processes: an ordinary day, and a split.

#![allow(clippy::unwrap_used)] // A panic in a test is its report.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use concordat_certs::{Folder, Plan};
use links::{Cut, Links, Quality};
use mls_client::{
    Client, ClientId, Committed, DEFAULT_CIPHERSUITE, GroupId, GroupKind, GrpcTransport, Identity, NewGroup,
    Options, Randomness, Status, Store,
};
use testbed::{Cluster, ClusterOptions, Metrics, Placement, Ports, find_binary, wait::eventually};

const SITES: [&str; 3] = ["a", "b", "c"];
/// Far beyond what a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(120);

fn id(name: &str) -> ClientId {
    ClientId::new(name.to_owned()).unwrap()
}

fn client(name: &str, gateway: &str) -> Client {
    let mut store = Store::in_memory().unwrap();
    Identity::create(&mut store, id(name), DEFAULT_CIPHERSUITE).unwrap();
    let transport = GrpcTransport::new(&format!("http://{gateway}"), &id(name)).unwrap();
    Client::new(store, Arc::new(transport), Options::default(), Randomness::from_os()).unwrap()
}

/// A group of both, with a few commits and messages.
async fn busy(ann: &Client, bob: &Client, kind: GroupKind) -> GroupId {
    let group = ann.create_group(NewGroup { kind, ..NewGroup::default() }).await.unwrap();
    ann.invite(&group, &[bob.id().clone()]).await.unwrap();
    let joined = || bob.group(&group).is_ok_and(|view| view.status == Status::Active).then_some(());
    eventually("bob is in", PATIENCE, async || joined()).await.unwrap();
    ann.send(&group, "hello").await.unwrap();
    bob.update(&group).await.unwrap();
    group
}

async fn scrape(cluster: &Cluster, names: &mut BTreeSet<String>) {
    for node in cluster.nodes() {
        names.extend(node.service().metrics().await.unwrap().names().map(str::to_owned));
    }
    for gateway in cluster.gateways() {
        names.extend(gateway.service().metrics().await.unwrap().names().map(str::to_owned));
    }
}

/// Ends the process in the end.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A node with certificates, for the metrics of TLS.
async fn secured(names: &mut BTreeSet<String>) {
    let dir = tempfile::tempdir().unwrap();
    let hosts = vec!["127.0.0.1".into()];
    let plan = Plan { domain: "metrics.test".into(), nodes: 1, gateways: 1, hosts, days: 1 };
    Folder::create(dir.path(), &plan).unwrap();
    let mut ports = Ports::new();
    let [api, peers, admin] = [0; 3].map(|_| ports.take().unwrap().to_string());
    let path = |name: &str| dir.path().join(name).display().to_string();
    let child = Command::new(find_binary("ordering-service").unwrap())
        .args([
            "serve",
            "--node-id",
            "1",
            "--data-dir",
            &path("data"),
            "--listen",
            &api,
            "--peer-listen",
            &peers,
        ])
        .args(["--admin-listen", &admin, "--tls-cert", &path("node-1.pem"), "--tls-key", &path("node-1.key")])
        .args(["--tls-ca", &path("ca.pem")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _killed = Killed(child);
    let scraped = eventually("the secured node answers", PATIENCE, async || {
        let metrics = Metrics::of(&admin).await.ok()?;
        metrics.sum("concordat_tls_certificate_expiry_timestamp_seconds").map(|_| metrics)
    });
    names.extend(scraped.await.unwrap().names().map(str::to_owned));
}

/// What the chart's dashboards and alerts name, with the file.
fn named() -> Vec<(String, String)> {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../helm/concordat");
    let mut named = Vec::new();
    for folder in ["dashboards", "alerts"] {
        for file in fs::read_dir(chart.join(folder)).unwrap() {
            let path = file.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let words: BTreeSet<_> = words.filter(|word| word.starts_with("concordat_")).collect();
            let file = path.file_name().unwrap().to_string_lossy().into_owned();
            named.extend(words.into_iter().map(|word| (word.to_owned(), file.clone())));
        }
    }
    named
}

#[tokio::test(flavor = "multi_thread")]
async fn what_dashboards_and_alerts_name_is_exported_by_running_processes() {
    let links = Arc::new(Links::start(SITES, 7).unwrap());
    for (a, b) in [("a", "b"), ("b", "c"), ("a", "c")] {
        links.set_both(a, b, Quality::delay(Duration::from_millis(1))).unwrap();
    }
    let sites = SITES.map(str::to_owned).to_vec();
    let placement = Some(Placement { links: Arc::clone(&links), nodes: sites.clone(), gateways: sites });
    let cluster =
        Cluster::start(ClusterOptions { gateways: 3, placement, ..ClusterOptions::default() }).await.unwrap();
    let gateways = cluster.gateway_addresses();
    let (ann, bob) = (client("ann", &gateways[0]), client("bob", &gateways[1]));
    let _running = [ann.start(), bob.start()];
    bob.publish_key_packages().await.unwrap();
    busy(&ann, &bob, GroupKind::Mls).await;
    let group = busy(&ann, &bob, GroupKind::Demls).await;
    let mut names = BTreeSet::new();
    scrape(&cluster, &mut names).await;

    // Nobody reaches anybody: DeMLS groups carry on at every site.
    links.split(&[&["a"], &["b"], &["c"]], Cut::Stall).unwrap();
    eventually("a branch takes a commit", PATIENCE, async || {
        matches!(ann.update(&group).await, Ok(Committed::Provisional { .. })).then_some(())
    })
    .await
    .unwrap();
    scrape(&cluster, &mut names).await;
    links.heal_all();
    eventually("the branch is in the log", PATIENCE, async || {
        matches!(ann.update(&group).await, Ok(Committed::Accepted { .. })).then_some(())
    })
    .await
    .unwrap();
    scrape(&cluster, &mut names).await;
    secured(&mut names).await;

    let named = named();
    assert!(named.len() > 50, "{named:?}");
    let missing: Vec<_> = named.iter().filter(|(name, _)| !names.contains(name)).collect();
    assert!(missing.is_empty(), "named, but exported by nobody: {missing:?}");
}
