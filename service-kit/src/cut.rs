//! A network in which connections to some addresses can be cut, and mended again: for tests in one process. Between processes the crate
//! `links` does the same.

use std::{collections::BTreeSet, io, sync::Arc};

use futures::future::BoxFuture;
use tokio::{io::copy_bidirectional, sync::watch};

use crate::net::{Incoming, Io, Network, SharedNetwork, tcp_network};

/// Bytes that are under way in one direction of a connection.
const PIPE_BYTES: usize = 256 * 1024;

/// One party's side of the network.
#[derive(Clone)]
pub struct CutNetwork {
    inner: SharedNetwork,
    cut: watch::Sender<BTreeSet<String>>,
}

impl CutNetwork {
    /// TCP, with nothing cut.
    pub fn new() -> Self {
        Self { inner: tcp_network(), cut: watch::Sender::new(BTreeSet::new()) }
    }

    /// For whoever is to live in it. What is cut here is cut there.
    pub fn shared(&self) -> SharedNetwork {
        Arc::new(self.clone())
    }

    /// Connections to exactly these addresses (`host:port`, as they are dialed) are cut from now on, and no others.
    pub fn cut(&self, addresses: impl IntoIterator<Item = String>) {
        self.cut.send_replace(addresses.into_iter().collect());
    }
}

impl Default for CutNetwork {
    fn default() -> Self {
        Self::new()
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
            let (near, mut middle) = tokio::io::duplex(PIPE_BYTES);
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_is_cut_ends_at_once_and_can_not_be_dialed_until_it_is_mended() -> io::Result<()> {
        let network = CutNetwork::new();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let shared = network.shared();
        let mut near = shared.dial(address.clone()).await?;
        let (mut far, _) = listener.accept().await?;
        near.write_all(b"x").await?;
        assert_eq!(far.read_u8().await?, b'x');

        network.cut([address.clone()]);
        assert_eq!(near.read(&mut [0; 1]).await?, 0, "the connection has ended");
        let refused = shared.dial(address.clone()).await.map(drop);
        assert_eq!(refused.map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionRefused));
        network.cut([]);
        shared.dial(address).await.map(drop)
    }
}
