//! Connections to every ordering node that is known.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use concordat_proto::ordering::v1::{WatchQuorumRequest, ordering_client::OrderingClient};
use group_log::fork::GatewayId;
use parking_lot::Mutex;
use service_kit::{channel::Channel, net::SharedNetwork};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Endpoint;

use super::{
    distance::{self, Distance},
    quorum::QuorumBoard,
    submit_stream::SubmitQueue,
};
use crate::limits::{
    CLUSTER_CONNECTION_WINDOW, CLUSTER_MESSAGE_BYTES_MAX, CLUSTER_STREAM_WINDOW, CONNECT_TIMEOUT,
    KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, NODES_MAX, QUORUM_REPORT_TTL, RECONNECT_PAUSE,
};

/// A client of one node's ordering API.
pub(crate) type NodeClient = OrderingClient<Channel>;

/// One ordering node.
pub struct Node {
    /// host:port of its ordering API.
    pub address: String,
    /// For reads and streams; cheap to clone.
    pub client: NodeClient,
    pub(super) submissions: SubmitQueue,
    distance: Arc<Distance>,
    _tasks: [AbortOnDropHandle<()>; 3],
}

/// All nodes that are known, at most [`NODES_MAX`].
pub struct Pool {
    network: SharedNetwork,
    board: Arc<QuorumBoard>,
    /// Who listens to the nodes, if it is a gateway that may hold branches.
    gateway: Option<GatewayId>,
    /// Where the gateway stands; empty if it does not say.
    site: Arc<str>,
    nodes: Mutex<BTreeMap<String, Arc<Node>>>,
    /// The node that reads ask first of those that are equally near: the last one that answered.
    preferred: AtomicUsize,
}

impl Pool {
    /// An empty pool that connects through `network` and reports to `board`, of a gateway at `site`.
    pub fn new(
        network: SharedNetwork,
        board: Arc<QuorumBoard>,
        gateway: Option<GatewayId>,
        site: &str,
    ) -> Arc<Self> {
        let (nodes, preferred) = (Mutex::default(), AtomicUsize::new(0));
        Arc::new(Self { network, board, gateway, site: site.into(), nodes, preferred })
    }

    /// What the nodes say about their quorum.
    pub fn board(&self) -> &Arc<QuorumBoard> {
        &self.board
    }

    /// The node at `address` (`host:port`), connected on first use. Nothing if the address is not one or the pool is full.
    pub fn node(self: &Arc<Self>, address: &str) -> Option<Arc<Node>> {
        let mut nodes = self.nodes.lock();
        if let Some(node) = nodes.get(address) {
            return Some(Arc::clone(node));
        }
        if nodes.len() >= NODES_MAX {
            tracing::warn!(address, limit = NODES_MAX, "a node is ignored: too many are known");
            return None;
        }
        let client = match self.open(address) {
            Ok(client) => client,
            Err(error) => {
                tracing::warn!(address, %error, "a node is ignored: its address is not usable; expected host:port");
                return None;
            }
        };
        let (submissions, submit_task) =
            SubmitQueue::start(address.to_owned(), client.clone(), Arc::clone(&self.site));
        let watching = watch_quorum(Arc::downgrade(self), address.to_owned(), client.clone(), self.gateway);
        let watch_task = tokio::spawn(watching);
        let distance = Arc::default();
        let measure_task = tokio::spawn(distance::measure(Arc::clone(&distance), client.clone()));
        let node = Arc::new(Node {
            address: address.to_owned(),
            client,
            submissions,
            distance,
            _tasks: [submit_task, AbortOnDropHandle::new(watch_task), AbortOnDropHandle::new(measure_task)],
        });
        nodes.insert(address.to_owned(), Arc::clone(&node));
        Some(node)
    }

    /// Every node, those in touch with a quorum first, among them the nearest, and of those that are equally near the one that answered
    /// last.
    pub fn by_preference(&self) -> Vec<Arc<Node>> {
        let mut nodes: Vec<Arc<Node>> = self.nodes.lock().values().cloned().collect();
        if nodes.is_empty() {
            return nodes;
        }
        let first = self.preferred.load(Ordering::Relaxed) % nodes.len();
        nodes.rotate_left(first);
        let now = Instant::now();
        nodes.sort_by_key(|node| (!self.board.is_current(&node.address, now), node.distance.rank()));
        nodes
    }

    /// Whether another node that is in touch with a quorum is so much nearer than this one that it should be followed instead.
    pub(super) fn has_nearer(&self, node: &Node) -> bool {
        let first = self.by_preference().into_iter().next();
        first.is_some_and(|first| {
            first.distance.is_well_below(&node.distance)
                && self.board.is_current(&first.address, Instant::now())
        })
    }

    /// Reads go to this node first from now on.
    pub fn prefer(&self, address: &str) {
        if let Some(at) = self.nodes.lock().keys().position(|a| a == address) {
            self.preferred.store(at, Ordering::Relaxed);
        }
    }

    fn open(&self, address: &str) -> Result<NodeClient, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(CLUSTER_STREAM_WINDOW)
            .initial_connection_window_size(CLUSTER_CONNECTION_WINDOW);
        Ok(OrderingClient::new(Channel::lazy(&endpoint, Arc::clone(&self.network)))
            .max_decoding_message_size(CLUSTER_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(CLUSTER_MESSAGE_BYTES_MAX))
    }
}

/// Listens to what one node says about its quorum, for as long as the pool lives.
async fn watch_quorum(
    pool: std::sync::Weak<Pool>,
    address: String,
    mut client: NodeClient,
    gateway: Option<GatewayId>,
) {
    let gateway_id = gateway.map(|id| Bytes::copy_from_slice(&id.0)).unwrap_or_default();
    loop {
        let request = WatchQuorumRequest { gateway_id: gateway_id.clone() };
        if let Ok(Ok(response)) = timeout(CONNECT_TIMEOUT, client.watch_quorum(request)).await {
            let mut states = response.into_inner();
            // A node sends one every 100 ms: silence means that it hangs or that the link is cut.
            while let Ok(Ok(Some(state))) = timeout(QUORUM_REPORT_TTL, states.message()).await {
                let Some(pool) = pool.upgrade() else { return };
                for leader in pool.board.report(&address, state, Instant::now()) {
                    pool.node(&leader);
                }
            }
        }
        let Some(pool) = pool.upgrade() else { return };
        pool.board.forget(&address);
        drop(pool);
        sleep(RECONNECT_PAUSE).await;
    }
}
