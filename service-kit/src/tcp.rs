//! TCP of the operating system behind [`crate::net::Network`].

use std::io;

use futures::{FutureExt, future::BoxFuture, stream};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream, lookup_host},
    time::{sleep, timeout},
};

use crate::{
    limits::{ACCEPT_BACKOFF, CONNECT_TIMEOUT, LISTEN_BACKLOG},
    linger::Lingering,
    net::{Incoming, Io, Network},
};

#[derive(Debug)]
pub(crate) struct TcpNetwork;

impl Network for TcpNetwork {
    fn dial(&self, address: String) -> BoxFuture<'static, io::Result<Io>> {
        async move {
            let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(&address))
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                .map_err(|error| named(&error, "cannot connect to", &address))?;
            stream.set_nodelay(true)?;
            let peer = stream.peer_addr().ok();
            Ok(Io::new(stream, peer))
        }
        .boxed()
    }

    fn listen(&self, address: String) -> BoxFuture<'static, io::Result<Incoming>> {
        async move {
            let listener =
                bind(&address).await.map_err(|error| named(&error, "cannot listen on", &address))?;
            let local = listener.local_addr()?;
            Ok(Incoming::new(
                local,
                stream::unfold(listener, |listener| async { Some((accept(&listener).await, listener)) }),
            ))
        }
        .boxed()
    }
}

async fn bind(address: &str) -> io::Result<TcpListener> {
    let resolved = lookup_host(address)
        .await?
        .next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))?;
    let socket = if resolved.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted process takes its port back at once, although old connections linger in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(resolved)?;
    socket.listen(LISTEN_BACKLOG)
}

async fn accept(listener: &TcpListener) -> Io {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Fails only on a connection that is already dead; reading it will tell.
                let _ = stream.set_nodelay(true);
                return Io::new(Lingering::new(stream), Some(peer));
            }
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections; raise the limit of open files if this goes on");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn named(error: &io::Error, what: &str, address: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {address}: {error}"))
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn bytes_reach_the_other_side_and_the_peer_is_known() {
        let mut incoming = TcpNetwork.listen("127.0.0.1:0".into()).await.unwrap();
        let mut client = TcpNetwork.dial(incoming.local_addr().to_string()).await.unwrap();
        let mut server = incoming.next().await.unwrap().unwrap();
        client.write_all(b"hello").await.unwrap();
        let mut got = [0; 5];
        server.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"hello");
        assert_eq!(client.peer(), Some(incoming.local_addr()));
        assert!(server.peer().is_some());
    }

    #[tokio::test]
    async fn errors_name_the_address() {
        let incoming = TcpNetwork.listen("127.0.0.1:0".into()).await.unwrap();
        let address = incoming.local_addr().to_string();
        let error = TcpNetwork.listen(address.clone()).await.unwrap_err();
        assert!(error.to_string().contains(&address), "{error}");
        drop(incoming);
        let error = TcpNetwork.dial(address.clone()).await.unwrap_err();
        assert!(error.to_string().contains(&address), "{error}");
    }
}
