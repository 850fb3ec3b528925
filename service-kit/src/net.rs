//! The network, passed in. Servers take an [`Incoming`], clients a [`Connector`]; both are type-erased, so that no service is generic
//! over its network. A simulation supplies its own [`Network`].
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use service_kit::net::{Connector, tcp_network};
//! let network = tcp_network();
//! let incoming = network.listen("127.0.0.1:7000".to_owned()).await?;
//! // tonic::transport::Server::builder().add_service(..).serve_with_incoming(incoming)
//! let endpoint = tonic::transport::Endpoint::from_static("http://127.0.0.1:7000");
//! let channel = endpoint.connect_with_connector_lazy(Connector::new(network));
//! # Ok(()) }
//! ```

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::serve::Listener;
use futures::{Stream, StreamExt, future::BoxFuture, stream::BoxStream};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};
use tonic::transport::{Uri, server::Connected};

use crate::{limits::CONNECTION_AGE_SECONDS, tcp::TcpNetwork, tls::PeerIdentity};

/// Everything that a service needs of the network.
pub trait Network: Send + Sync + 'static {
    /// Opens a connection to `address` (`host:port`).
    fn dial(&self, address: String) -> BoxFuture<'static, io::Result<Io>>;

    /// Binds `address` (`host:port`; port 0 takes a free one).
    fn listen(&self, address: String) -> BoxFuture<'static, io::Result<Incoming>>;
}

/// A network that many parts of a process hold.
pub type SharedNetwork = Arc<dyn Network>;

/// TCP of the operating system, without Nagle's delay.
pub fn tcp_network() -> SharedNetwork {
    Arc::new(TcpNetwork)
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Duplex for T {}

/// One open connection.
pub struct Io {
    stream: Box<dyn Duplex>,
    peer: Option<SocketAddr>,
    identity: Option<Arc<PeerIdentity>>,
    /// When it breaks by itself.
    end: Option<Pin<Box<Sleep>>>,
}

impl Io {
    /// A connection over `stream` with `peer`, if the peer has an address.
    pub fn new(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        peer: Option<SocketAddr>,
    ) -> Self {
        Self { stream: Box::new(stream), peer, identity: None, end: None }
    }

    /// The same connection, and whom the other side's certificate stands for.
    #[must_use]
    pub fn with_identity(self, identity: Option<PeerIdentity>) -> Self {
        Self { identity: identity.map(Arc::new), ..self }
    }

    /// The same connection, which breaks after `left`, whatever goes on over it. Needs a tokio runtime.
    #[must_use]
    pub fn ending_after(self, left: Duration) -> Self {
        Self { end: Some(Box::pin(sleep(left))), ..self }
    }

    /// Whom the other side's certificate stands for, if it has shown one.
    pub fn identity(&self) -> Option<&PeerIdentity> {
        self.identity.as_deref()
    }

    /// Who is on the other side.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }
}

impl fmt::Debug for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Io").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Whoever serves a connection always waits for something to read.
        if let Some(end) = &mut self.end
            && end.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the connection's time is over",
            )));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// What a request's extensions tell about its connection.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    /// The other side's address, if it has one.
    pub address: Option<SocketAddr>,
    /// Whom the other side's certificate stands for, if it has shown one.
    pub identity: Option<Arc<PeerIdentity>>,
}

impl Connected for Io {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        PeerInfo { address: self.peer, identity: self.identity.clone() }
    }
}

/// The dialing half of a network, in the form that tonic takes (`Endpoint::connect_with_connector` and `.._lazy`).
#[derive(Clone)]
pub struct Connector {
    network: SharedNetwork,
}

impl Connector {
    /// Dials through `network`.
    pub fn new(network: SharedNetwork) -> Self {
        Self { network }
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Io>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<TokioIo<Io>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let network = Arc::clone(&self.network);
        Box::pin(async move {
            let authority = uri.authority().ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidInput, format!("expected http://host:port, got `{uri}`"))
            })?;
            network.dial(authority.to_string()).await.map(TokioIo::new)
        })
    }
}

/// The listening half: a stream of connections, in the form that tonic takes (`serve_with_incoming`) and axum's `serve`.
pub struct Incoming {
    local: SocketAddr,
    connections: BoxStream<'static, Io>,
    connection_age: Duration,
}

impl Incoming {
    /// Connections that come in at `local`. The stream deals with its own errors, and ends only if the listener is gone for good.
    pub fn new(local: SocketAddr, connections: impl Stream<Item = Io> + Send + 'static) -> Self {
        let connection_age = Duration::from_secs(CONNECTION_AGE_SECONDS);
        Self { local, connections: connections.boxed(), connection_age }
    }

    /// The same, with connections that are to be made anew after `age`.
    #[must_use]
    pub fn with_connection_age(self, age: Duration) -> Self {
        Self { connection_age: age, ..self }
    }

    /// After how long whoever serves this has to ask for a new connection, so that certificates are shown again.
    pub fn connection_age(&self) -> Duration {
        self.connection_age
    }

    /// The address that is bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("local", &self.local).finish_non_exhaustive()
    }
}

impl Stream for Incoming {
    type Item = io::Result<Io>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.connections.poll_next_unpin(cx).map(|next| next.map(Ok))
    }
}

impl Listener for Incoming {
    type Io = Io;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Io, SocketAddr) {
        match self.connections.next().await {
            Some(io) => {
                let peer = io.peer.unwrap_or(self.local);
                (io, peer)
            }
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}
