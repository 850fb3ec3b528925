//! The connections to one other node: entries, short requests and snapshots each have their own, so that none waits for another.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use concordat_proto::raft::v1::{Hello, peers_client::PeersClient};
use parking_lot::Mutex;
use service_kit::{channel::Channel, net::SharedNetwork};
use tokio::time::{Instant, timeout};
use tonic::{Code, Status, transport::Endpoint};

use super::{
    identity::Identity,
    peer_stream::PeerStream,
    types::{NodeId, NodeInfo},
};
use crate::limits;

/// Why a peer gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PeerError {
    /// Nobody answers.
    #[error("node {node_id} at {address} can not be reached: {message}")]
    Unreachable {
        /// The peer.
        node_id: NodeId,
        /// Its address.
        address: String,
        /// What happened.
        message: String,
    },
    /// The peer, or whoever answers at its address, does not want to speak to this node.
    #[error("node {node_id} at {address} refuses this node: {message}")]
    Refused {
        /// The peer.
        node_id: NodeId,
        /// Its address.
        address: String,
        /// Its reason.
        message: String,
    },
    /// The connection broke, or the answer made no sense.
    #[error("the exchange with node {node_id} at {address} failed: {message}")]
    Broken {
        /// The peer.
        node_id: NodeId,
        /// Its address.
        address: String,
        /// What happened.
        message: String,
    },
    /// No answer in time.
    #[error("node {node_id} at {address} did not answer within {limit:?}")]
    TimedOut {
        /// The peer.
        node_id: NodeId,
        /// Its address.
        address: String,
        /// The time it had.
        limit: Duration,
    },
}

/// One other node.
pub struct Peer {
    node_id: NodeId,
    info: NodeInfo,
    identity: Arc<Identity>,
    fast: Channel,
    bulk: Channel,
    snapshots: Channel,
    stream: PeerStream,
    complaints: Complaints,
}

impl Peer {
    fn new(
        node_id: NodeId,
        info: NodeInfo,
        identity: Arc<Identity>,
        network: &SharedNetwork,
    ) -> Option<Self> {
        Some(Self {
            node_id,
            identity,
            fast: channel(&info.peer_address, network)?,
            bulk: channel(&info.peer_address, network)?,
            snapshots: channel(&info.peer_address, network)?,
            stream: PeerStream::default(),
            info,
            complaints: Complaints::default(),
        })
    }

    /// The peer's number.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// The stream that carries the entries of all shards.
    pub fn stream(&self) -> &PeerStream {
        &self.stream
    }

    /// For short requests.
    pub fn fast(&self) -> PeersClient<Channel> {
        client(self.fast.clone())
    }

    /// For the replication stream.
    pub fn bulk(&self) -> PeersClient<Channel> {
        client(self.bulk.clone())
    }

    /// For snapshots.
    pub fn snapshots(&self) -> PeersClient<Channel> {
        client(self.snapshots.clone())
    }

    /// What this node says about itself, and whom it means.
    pub fn hello(&self) -> Option<Hello> {
        Some(self.identity.hello(self.node_id, self.info.disk_id))
    }

    /// Makes one request, for at most `limit`.
    ///
    /// # Errors
    /// No answer, or a refusal; the latter is logged.
    pub async fn ask<T>(
        &self,
        limit: Duration,
        request: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, PeerError> {
        match timeout(limit, request).await {
            Ok(Ok(response)) => {
                self.complaints.over(self.node_id);
                Ok(response.into_inner())
            }
            Ok(Err(status)) => Err(self.failed(&status)),
            Err(_) => Err(PeerError::TimedOut {
                node_id: self.node_id,
                address: self.info.peer_address.clone(),
                limit,
            }),
        }
    }

    /// What a status of this peer means.
    pub fn failed(&self, status: &Status) -> PeerError {
        let (node_id, address) = (self.node_id, self.info.peer_address.clone());
        let message = status.message().to_owned();
        match status.code() {
            Code::FailedPrecondition => {
                self.complaints.complain(&message, || {
                    tracing::error!(peer = node_id, %address, "refused by a peer: {message}");
                });
                PeerError::Refused { node_id, address, message }
            }
            Code::Unavailable => PeerError::Unreachable { node_id, address, message },
            _ => PeerError::Broken { node_id, address, message },
        }
    }

    /// The peer broke the protocol.
    pub fn broken(&self, message: impl fmt::Display) -> PeerError {
        let (node_id, address) = (self.node_id, self.info.peer_address.clone());
        PeerError::Broken { node_id, address, message: message.to_string() }
    }
}

/// A channel that connects when it is first used, and again whenever the connection broke. None if the address is none.
pub fn channel(address: &str, network: &SharedNetwork) -> Option<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .ok()?
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(16 << 20)
        .http2_keep_alive_interval(limits::KEEPALIVE_INTERVAL)
        .keep_alive_timeout(limits::KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    Some(Channel::lazy(&endpoint, network.clone()))
}

/// A client whose messages are bounded.
pub fn client(channel: Channel) -> PeersClient<Channel> {
    PeersClient::new(channel)
        .max_decoding_message_size(limits::PEER_MESSAGE_BYTES)
        .max_encoding_message_size(limits::PEER_MESSAGE_BYTES)
}

/// All other nodes that were spoken to.
pub struct Peers {
    identity: Arc<Identity>,
    network: SharedNetwork,
    known: Mutex<HashMap<NodeId, Arc<Peer>>>,
}

impl Peers {
    /// Nobody yet.
    pub fn new(identity: Arc<Identity>, network: SharedNetwork) -> Self {
        Self { identity, network, known: Mutex::default() }
    }

    /// This node.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// How peers are dialed.
    pub fn network(&self) -> &SharedNetwork {
        &self.network
    }

    /// The peer, at the address and with the disk that `info` names. None if its address is not usable.
    pub fn get(&self, node_id: NodeId, info: &NodeInfo) -> Option<Arc<Peer>> {
        let mut known = self.known.lock();
        if let Some(peer) = known.get(&node_id).filter(|peer| peer.info == *info) {
            return Some(peer.clone());
        }
        let Some(peer) = Peer::new(node_id, info.clone(), self.identity.clone(), &self.network) else {
            tracing::error!(peer = node_id, address = %info.peer_address, "the peer address is not host:port");
            return None;
        };
        let peer = Arc::new(peer);
        known.insert(node_id, peer.clone());
        Some(peer)
    }
}

/// Keeps a complaint that repeats out of the log.
#[derive(Default)]
pub struct Complaints {
    last: Mutex<Option<(String, Instant)>>,
    standing: AtomicBool,
}

impl Complaints {
    /// Runs `log` unless the same was complained about a short while ago.
    pub fn complain(&self, what: &str, log: impl FnOnce()) {
        self.standing.store(true, Ordering::Relaxed);
        let mut last = self.last.lock();
        let now = Instant::now();
        let fresh = |at: &Instant| now.duration_since(*at) < limits::COMPLAINT_INTERVAL;
        if !last.as_ref().is_some_and(|(said, at)| said == what && fresh(at)) {
            *last = Some((what.to_owned(), now));
            log();
        }
    }

    fn over(&self, node_id: NodeId) {
        if self.standing.load(Ordering::Relaxed) && self.standing.swap(false, Ordering::Relaxed) {
            tracing::info!(peer = node_id, "the peer accepts this node again");
            *self.last.lock() = None;
        }
    }
}
