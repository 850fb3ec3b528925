//! A network in which connections to some addresses can be cut, and mended again.

use std::{collections::BTreeSet, io, sync::Arc};

use futures::future::BoxFuture;
use service_kit::net::{Incoming, Io, Network, SharedNetwork, tcp_network};
use tokio::{io::copy_bidirectional, sync::watch};

/// One party's side of the network.
#[derive(Clone)]
pub struct CutNetwork {
    inner: SharedNetwork,
    cut: watch::Sender<BTreeSet<String>>,
}

impl CutNetwork {
    pub fn new() -> Self {
        Self { inner: tcp_network(), cut: watch::Sender::new(BTreeSet::new()) }
    }

    pub fn shared(&self) -> SharedNetwork {
        Arc::new(self.clone())
    }

    /// Connections to exactly these addresses are cut from now on.
    pub fn cut(&self, addresses: impl IntoIterator<Item = String>) {
        self.cut.send_replace(addresses.into_iter().collect());
    }
}

impl Network for CutNetwork {
    fn dial(&self, address: String) -> BoxFuture<'static, io::Result<Io>> {
        let (inner, mut cut) = (Arc::clone(&self.inner), self.cut.subscribe());
        Box::pin(async move {
            if cut.borrow().contains(&address) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let mut far = inner.dial(address.clone()).await?;
            let (near, mut middle) = tokio::io::duplex(256 * 1024);
            tokio::spawn(async move {
                tokio::select! {
                    _ = copy_bidirectional(&mut middle, &mut far) => {}
                    _ = cut.wait_for(|cut| cut.contains(&address)) => {}
                }
            });
            Ok(Io::new(near, None))
        })
    }

    fn listen(&self, address: String) -> BoxFuture<'static, io::Result<Incoming>> {
        self.inner.listen(address)
    }
}
