//! A whole cluster and a gateway in one process, on loopback: the embedded default for one machine.

use std::path::{Path, PathBuf};

use anyhow::Context;
use ordering_service::dev::DevCluster;
use service_kit::{net::tcp_network, rng::Randomness};
use tempfile::TempDir;

use crate::{
    cli::{Dev, listen, until_told_to_stop},
    mesh::DimlsParts,
    server::{DemlsParts, Gateway, Parts},
};

/// Nodes of the embedded cluster: it goes on if one of them fails.
const NODES: u64 = 3;
/// Data shards of the embedded cluster.
const DATA_SHARDS: u32 = 2;

/// Runs until the process is told to stop.
pub async fn run(dev: Dev) -> anyhow::Result<()> {
    let network = tcp_network();
    let incoming = listen(&network, "API", &dev.listen, true).await?;
    let folder = Folder::open(dev.data_dir)?;
    let cluster = DevCluster::start(folder.path(), NODES, DATA_SHARDS)
        .await
        .context("the embedded cluster did not start")?;
    let mut parts = Parts::new(cluster.api_addresses(), incoming, network, Randomness::from_os());
    parts.demls = Some(DemlsParts::new(folder.path().join("gateway")));
    parts.dimls = Some(DimlsParts::new(folder.path().join("dimls")));
    let gateway = Gateway::start(parts)?;
    gateway.ready().await;
    println!("{}", greeting(&gateway, &cluster, &folder));
    let told = until_told_to_stop(&gateway).await;
    gateway.stop().await;
    cluster.stop().await;
    told
}

fn greeting(gateway: &Gateway, cluster: &DevCluster, folder: &Folder) -> String {
    let (address, nodes) = (gateway.address(), cluster.api_addresses().join(", "));
    let data = match folder {
        Folder::Kept(path) => format!("kept in {}", path.display()),
        Folder::Temporary(_) => "deleted when this stops; keep it with --data-dir DIR".to_owned(),
    };
    format!(
        "gateway        http://{address}\n\
         ordering nodes {nodes}\n\
         data           {data}\n\
         \n\
         Talk over it, in two more terminals:\n\
         \x20 export CONCORDAT_GATEWAY=http://{address}\n\
         \x20 export CONCORDAT_STATE=/tmp/ann.state         export CONCORDAT_STATE=/tmp/bob.state\n\
         \x20 mls-client identity ann                       mls-client identity bob\n\
         \x20 mls-client create\n\
         \x20 mls-client invite bob                         mls-client join\n\
         \x20 mls-client send 'hello, bob'                  mls-client watch --talk\n\
         \n\
         Ctrl-C stops everything."
    )
}

/// Where the cluster keeps its data.
enum Folder {
    Kept(PathBuf),
    Temporary(TempDir),
}

impl Folder {
    fn open(kept: Option<PathBuf>) -> anyhow::Result<Self> {
        Ok(match kept {
            Some(path) => {
                std::fs::create_dir_all(&path)
                    .with_context(|| format!("cannot keep data in {}", path.display()))?;
                Self::Kept(path)
            }
            None => Self::Temporary(
                TempDir::new().context("cannot make a temporary folder; name one with --data-dir")?,
            ),
        })
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(dir) => dir.path(),
        }
    }
}
