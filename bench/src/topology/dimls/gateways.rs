//! A gateway without a cluster at every site, linked with all others.

use std::{net::SocketAddr, path::Path, sync::Arc};

use anyhow::Context;
use links::Links;
use testbed::{Ports, wait::eventually};
use tokio::net::TcpStream;

use crate::{limits::START_DEADLINE, process::Process, topology::spec::Topology};

/// Running processes, in the order of the topology's sites. They are killed when this is dropped.
pub(super) struct Gateways {
    pub(super) links: Arc<Links>,
    /// host:port where the site's members connect.
    pub(super) addresses: Vec<String>,
    processes: Vec<Process>,
}

impl Gateways {
    pub(super) async fn start(topology: &Topology, dir: &Path, seed: u64) -> anyhow::Result<Self> {
        let links = Arc::new(topology.links(seed)?);
        let binary = testbed::find_binary("mls-gateway")?;
        let mut ports = Ports::new();
        let mut ends = Vec::new();
        for _ in &topology.sites {
            ends.push([ports.take()?, ports.take()?, ports.take()?]);
        }
        let mut gateways = Self { links, addresses: Vec::new(), processes: Vec::new() };
        for (at, [api, mesh, admin]) in ends.iter().enumerate() {
            let site = &topology.sites[at].name;
            let mut args = vec!["mesh".to_owned(), "--insecure-dev".into()];
            let mut flag = |name: &str, value: String| args.extend([name.to_owned(), value]);
            flag("--data-dir", dir.join(site).display().to_string());
            flag("--listen", api.to_string());
            flag("--mesh-listen", mesh.to_string());
            flag("--admin-listen", admin.to_string());
            for (other, [_, target, _]) in ends.iter().enumerate().filter(|(other, _)| *other != at) {
                let peer = gateways.links.open(site, &topology.sites[other].name, &target.to_string())?;
                flag("--peer", peer);
            }
            gateways.processes.push(Process::start(&binary, &args, dir.join(format!("{site}.log")))?);
            gateways.addresses.push(api.to_string());
        }
        for ([api, ..], process) in ends.iter().zip(&gateways.processes) {
            listening(*api).await.with_context(|| process.log_tail())?;
        }
        Ok(gateways)
    }

    /// The ids of all processes.
    pub(super) fn processes(&self) -> Vec<u32> {
        self.processes.iter().map(Process::id).collect()
    }
}

async fn listening(api: SocketAddr) -> anyhow::Result<()> {
    let connect = async || TcpStream::connect(api).await.ok().map(drop);
    Ok(eventually(format!("a gateway to listen at {api}"), START_DEADLINE, connect).await?)
}
