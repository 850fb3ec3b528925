//! Other ways to addresses that are fixed elsewhere.
//!
//! The membership holds one address per node, the same for everybody. Where a process must reach it in another way (a forwarded port,
//! an emulated link), it is told so by pairs `ADDRESS=INSTEAD`, as `curl --connect-to` has them. Everything else stays as it is: what
//! is advertised, and the name that a certificate is checked for.

use std::{collections::BTreeMap, io, str::FromStr, sync::Arc};

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::net::{Incoming, Io, Network, SharedNetwork};

/// Whoever dials `address` is connected to `instead`. Both are host:port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Route {
    /// As it is known to everybody. Compared as text.
    pub address: String,
    /// Where this process connects to.
    pub instead: String,
}

/// The text of a [`Route`] cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected ADDRESS=INSTEAD, both host:port, such as node-2.example:7200=127.0.0.1:17200; got {0:?}")]
pub struct RouteError(String);

impl FromStr for Route {
    type Err = RouteError;

    fn from_str(text: &str) -> Result<Self, RouteError> {
        let (address, instead) = text.split_once('=').ok_or_else(|| RouteError(text.to_owned()))?;
        if ![address, instead].into_iter().all(is_host_port) {
            return Err(RouteError(text.to_owned()));
        }
        Ok(Self { address: address.to_owned(), instead: instead.to_owned() })
    }
}

impl TryFrom<String> for Route {
    type Error = RouteError;

    fn try_from(text: String) -> Result<Self, RouteError> {
        text.parse()
    }
}

impl From<Route> for String {
    fn from(route: Route) -> Self {
        format!("{}={}", route.address, route.instead)
    }
}

fn is_host_port(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0))
}

/// `network`, in which some addresses are reached in another way. If an address is named twice, the last route holds.
pub fn routed(network: SharedNetwork, routes: impl IntoIterator<Item = Route>) -> SharedNetwork {
    let routes: BTreeMap<_, _> = routes.into_iter().map(|route| (route.address, route.instead)).collect();
    if routes.is_empty() { network } else { Arc::new(Routed { network, routes }) }
}

struct Routed {
    network: SharedNetwork,
    routes: BTreeMap<String, String>,
}

impl Network for Routed {
    fn dial(&self, address: String) -> BoxFuture<'static, io::Result<Io>> {
        self.network.dial(self.routes.get(&address).cloned().unwrap_or(address))
    }

    fn listen(&self, address: String) -> BoxFuture<'static, io::Result<Incoming>> {
        self.network.listen(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::tcp_network;

    #[test]
    fn routes_are_read_as_documented() {
        let route: Route = "node-2:7200=127.0.0.1:17200".parse().unwrap();
        assert_eq!((route.address.as_str(), route.instead.as_str()), ("node-2:7200", "127.0.0.1:17200"));
        assert_eq!(Route::try_from(String::from(route.clone())), Ok(route));
        assert!("[::1]:7200=[::1]:1".parse::<Route>().is_ok());
        for bad in ["", "a:1", "a:1=", "=b:1", "a=b:1", "a:1=b", "a:1=b:0", "a:1=b:99999", ":1=b:2"] {
            let error = bad.parse::<Route>().unwrap_err();
            assert!(error.to_string().contains(&format!("{bad:?}")), "{error}");
        }
    }

    #[tokio::test]
    async fn only_routed_addresses_are_reached_in_another_way() {
        let there = tcp_network().listen("127.0.0.1:0".into()).await.unwrap();
        let other = tcp_network().listen("127.0.0.1:0".into()).await.unwrap();
        let address = "nowhere.invalid:7200".to_owned();
        let route = Route { address: address.clone(), instead: there.local_addr().to_string() };
        let network = routed(tcp_network(), [route]);
        assert_eq!(network.dial(address).await.unwrap().peer(), Some(there.local_addr()));
        let plain = other.local_addr().to_string();
        assert_eq!(network.dial(plain).await.unwrap().peer(), Some(other.local_addr()));
    }
}
