//! Seven processes, and the links between them.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use links::{Links, Quality};
use rand::Rng;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::{sleep, timeout},
};

/// How long a gateway may take to listen.
const START: Duration = Duration::from_secs(20);

/// The gateways of the mesh.
pub(crate) struct Gateways {
    addresses: Vec<String>,
    pairs: Vec<(String, String)>,
    links: Arc<Links>,
    /// Killed when this is dropped.
    _processes: Vec<Child>,
}

pub(crate) fn site(number: usize) -> String {
    format!("g{}", number + 1)
}

impl Gateways {
    /// Starts them in a ring with chords: each has links to four others. All links are cut at first.
    pub(crate) async fn start(count: usize, dir: &Path, seed: u64) -> anyhow::Result<Self> {
        let links = Arc::new(Links::start((0..count).map(site), seed)?);
        let mut pairs = Vec::new();
        for from in 0..count {
            for step in [1, 3] {
                pairs.push((from, (from + step) % count));
            }
        }
        let host = own_host();
        let ports = (0..count)
            .map(|_| Ok([free(host)?, free(host)?, free(host)?]))
            .collect::<std::io::Result<Vec<_>>>();
        let ports = ports.context("no free port")?;
        let binary = testbed::find_binary("mls-gateway")?;
        let mut processes = Vec::new();
        for (number, [api, mesh, admin]) in ports.iter().enumerate() {
            let data = dir.join(site(number));
            let log = std::fs::File::create(dir.join(format!("{}.log", site(number))))?;
            let mut command = Command::new(&binary);
            command.args(["mesh", "--insecure-dev"]).arg("--data-dir").arg(&data);
            command.args(["--listen", api, "--mesh-listen", mesh, "--admin-listen", admin]);
            for (a, b) in &pairs {
                let other = if *a == number {
                    *b
                } else if *b == number {
                    *a
                } else {
                    continue;
                };
                let address = links.open(&site(number), &site(other), &ports[other][1])?;
                command.args(["--peer", &address]);
            }
            command.stdout(Stdio::null()).stderr(log).kill_on_drop(true);
            processes.push(command.spawn().context("cannot start mls-gateway")?);
        }
        let pairs: Vec<_> = pairs.into_iter().map(|(a, b)| (site(a), site(b))).collect();
        for (a, b) in &pairs {
            links.set_both(a, b, Quality::delay(Duration::from_millis(20)))?;
        }
        for [api, ..] in &ports {
            let listening = async {
                while TcpStream::connect(api).await.is_err() {
                    sleep(Duration::from_millis(20)).await;
                }
            };
            timeout(START, listening).await.with_context(|| {
                format!("the gateway at {api} does not listen; its log is in {}", dir.display())
            })?;
        }
        let addresses = ports.into_iter().map(|[api, ..]| api).collect();
        Ok(Gateways { addresses, pairs, links, _processes: processes })
    }

    /// host:port where clients connect.
    pub(crate) fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Which gateways have a link.
    pub(crate) fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }

    pub(crate) fn links(&self) -> &Arc<Links> {
        &self.links
    }
}

/// A loopback address of one's own, where the system has them, so that nobody else takes the ports.
fn own_host() -> Ipv4Addr {
    let mut rng = rand::rng();
    let own =
        Ipv4Addr::new(127, rng.random_range(1..=250), rng.random_range(0..=250), rng.random_range(2..=250));
    if TcpListener::bind((own, 0)).is_ok() { own } else { Ipv4Addr::LOCALHOST }
}

fn free(host: Ipv4Addr) -> std::io::Result<String> {
    Ok(TcpListener::bind((host, 0))?.local_addr()?.to_string())
}
