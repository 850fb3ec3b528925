//! A network on which everything is encrypted, over another one.

use std::{io, path::Path, sync::Arc};

use futures::{FutureExt, StreamExt, future::BoxFuture};
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, ServerName},
};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::task::AbortOnDropHandle;

use super::{
    config,
    credentials::Credentials,
    error::TlsError,
    identity::{PeerIdentity, RoleKind},
    metrics,
};
use crate::{
    limits::{HANDSHAKE_TIMEOUT, HANDSHAKES_MAX},
    net::{Incoming, Io, Network, SharedNetwork},
};

/// What those who connect have to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientProof {
    /// A certificate of the CA; without one the handshake fails.
    Certificate,
    /// A certificate of the CA or none: then something in the requests must say who it is.
    CertificateOrToken,
}

/// TLS over another network: with certificates both ways when it dials, and as `proof` says when it listens.
pub struct TlsNetwork {
    inner: SharedNetwork,
    credentials: Credentials,
    /// What those that are dialed have to be, in one's own trust domain, beside being the host that was dialed.
    servers: Option<RoleKind>,
    proof: ClientProof,
}

impl TlsNetwork {
    /// Dials servers of the role `servers` in one's own trust domain, and listens for whoever shows `proof`.
    pub fn over(
        inner: SharedNetwork,
        credentials: Credentials,
        servers: RoleKind,
        proof: ClientProof,
    ) -> SharedNetwork {
        Arc::new(Self { inner, credentials, servers: Some(servers), proof })
    }

    /// For clients of public servers: shows the credentials' certificate, and takes any server of their CAs that is the host that
    /// was dialed.
    pub fn public_client(inner: SharedNetwork, credentials: Credentials) -> SharedNetwork {
        Arc::new(Self { inner, credentials, servers: None, proof: ClientProof::Certificate })
    }
}

impl Network for TlsNetwork {
    fn dial(&self, address: String) -> BoxFuture<'static, io::Result<Io>> {
        let (raw, current, servers) =
            (self.inner.dial(address.clone()), self.credentials.now(), self.servers);
        async move {
            let io = connect(raw.await?, &address, Arc::clone(&current.client)).await?;
            let Some(servers) = servers else { return Ok(io) };
            let own = current.identity.as_ref().map(|own| own.domain.as_str());
            let is_right =
                io.identity().is_some_and(|i| i.role.kind() == servers && Some(i.domain.as_str()) == own);
            if is_right { Ok(io) } else { Err(wrong_server(&address, servers, io.identity())) }
        }
        .boxed()
    }

    fn listen(&self, address: String) -> BoxFuture<'static, io::Result<Incoming>> {
        let (raw, credentials, proof) = (self.inner.listen(address), self.credentials.clone(), self.proof);
        async move {
            let raw = raw.await?;
            let local = raw.local_addr();
            let age = credentials.connection_age();
            let connections = raw
                .filter_map(async |io| io.ok())
                .map(move |io| {
                    // On tasks of their own: who is slow to shake hands holds up nobody.
                    AbortOnDropHandle::new(tokio::spawn(accept(io, credentials.clone(), proof)))
                })
                .buffer_unordered(HANDSHAKES_MAX)
                .filter_map(async |accepted| accepted.ok().flatten());
            Ok(Incoming::new(local, connections).with_connection_age(age))
        }
        .boxed()
    }
}

/// A network for clients of public servers: TLS towards servers of the CAs in `ca` (a PEM file), or of those that the system trusts.
///
/// # Errors
/// The file cannot be used.
pub fn public_client_network(inner: SharedNetwork, ca: Option<&Path>) -> Result<SharedNetwork, TlsError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|source| TlsError::Read {
            what: "CA file",
            path: path.to_owned(),
            source,
        })
    };
    let bytes = ca.map(read).transpose()?;
    let config = config::anonymous_client(ca.zip(bytes.as_deref()))?;
    Ok(Arc::new(PublicClient { inner, config: Arc::new(config) }))
}

struct PublicClient {
    inner: SharedNetwork,
    config: Arc<ClientConfig>,
}

impl Network for PublicClient {
    fn dial(&self, address: String) -> BoxFuture<'static, io::Result<Io>> {
        let (raw, config) = (self.inner.dial(address.clone()), Arc::clone(&self.config));
        async move { connect(raw.await?, &address, config).await }.boxed()
    }

    fn listen(&self, _: String) -> BoxFuture<'static, io::Result<Incoming>> {
        let error = io::Error::new(io::ErrorKind::Unsupported, "a client's network does not listen");
        async move { Err(error) }.boxed()
    }
}

async fn connect(io: Io, address: &str, config: Arc<ClientConfig>) -> io::Result<Io> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("`{host}` is no name that a certificate can be for"),
        )
    })?;
    let peer = io.peer();
    let stream = timeout(HANDSHAKE_TIMEOUT, TlsConnector::from(config).connect(name, io))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|error| io::Error::new(error.kind(), format!("no TLS with {address}: {error}")))?;
    let identity = identity(stream.get_ref().1.peer_certificates());
    Ok(Io::new(stream, peer).with_identity(identity.map_err(io::Error::other)?))
}

async fn accept(io: Io, credentials: Credentials, proof: ClientProof) -> Option<Io> {
    let (peer, current) = (io.peer(), credentials.now());
    let config = match proof {
        ClientProof::Certificate => Arc::clone(&current.proven),
        ClientProof::CertificateOrToken => Arc::clone(&current.open),
    };
    let stream = match timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(io)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            metrics::handshake("refused");
            tracing::debug!(?peer, %error, "a connection was refused");
            return None;
        }
        Err(_) => {
            metrics::handshake("timeout");
            return None;
        }
    };
    match identity(stream.get_ref().1.peer_certificates()) {
        Ok(identity) => {
            metrics::handshake("done");
            let ends = identity.as_ref().map(|identity| identity.expires_at.min(current.expires_at));
            let io = Io::new(stream, peer).with_identity(identity);
            Some(match (proof, ends) {
                // Streams between servers have no end: the certificates that made a connection decide how long it may last.
                (ClientProof::Certificate, Some(ends)) => io.ending_after(credentials.left(ends)),
                // Whoever serves clients ends their streams itself, and says why.
                _ => io,
            })
        }
        Err(error) => {
            metrics::handshake("refused");
            tracing::warn!(?peer, %error, "a connection was refused: its certificate does not say whom it stands for");
            None
        }
    }
}

fn identity(
    chain: Option<&[CertificateDer<'_>]>,
) -> Result<Option<PeerIdentity>, super::identity::IdentityError> {
    chain.and_then(<[_]>::first).map_or(Ok(None), |first| PeerIdentity::of_certificate(first))
}

fn wrong_server(address: &str, expected: RoleKind, got: Option<&PeerIdentity>) -> io::Error {
    let got = got.map_or_else(|| "nobody".to_owned(), PeerIdentity::to_string);
    let message = format!(
        "the server at {address} must be a {} of this trust domain, its certificate is for {got}: check the address",
        expected.name()
    );
    io::Error::new(io::ErrorKind::PermissionDenied, message)
}
