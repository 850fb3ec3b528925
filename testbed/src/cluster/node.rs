//! The two kinds of processes of a cluster.

use std::{
    io,
    path::{Path, PathBuf},
};

use concordat_proto::ordering::v1::NodeAddress;

use super::{AdminClient, ClusterOptions};
use crate::{
    ports::Ports,
    process::{Service, Spec},
};

/// One `ordering-service` process.
#[derive(Debug)]
pub struct Node {
    id: u64,
    address: String,
    peer_address: String,
    site: String,
    data_dir: PathBuf,
    service: Service,
}

impl Node {
    pub(super) fn lay_out(
        id: u64,
        site: String,
        binary: &Path,
        dir: &Path,
        ports: &mut Ports,
        options: &ClusterOptions,
    ) -> io::Result<Self> {
        let [address, peer_address, admin] =
            [ports.take()?, ports.take()?, ports.take()?].map(|a| a.to_string());
        let name = format!("node-{id}");
        let data_dir = dir.join(&name);
        let mut args = strings([
            "serve",
            "--insecure-dev",
            "--node-id",
            &id.to_string(),
            "--data-dir",
            &data_dir.to_string_lossy(),
        ]);
        args.extend(strings([
            "--listen",
            &address,
            "--peer-listen",
            &peer_address,
            "--admin-listen",
            &admin,
        ]));
        args.extend(options.node_args.iter().cloned());
        let service = Service::new(Spec {
            log: dir.join(format!("{name}.log")),
            name,
            binary: binary.to_owned(),
            args,
            env: options.env.clone(),
            admin,
        });
        Ok(Self { id, address, peer_address, site, data_dir, service })
    }

    /// Its id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// host:port of its ordering API.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// host:port where other nodes connect.
    pub fn peer_address(&self) -> &str {
        &self.peer_address
    }

    /// The name of its site; empty if the cluster has none.
    pub fn site(&self) -> &str {
        &self.site
    }

    /// Its data folder.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Its process.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// A client of its administrative API.
    pub fn admin(&self) -> AdminClient {
        AdminClient::new(&self.address)
    }

    /// Its addresses, as the administrative API takes them.
    pub fn wire_address(&self) -> NodeAddress {
        NodeAddress {
            node_id: self.id,
            peer_address: self.peer_address.clone(),
            address: self.address.clone(),
            site: self.site.clone(),
        }
    }
}

/// One `mls-gateway` process.
#[derive(Debug)]
pub struct Gateway {
    address: String,
    relay: String,
    site: String,
    service: Service,
}

impl Gateway {
    pub(super) fn lay_out(
        number: u64,
        site: String,
        binary: &Path,
        dir: &Path,
        ports: &mut Ports,
        ordering: &[String],
        options: &ClusterOptions,
    ) -> io::Result<Self> {
        let [address, admin, relay] = [ports.take()?, ports.take()?, ports.take()?].map(|a| a.to_string());
        let name = format!("gateway-{number}");
        let mut args = strings(["serve", "--insecure-dev", "--listen", &address, "--admin-listen", &admin]);
        // Only where the network can split do gateways keep branches.
        if !site.is_empty() {
            args.extend(strings(["--site", &site]));
            let data_dir = dir.join(&name);
            args.extend(strings(["--relay-listen", &relay, "--data-dir", &data_dir.to_string_lossy()]));
        }
        for node in ordering {
            args.extend(strings(["--ordering", node]));
        }
        args.extend(options.gateway_args.iter().cloned());
        let service = Service::new(Spec {
            log: dir.join(format!("{name}.log")),
            name,
            binary: binary.to_owned(),
            args,
            env: options.env.clone(),
            admin,
        });
        Ok(Self { address, relay, site, service })
    }

    /// The name of its site; empty if the cluster has none.
    pub fn site(&self) -> &str {
        &self.site
    }

    /// host:port of its API.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// host:port where other gateways connect.
    pub fn relay(&self) -> &str {
        &self.relay
    }

    /// Its process.
    pub fn service(&self) -> &Service {
        &self.service
    }
}

fn strings<const N: usize>(args: [&str; N]) -> Vec<String> {
    args.map(str::to_owned).to_vec()
}
