//! Seven processes, and the links between them: three gateways in front of an ordering node, four without any cluster.

use std::{path::Path, process::Stdio, sync::Arc, time::Duration};

use anyhow::Context;
use links::{Cut, Links, Quality};
use testbed::{Cluster, ClusterOptions, Placement, Ports};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::{sleep, timeout},
};

/// How long a gateway may take to listen.
const START: Duration = Duration::from_secs(180);
/// One way over any link.
const DELAY: Duration = Duration::from_millis(20);
/// The first gateways stand in front of the cluster, whose only node is at the first one.
pub(crate) const WITH_CLUSTER: usize = 3;
/// Timings of the node and its gateways that suit the delay.
const TIMING: &str = "region";

/// A link between two sites.
pub(crate) type Pair = (String, String);

/// The gateways of the mesh. Their processes are killed when this is dropped.
pub(crate) struct Gateways {
    addresses: Vec<String>,
    pairs: Vec<Pair>,
    links: Arc<Links>,
    cluster: Cluster,
    _processes: Vec<Child>,
}

fn site(number: usize) -> String {
    format!("g{}", number + 1)
}

impl Gateways {
    /// Starts them in a ring with chords. Only those in front of the cluster reach one another at first.
    pub(crate) async fn start(count: usize, dir: &Path, seed: u64) -> anyhow::Result<Self> {
        let links = Arc::new(Links::start((0..count).map(site), seed)?);
        let mut pairs: Vec<(usize, usize)> =
            [1, 3].into_iter().flat_map(|step| (0..count).map(move |a| (a, (a + step) % count))).collect();
        pairs.push((0, WITH_CLUSTER - 1));
        for (a, b) in &pairs {
            links.set_both(&site(*a), &site(*b), Quality::delay(DELAY))?;
            if *a >= WITH_CLUSTER || *b >= WITH_CLUSTER {
                links.cut_both(&site(*a), &site(*b), Cut::Reset)?;
            }
        }
        let cluster = Cluster::prepare(ClusterOptions {
            nodes: 1,
            gateways: WITH_CLUSTER as u64,
            data_shards: 1,
            node_args: ["--timing", TIMING].map(str::to_owned).to_vec(),
            gateway_args: ["--profile", TIMING].map(str::to_owned).to_vec(),
            placement: Some(Placement {
                links: Arc::clone(&links),
                nodes: vec![site(0)],
                gateways: (0..WITH_CLUSTER).map(site).collect(),
            }),
            dir: Some(dir.join("cluster")),
            ..ClusterOptions::default()
        })?;
        let mut ports = Ports::new();
        // Where clients connect, and where other gateways do.
        let mut ends: Vec<(String, String)> =
            cluster.gateways().iter().map(|g| (g.address().to_owned(), g.relay().to_owned())).collect();
        for _ in WITH_CLUSTER..count {
            ends.push((ports.take()?.to_string(), ports.take()?.to_string()));
        }
        let binary = testbed::find_binary("mls-gateway")?;
        let mut processes = Vec::new();
        for (number, (api, mesh)) in ends.iter().enumerate() {
            let mut peers = Vec::new();
            for (a, b) in pairs.iter().filter(|(a, b)| *a == number || *b == number) {
                let other = a + b - number;
                // Those of the cluster know one another as relays.
                if number >= WITH_CLUSTER || other >= WITH_CLUSTER {
                    peers.push(links.open(&site(number), &site(other), &ends[other].1)?);
                }
            }
            if let Some(gateway) = cluster.gateways().get(number) {
                peers
                    .into_iter()
                    .for_each(|peer| gateway.service().add_args(["--mesh-peer".to_owned(), peer]));
                continue;
            }
            let log = std::fs::File::create(dir.join(format!("{}.log", site(number))))?;
            let mut command = Command::new(&binary);
            command.args(["mesh", "--insecure-dev"]).arg("--data-dir").arg(dir.join(site(number)));
            command.args(["--listen", api, "--mesh-listen", mesh]);
            command.args(["--admin-listen", &ports.take()?.to_string()]);
            peers.iter().for_each(|peer| _ = command.args(["--peer", peer]));
            command.stdout(Stdio::null()).stderr(log).kill_on_drop(true);
            processes.push(command.spawn().context("cannot start mls-gateway")?);
        }
        cluster.launch().await.context("starting the cluster")?;
        let addresses: Vec<String> = ends.into_iter().map(|(api, _)| api).collect();
        for api in &addresses {
            let listening = async {
                while TcpStream::connect(api).await.is_err() {
                    sleep(Duration::from_millis(20)).await;
                }
            };
            timeout(START, listening).await.with_context(|| {
                format!("the gateway at {api} does not listen; its log is in {}", dir.display())
            })?;
        }
        let pairs = pairs.into_iter().map(|(a, b)| (site(a), site(b))).collect();
        Ok(Gateways { addresses, pairs, links, cluster, _processes: processes })
    }

    /// host:port where clients connect.
    pub(crate) fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Which gateways have a link.
    pub(crate) fn pairs(&self) -> &[Pair] {
        &self.pairs
    }

    pub(crate) fn links(&self) -> &Arc<Links> {
        &self.links
    }

    /// Only those in front of the cluster reach one another from now on.
    pub(crate) fn only_cluster(&self) -> anyhow::Result<()> {
        let inside = |name: &str| (0..WITH_CLUSTER).any(|number| site(number) == name);
        for (a, b) in &self.pairs {
            if inside(a) && inside(b) {
                self.links.heal_both(a, b)?;
            } else {
                self.links.cut_both(a, b, Cut::Reset)?;
            }
        }
        Ok(())
    }

    /// Where the logs of the cluster are.
    pub(crate) fn cluster_dir(&self) -> std::path::PathBuf {
        self.cluster.dir()
    }
}
