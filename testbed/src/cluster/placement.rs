//! A cluster spread over sites: every process is told by which link it reaches those of other sites.

use super::{Cluster, ClusterError, ClusterOptions};
use crate::process::Service;

impl ClusterOptions {
    pub(super) fn site_of_node(&self, id: u64) -> Result<String, ClusterError> {
        let Some(placement) = &self.placement else { return Ok(String::new()) };
        let site = usize::try_from(id - 1).ok().and_then(|index| placement.nodes.get(index));
        site.cloned().ok_or_else(|| ClusterError::NoSite(format!("node {id}")))
    }

    pub(super) fn site_of_gateway(&self, number: u64) -> Result<String, ClusterError> {
        let Some(placement) = &self.placement else { return Ok(String::new()) };
        let site = usize::try_from(number - 1).ok().and_then(|index| placement.gateways.get(index));
        site.cloned().ok_or_else(|| ClusterError::NoSite(format!("gateway {number}")))
    }
}

impl Cluster {
    /// Tells every gateway where the others are.
    pub(super) fn lay_out_relays(&self) {
        let gateways = self.gateways();
        for gateway in gateways.iter().filter(|gateway| !gateway.site().is_empty()) {
            for other in gateways.iter().filter(|other| other.address() != gateway.address()) {
                gateway.service().add_args(["--relay".to_owned(), other.relay().to_owned()]);
            }
        }
    }

    /// Tells all processes how they reach those of other sites. What is added later is not known to those that run already.
    pub(super) fn lay_out_routes(&self) -> Result<(), ClusterError> {
        let (nodes, gateways) = (self.nodes(), self.gateways());
        let mut targets = Vec::new();
        for node in &nodes {
            targets.push((node.site(), node.peer_address()));
            targets.push((node.site(), node.address()));
        }
        for gateway in &gateways {
            targets.push((gateway.site(), gateway.relay()));
        }
        for node in &nodes {
            self.route(node.service(), node.site(), &targets)?;
        }
        for gateway in &gateways {
            self.route(gateway.service(), gateway.site(), &targets)?;
        }
        Ok(())
    }

    fn route(&self, service: &Service, from: &str, targets: &[(&str, &str)]) -> Result<(), ClusterError> {
        let Some(placement) = &self.options.placement else { return Ok(()) };
        for (site, address) in targets.iter().filter(|(site, _)| *site != from) {
            let instead = placement.links.open(from, site, address)?;
            service.add_args(["--resolve".to_owned(), format!("{address}={instead}")]);
        }
        Ok(())
    }
}
