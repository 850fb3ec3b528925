//! Addresses that no other process of this machine takes, also while the process that owns them is down for a while.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    ops::Range,
};

use rand::Rng;

/// Below the range from which the kernel draws ports for outgoing connections: a restarted node finds its port free.
const PORTS: Range<u16> = 10_000..30_000;

/// Draws free ports on one loopback address.
#[derive(Debug)]
pub struct Ports {
    host: IpAddr,
    taken: BTreeSet<u16>,
}

impl Ports {
    /// None is taken yet.
    #[allow(clippy::new_without_default)] // Each draws an address of its own.
    pub fn new() -> Self {
        // On Linux all of 127.0.0.0/8 is loopback: an address of its own keeps clusters that run side by side apart.
        let mut rng = rand::rng();
        let own = Ipv4Addr::new(
            127,
            rng.random_range(1..=250),
            rng.random_range(0..=250),
            rng.random_range(2..=250),
        );
        let host = if TcpListener::bind((own, 0)).is_ok() { own } else { Ipv4Addr::LOCALHOST };
        Self { host: host.into(), taken: BTreeSet::new() }
    }

    /// A free address that this has not given before.
    ///
    /// # Errors
    /// No port is free.
    pub fn take(&mut self) -> io::Result<SocketAddr> {
        for _ in 0..PORTS.len() {
            let port = rand::rng().random_range(PORTS);
            if !self.taken.contains(&port) && TcpListener::bind((self.host, port)).is_ok() {
                self.taken.insert(port);
                return Ok(SocketAddr::new(self.host, port));
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!("no port of {PORTS:?} is free on {}", self.host),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_distinct_and_on_loopback() {
        let mut ports = Ports::new();
        let (a, b) = (ports.take().unwrap(), ports.take().unwrap());
        assert_ne!(a, b);
        assert!(a.ip().is_loopback());
    }
}
