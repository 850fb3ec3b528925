//! The operators' API.

use std::sync::Arc;

use concordat_proto::{
    convert::gateway_id,
    log::v1::Refused,
    ordering::v1::{
        AddLearnerRequest, AddLearnerResponse, BootstrapRequest, BootstrapResponse, EvictGatewayRequest,
        EvictGatewayResponse, GetStatusRequest, GetStatusResponse, ListGatewaysRequest, ListGatewaysResponse,
        PromoteRequest, PromoteResponse, RemoveRequest, RemoveResponse, TransferLeaderRequest,
        TransferLeaderResponse, admin_server::Admin,
    },
    raft::v1::{Voters, administer_request::Change},
};
use tonic::{Request, Response, Status};

use crate::{
    api::linearize::linearize,
    backup,
    branches::gateways,
    cluster::{bootstrap, in_every_shard, leader::administer, learner, status},
    error::ApiError,
    limits,
    node::Node,
};

/// `concordat.ordering.v1.Admin`.
pub struct AdminApi {
    node: Arc<Node>,
}

impl AdminApi {
    /// For one node.
    pub fn new(node: Arc<Node>) -> Self {
        Self { node }
    }

    async fn in_every_shard(&self, change: Change) -> Result<(), ApiError> {
        let _one_at_a_time = self.node.changing.lock().await;
        in_every_shard(&self.node, change).await
    }

    fn check_members(&self, node_ids: &[u64]) -> Result<(), ApiError> {
        let known = self.node.shards()?.nodes();
        let unknown = node_ids.iter().find(|id| !known.contains_key(id));
        if node_ids.is_empty() || unknown.is_some() {
            let known: Vec<String> = known.keys().map(u64::to_string).collect();
            let expected = format!("the number of a node of this cluster ({})", known.join(", "));
            let got = unknown.map_or("nothing".to_owned(), u64::to_string);
            return Err(ApiError::BadField { field: "node_id", expected, got });
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl Admin for AdminApi {
    async fn bootstrap(
        &self,
        request: Request<BootstrapRequest>,
    ) -> Result<Response<BootstrapResponse>, Status> {
        let _one_at_a_time = self.node.changing.lock().await;
        let cluster_id = bootstrap::bootstrap(&self.node, request.into_inner()).await?;
        Ok(Response::new(BootstrapResponse { cluster_id }))
    }

    async fn add_learner(
        &self,
        request: Request<AddLearnerRequest>,
    ) -> Result<Response<AddLearnerResponse>, Status> {
        let _one_at_a_time = self.node.changing.lock().await;
        learner::add_learner(&self.node, request.into_inner()).await?;
        Ok(Response::new(AddLearnerResponse {}))
    }

    async fn promote(&self, request: Request<PromoteRequest>) -> Result<Response<PromoteResponse>, Status> {
        let node_ids = request.into_inner().node_ids;
        self.check_members(&node_ids)?;
        self.in_every_shard(Change::Promote(Voters { node_ids })).await?;
        Ok(Response::new(PromoteResponse {}))
    }

    async fn remove(&self, request: Request<RemoveRequest>) -> Result<Response<RemoveResponse>, Status> {
        let node_id = request.into_inner().node_id;
        self.check_members(&[node_id])?;
        self.in_every_shard(Change::Remove(node_id)).await?;
        Ok(Response::new(RemoveResponse {}))
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        let request = request.into_inner();
        let shard = self.node.shard(request.shard)?;
        self.check_members(&[request.to_node_id])?;
        administer(&self.node, shard, Change::HandOver(request.to_node_id), limits::ADMIN_TIMEOUT).await?;
        Ok(Response::new(TransferLeaderResponse {}))
    }

    async fn list_gateways(
        &self,
        _: Request<ListGatewaysRequest>,
    ) -> Result<Response<ListGatewaysResponse>, Status> {
        Ok(Response::new(gateways::list(&self.node).await?))
    }

    async fn evict_gateway(
        &self,
        request: Request<EvictGatewayRequest>,
    ) -> Result<Response<EvictGatewayResponse>, Status> {
        let id = request.into_inner().gateway_id;
        let gateway = gateway_id("gateway_id", &id).map_err(|error| ApiError::from(Refused::from(&error)))?;
        for shard in self.node.readable()?.iter().skip(1) {
            linearize(&self.node, shard).await?;
        }
        let groups = gateways::groups(&self.node, gateway).await?;
        for shard in self.node.shards()?.iter().skip(1) {
            administer(&self.node, shard, Change::EvictGateway(id.clone()), limits::ADMIN_TIMEOUT).await?;
        }
        Ok(Response::new(EvictGatewayResponse { groups }))
    }

    type BackupStream = backup::BackupStream;

    async fn backup(
        &self,
        _: Request<concordat_proto::ordering::v1::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        Ok(Response::new(backup::serve(self.node.clone())?))
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        Ok(Response::new(status::status(&self.node)))
    }
}
