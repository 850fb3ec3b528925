//! The gateways' API.

use std::sync::Arc;

use concordat_proto::ordering::v1::{
    GetHeadRequest, GetHeadResponse, GetKeyPackageStatusRequest, GetKeyPackageStatusResponse, LocateRequest,
    LocateResponse, QuorumState, ReadBranchEntriesRequest, ReadBranchEntriesResponse, ReadEntriesRequest,
    ReadEntriesResponse, ReadInboxRequest, ReadInboxResponse, SubmitRequest, SubscribeRequest,
    SubscribeResponse, WatchQuorumRequest, ordering_server::Ordering,
};
use futures::{StreamExt, stream::BoxStream};
use tonic::{Request, Response, Status, Streaming};

use super::{
    read,
    submit::{self, Answers, Desk},
    subscribe, watch,
};
use crate::node::Node;

/// `concordat.ordering.v1.Ordering`.
pub struct OrderingApi {
    node: Arc<Node>,
    desk: Arc<Desk>,
}

impl OrderingApi {
    /// For one node.
    pub(crate) fn new(desk: Arc<Desk>) -> Self {
        Self { node: desk.node().clone(), desk }
    }
}

#[tonic::async_trait]
impl Ordering for OrderingApi {
    type SubmitStream = Answers;

    async fn submit(&self, request: Request<Streaming<SubmitRequest>>) -> Result<Response<Answers>, Status> {
        Ok(Response::new(submit::serve(self.desk.clone(), request.into_inner())))
    }

    type SubscribeStream = BoxStream<'static, Result<SubscribeResponse, Status>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        Ok(Response::new(subscribe::serve(self.node.clone(), request.into_inner())?.boxed()))
    }

    async fn read_entries(
        &self,
        request: Request<ReadEntriesRequest>,
    ) -> Result<Response<ReadEntriesResponse>, Status> {
        Ok(Response::new(read::entries(&self.node, request.into_inner()).await?))
    }

    async fn get_head(&self, request: Request<GetHeadRequest>) -> Result<Response<GetHeadResponse>, Status> {
        Ok(Response::new(read::head(&self.node, request.into_inner()).await?))
    }

    async fn locate(&self, request: Request<LocateRequest>) -> Result<Response<LocateResponse>, Status> {
        Ok(Response::new(read::locate(&self.node, request.into_inner()).await?))
    }

    async fn read_inbox(
        &self,
        request: Request<ReadInboxRequest>,
    ) -> Result<Response<ReadInboxResponse>, Status> {
        Ok(Response::new(read::inbox(&self.node, request.into_inner()).await?))
    }

    async fn get_key_package_status(
        &self,
        request: Request<GetKeyPackageStatusRequest>,
    ) -> Result<Response<GetKeyPackageStatusResponse>, Status> {
        Ok(Response::new(read::key_package_status(&self.node, request.into_inner()).await?))
    }

    async fn read_branch_entries(
        &self,
        request: Request<ReadBranchEntriesRequest>,
    ) -> Result<Response<ReadBranchEntriesResponse>, Status> {
        Ok(Response::new(read::branch_entries(&self.node, request.into_inner()).await?))
    }

    type WatchQuorumStream = BoxStream<'static, Result<QuorumState, Status>>;

    async fn watch_quorum(
        &self,
        request: Request<WatchQuorumRequest>,
    ) -> Result<Response<Self::WatchQuorumStream>, Status> {
        let watching = watch::gateway(&self.node, &request.get_ref().gateway_id)?;
        Ok(Response::new(watch::serve(self.node.clone(), watching).boxed()))
    }
}
