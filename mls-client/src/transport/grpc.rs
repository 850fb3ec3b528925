//! A gateway over gRPC.

use bytes::Bytes;
use concordat_proto::{
    gateway::v1::{
        AckWelcomesRequest, ClaimKeyPackageRequest, ClaimKeyPackageResponse, CloseGroupRequest,
        CreateGroupRequest, GetGroupInfoRequest, GetGroupInfoResponse, GetHeadRequest,
        GetKeyPackageStatusRequest, GetKeyPackageStatusResponse, OfferBranchEntriesRequest,
        OfferBranchEntriesResponse, ReadBranchEntriesRequest, ReadBranchEntriesResponse, ReadEntriesRequest,
        ReadEntriesResponse, SetPolicyRequest, SubmitRequest, SubscribeRequest, SubscribeResponse,
        UploadBranchEntriesRequest, UploadBranchEntriesResponse, UploadKeyPackagesRequest,
        UploadKeyPackagesResponse, WatchWelcomesRequest, gateway_client::GatewayClient, submit_response,
    },
    log::v1::{Accepted, Head, PendingWelcome},
};
use futures::{FutureExt, StreamExt, future::ready};
use group_log::ClientId;
use service_kit::{
    channel::Channel,
    net::{SharedNetwork, tcp_network},
};
use tonic::{Code, Status};

use super::{Call, CallError, CallStream, Security, Transport, line::Line};
use crate::{error::Error, limits::MAX_ANSWER_BYTES};

/// One connection to a gateway, made when it is needed and again when it is lost.
#[derive(Debug, Clone)]
pub struct GrpcTransport {
    gateway: GatewayClient<Channel>,
    line: Line,
}

impl GrpcTransport {
    /// A transport for `client` to the gateway at `url` over TCP. Does not connect yet.
    ///
    /// `http://host:port` (or `host:port`) is plaintext, for gateways that run with `--insecure-dev`: the client is believed.
    /// `https://host:port` is TLS with gateways that the system trusts; see [`GrpcTransport::secured`] for everything else.
    pub fn new(url: &str, client: &ClientId) -> Result<Self, Error> {
        Self::over(tcp_network(), url, client, &Security::default())
    }

    /// The same, with a CA, a certificate or a token of one's own. Needs a tokio runtime.
    pub fn secured(url: &str, client: &ClientId, security: &Security) -> Result<Self, Error> {
        Self::over(tcp_network(), url, client, security)
    }

    /// The same over another network.
    pub fn over(
        network: SharedNetwork,
        url: &str,
        client: &ClientId,
        security: &Security,
    ) -> Result<Self, Error> {
        let line = Line::to(network, url, client, security)?;
        let gateway = GatewayClient::new(line.channel.clone())
            .max_decoding_message_size(MAX_ANSWER_BYTES)
            .max_encoding_message_size(MAX_ANSWER_BYTES);
        Ok(GrpcTransport { gateway, line })
    }
}

fn missing(what: &str) -> CallError {
    CallError::from(Status::new(Code::DataLoss, format!("the answer lacks `{what}`; compare versions")))
}

/// A call whose answer is one field that must be there.
macro_rules! call {
    ($self:ident, $method:ident, $request:expr) => {{
        let (mut gateway, request) = ($self.gateway.clone(), $self.line.timed($request));
        async move { Ok(gateway.$method(request?).await?.into_inner()) }.boxed()
    }};
    ($self:ident, $method:ident, $request:expr, $field:ident) => {{
        let (mut gateway, request) = ($self.gateway.clone(), $self.line.timed($request));
        async move {
            gateway.$method(request?).await?.into_inner().$field.ok_or_else(|| missing(stringify!($field)))
        }
        .boxed()
    }};
}

impl Transport for GrpcTransport {
    fn create_group(&self, request: CreateGroupRequest) -> Call<'_, Accepted> {
        call!(self, create_group, request, accepted)
    }

    fn submit(&self, request: SubmitRequest) -> Call<'_, submit_response::Outcome> {
        call!(self, submit, request, outcome)
    }

    fn subscribe(&self, request: SubscribeRequest) -> Call<'_, CallStream<SubscribeResponse>> {
        let (mut gateway, request) = (self.gateway.clone(), self.line.request(request));
        async move {
            let stream = gateway.subscribe(request?).await?.into_inner();
            Ok(stream.map(|item| item.map_err(CallError::from)).boxed())
        }
        .boxed()
    }

    fn read_entries(&self, request: ReadEntriesRequest) -> Call<'_, ReadEntriesResponse> {
        call!(self, read_entries, request)
    }

    fn read_branch_entries(&self, request: ReadBranchEntriesRequest) -> Call<'_, ReadBranchEntriesResponse> {
        call!(self, read_branch_entries, request)
    }

    fn offer_branch_entries(
        &self,
        request: OfferBranchEntriesRequest,
    ) -> Call<'_, OfferBranchEntriesResponse> {
        call!(self, offer_branch_entries, request)
    }

    fn upload_branch_entries(
        &self,
        request: UploadBranchEntriesRequest,
    ) -> Call<'_, UploadBranchEntriesResponse> {
        call!(self, upload_branch_entries, request)
    }

    fn get_head(&self, request: GetHeadRequest) -> Call<'_, Head> {
        call!(self, get_head, request, head)
    }

    fn get_group_info(&self, group_id: Bytes) -> Call<'_, GetGroupInfoResponse> {
        call!(self, get_group_info, GetGroupInfoRequest { group_id })
    }

    fn close_group(&self, request: CloseGroupRequest) -> Call<'_, Accepted> {
        call!(self, close_group, request, accepted)
    }

    fn set_policy(&self, request: SetPolicyRequest) -> Call<'_, Accepted> {
        call!(self, set_policy, request, accepted)
    }

    fn upload_key_packages(&self, request: UploadKeyPackagesRequest) -> Call<'_, UploadKeyPackagesResponse> {
        call!(self, upload_key_packages, request)
    }

    fn claim_key_package(&self, request: ClaimKeyPackageRequest) -> Call<'_, ClaimKeyPackageResponse> {
        call!(self, claim_key_package, request)
    }

    fn key_package_status(&self) -> Call<'_, GetKeyPackageStatusResponse> {
        call!(self, get_key_package_status, GetKeyPackageStatusRequest {})
    }

    fn watch_welcomes(&self, request: WatchWelcomesRequest) -> Call<'_, CallStream<PendingWelcome>> {
        let (mut gateway, request) = (self.gateway.clone(), self.line.request(request));
        async move {
            let stream = gateway.watch_welcomes(request?).await?.into_inner();
            Ok(stream
                .filter_map(|item| ready(item.map(|i| i.welcome).map_err(CallError::from).transpose()))
                .boxed())
        }
        .boxed()
    }

    fn ack_welcomes(&self, request: AckWelcomesRequest) -> Call<'_, u32> {
        let (mut gateway, request) = (self.gateway.clone(), self.line.timed(request));
        async move { Ok(gateway.ack_welcomes(request?).await?.into_inner().left) }.boxed()
    }
}
