//! A client of the administrative API of one node.

use concordat_proto::ordering::v1::{
    AddLearnerRequest, BootstrapRequest, GetStatusRequest, GetStatusResponse, NodeAddress, PromoteRequest,
    RemoveRequest, TransferLeaderRequest, admin_client::AdminClient as Wire,
};
use service_kit::channel::Channel;
use tonic::{Request, Status};

use super::Dialer;
use crate::limits::ADMIN_DEADLINE;

/// An administrative call failed.
#[derive(Debug, thiserror::Error)]
#[error("{call} at {address}: {status}")]
pub struct AdminError {
    /// What was called.
    pub call: &'static str,
    /// Where.
    pub address: String,
    /// The answer.
    pub status: Status,
}

/// Administrative calls to one node. Connects when it is first used.
#[derive(Debug, Clone)]
pub struct AdminClient {
    address: String,
    wire: Wire<Channel>,
}

impl AdminClient {
    /// A client of the node whose ordering API listens at `address` (host:port). Panics if that is no address.
    pub fn new(address: &str, dialer: &Dialer) -> Self {
        Self { address: address.to_owned(), wire: Wire::new(dialer.channel(address)) }
    }

    /// Forms the cluster. Returns its id.
    pub async fn bootstrap(&self, nodes: Vec<NodeAddress>, data_shards: u32) -> Result<String, AdminError> {
        let request = timed(BootstrapRequest { nodes, data_shards });
        let answer = self.wire.clone().bootstrap(request).await;
        answer.map(|a| a.into_inner().cluster_id).map_err(self.failed("Bootstrap"))
    }

    /// Adds an empty node as a learner, and returns when it has caught up.
    pub async fn add_learner(&self, node: NodeAddress) -> Result<(), AdminError> {
        let request = timed(AddLearnerRequest { node: Some(node), max_lag: 0 });
        self.wire.clone().add_learner(request).await.map(drop).map_err(self.failed("AddLearner"))
    }

    /// Makes a learner a voter.
    pub async fn promote(&self, node_id: u64) -> Result<(), AdminError> {
        let request = timed(PromoteRequest { node_ids: vec![node_id] });
        self.wire.clone().promote(request).await.map(drop).map_err(self.failed("Promote"))
    }

    /// Takes a node out of the cluster.
    pub async fn remove(&self, node_id: u64) -> Result<(), AdminError> {
        self.wire
            .clone()
            .remove(timed(RemoveRequest { node_id }))
            .await
            .map(drop)
            .map_err(self.failed("Remove"))
    }

    /// Hands the leadership of `shard` over.
    pub async fn transfer_leader(&self, shard: u32, to_node_id: u64) -> Result<(), AdminError> {
        let request = timed(TransferLeaderRequest { shard, to_node_id });
        self.wire.clone().transfer_leader(request).await.map(drop).map_err(self.failed("TransferLeader"))
    }

    /// The node's view of the cluster.
    pub async fn status(&self) -> Result<GetStatusResponse, AdminError> {
        let mut request = Request::new(GetStatusRequest {});
        request.set_timeout(crate::limits::HTTP_DEADLINE);
        self.wire
            .clone()
            .get_status(request)
            .await
            .map(tonic::Response::into_inner)
            .map_err(self.failed("GetStatus"))
    }

    fn failed(&self, call: &'static str) -> impl FnOnce(Status) -> AdminError {
        let address = self.address.clone();
        move |status| AdminError { call, address, status }
    }
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(ADMIN_DEADLINE);
    request
}
