//! The two kinds of processes of a cluster.

use std::path::{Path, PathBuf};

use concordat_proto::ordering::v1::NodeAddress;
use service_kit::tls::Role;

use super::{AdminClient, Certificates, CertificatesError, ClusterError, ClusterOptions, Dialer};
use crate::{
    ports::Ports,
    process::{Service, Spec},
};

/// What a process is laid out on.
pub(super) struct Ground<'a> {
    pub(super) binary: &'a Path,
    /// The folder of the cluster.
    pub(super) dir: &'a Path,
    pub(super) options: &'a ClusterOptions,
    /// Absent: everything is plaintext.
    pub(super) certificates: Option<&'a Certificates>,
}

impl Ground<'_> {
    /// The arguments by which a process that listens at `address` is secured, or said not to be.
    fn security(&self, role: Role, address: &str) -> Result<Vec<String>, CertificatesError> {
        let Some(certificates) = self.certificates else { return Ok(strings(["--insecure-dev"])) };
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        certificates.arguments(role, host)
    }

    fn operator(&self) -> Result<Dialer, CertificatesError> {
        match self.certificates {
            Some(certificates) => certificates.dialer(&Role::Operator("testbed".into())),
            None => Ok(Dialer::plaintext()),
        }
    }

    fn service(&self, name: String, admin: String, args: Vec<String>) -> Service {
        Service::new(Spec {
            log: self.dir.join(format!("{name}.log")),
            name,
            binary: self.binary.to_owned(),
            args,
            env: self.options.env.clone(),
            admin,
        })
    }
}

/// One `ordering-service` process.
#[derive(Debug)]
pub struct Node {
    id: u64,
    address: String,
    peer_address: String,
    site: String,
    data_dir: PathBuf,
    operator: Dialer,
    service: Service,
}

impl Node {
    pub(super) fn lay_out(
        id: u64,
        site: String,
        ground: &Ground<'_>,
        ports: &mut Ports,
    ) -> Result<Self, ClusterError> {
        let [address, peer_address, admin] =
            [ports.take()?, ports.take()?, ports.take()?].map(|a| a.to_string());
        let name = format!("node-{id}");
        let data_dir = ground.dir.join(&name);
        let mut args = strings(["serve", "--node-id", &id.to_string()]);
        args.extend(ground.security(Role::Node(Some(id)), &address)?);
        args.extend(strings([
            "--data-dir",
            &data_dir.to_string_lossy(),
            "--listen",
            &address,
            "--peer-listen",
            &peer_address,
            "--admin-listen",
            &admin,
        ]));
        args.extend(ground.options.node_args.iter().cloned());
        let service = ground.service(name, admin, args);
        let operator = ground.operator()?;
        Ok(Self { id, address, peer_address, site, data_dir, operator, service })
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
        AdminClient::new(&self.address, &self.operator)
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
        ordering: &[String],
        ground: &Ground<'_>,
        ports: &mut Ports,
    ) -> Result<Self, ClusterError> {
        let [address, admin, relay] = [ports.take()?, ports.take()?, ports.take()?].map(|a| a.to_string());
        let name = format!("gateway-{number}");
        let mut args = strings(["serve", "--listen", &address, "--admin-listen", &admin]);
        args.extend(ground.security(Role::Gateway(number.to_string()), &address)?);
        // Only where the network can split do gateways keep branches.
        if !site.is_empty() {
            args.extend(strings(["--site", &site]));
            let data_dir = ground.dir.join(&name);
            args.extend(strings(["--relay-listen", &relay, "--data-dir", &data_dir.to_string_lossy()]));
        }
        for node in ordering {
            args.extend(strings(["--ordering", node]));
        }
        args.extend(ground.options.gateway_args.iter().cloned());
        let service = ground.service(name, admin, args);
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
