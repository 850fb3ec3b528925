//! The way to a gateway.

mod error;
mod grpc;
pub(crate) mod line;
mod security;

use bytes::Bytes;
use concordat_proto::{
    gateway::v1::{
        AckWelcomesRequest, ClaimKeyPackageRequest, ClaimKeyPackageResponse, CloseGroupRequest,
        CreateGroupRequest, GetGroupInfoResponse, GetHeadRequest, GetKeyPackageStatusResponse,
        OfferBranchEntriesRequest, OfferBranchEntriesResponse, ReadBranchEntriesRequest,
        ReadBranchEntriesResponse, ReadEntriesRequest, ReadEntriesResponse, SetPolicyRequest, SubmitRequest,
        SubscribeRequest, SubscribeResponse, UploadBranchEntriesRequest, UploadBranchEntriesResponse,
        UploadKeyPackagesRequest, UploadKeyPackagesResponse, WatchWelcomesRequest, submit_response,
    },
    log::v1::{Accepted, Head, PendingWelcome},
};
use futures::{future::BoxFuture, stream::BoxStream};

pub use self::{error::CallError, grpc::GrpcTransport, security::Security};
pub use concordat_proto::gateway::v1::Mode;

/// The answer of a call that is under way.
pub type Call<'a, T> = BoxFuture<'a, Result<T, CallError>>;

/// A stream of answers. It ends with an error, or because the gateway ended it.
pub type CallStream<T> = BoxStream<'static, Result<T, CallError>>;

/// What a client needs of a gateway: `concordat.gateway.v1`, one call each. The calling client's id is known to the transport.
///
/// A call is never repeated by the transport; the client knows which ones may be.
pub trait Transport: Send + Sync + 'static {
    /// Start the log of a new group.
    fn create_group(&self, request: CreateGroupRequest) -> Call<'_, Accepted>;
    /// Submit one MLS message.
    fn submit(&self, request: SubmitRequest) -> Call<'_, submit_response::Outcome>;
    /// Follow a group.
    fn subscribe(&self, request: SubscribeRequest) -> Call<'_, CallStream<SubscribeResponse>>;
    /// One page of a group's log.
    fn read_entries(&self, request: ReadEntriesRequest) -> Call<'_, ReadEntriesResponse>;
    /// Payloads of branch entries.
    fn read_branch_entries(&self, request: ReadBranchEntriesRequest) -> Call<'_, ReadBranchEntriesResponse>;
    /// Which branch entries the gateway does not have.
    fn offer_branch_entries(
        &self,
        request: OfferBranchEntriesRequest,
    ) -> Call<'_, OfferBranchEntriesResponse>;
    /// Bring branch entries.
    fn upload_branch_entries(
        &self,
        request: UploadBranchEntriesRequest,
    ) -> Call<'_, UploadBranchEntriesResponse>;
    /// A group's newest position.
    fn get_head(&self, request: GetHeadRequest) -> Call<'_, Head>;
    /// The newest GroupInfo, with the head that it belongs to.
    fn get_group_info(&self, group_id: Bytes) -> Call<'_, GetGroupInfoResponse>;
    /// End a group.
    fn close_group(&self, request: CloseGroupRequest) -> Call<'_, Accepted>;
    /// Change a group's policy.
    fn set_policy(&self, request: SetPolicyRequest) -> Call<'_, Accepted>;
    /// Store KeyPackages.
    fn upload_key_packages(&self, request: UploadKeyPackagesRequest) -> Call<'_, UploadKeyPackagesResponse>;
    /// Take one KeyPackage of somebody.
    fn claim_key_package(&self, request: ClaimKeyPackageRequest) -> Call<'_, ClaimKeyPackageResponse>;
    /// How many KeyPackages are left.
    fn key_package_status(&self) -> Call<'_, GetKeyPackageStatusResponse>;
    /// Receive Welcomes.
    fn watch_welcomes(&self, request: WatchWelcomesRequest) -> Call<'_, CallStream<PendingWelcome>>;
    /// Drop Welcomes that were taken in. Returns how many are left.
    fn ack_welcomes(&self, request: AckWelcomesRequest) -> Call<'_, u32>;
}
