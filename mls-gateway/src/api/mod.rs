//! The public API (`concordat.gateway.v1`), one file per concern. What all of them share is here.

mod branches;
mod demls;
mod groups;
mod key_packages;
mod members;
mod read;
mod submit;
mod subscribe;
mod welcomes;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use concordat_proto::{
    convert,
    gateway::v1::{self as pb, gateway_server::Gateway},
    log::v1::Accepted,
    ordering::v1::{Command, GroupSubmission, command},
};
use futures::{Stream, StreamExt, future::ready, stream};
use group_log::{ClientId, GroupId};
use service_kit::{clock::SharedClock, rng::Randomness, shutdown::Drain};
use tokio::time::sleep;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    access::Access,
    cluster::{Cluster, Final},
    demls::Registry,
    error::GatewayError,
    fanout::Fanout,
    identity::{Authenticator, Caller, Principal},
    metrics,
    mls::Validator,
    modes::Mode,
    quota::Meter,
};

/// The gateway's service. Clones share everything.
#[derive(Clone)]
pub struct Api {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) validator: Arc<Validator>,
    pub(crate) fanout: Arc<Fanout>,
    /// DeMLS groups, if this gateway serves any.
    pub(crate) demls: Option<Arc<Registry>>,
    /// Who is a member of what; absent in development, where everybody may do everything.
    pub(crate) access: Option<Arc<Access>>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) clock: SharedClock,
    pub(crate) rng: Randomness,
    pub(crate) drain: Drain,
}

/// A stream of answers.
pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Api {
    /// Which client calls.
    fn client<T>(&self, request: &Request<T>) -> Result<ClientId, GatewayError> {
        Ok(self.principal(request)?.client)
    }

    /// Which client calls, and until when that is proven.
    fn principal<T>(&self, request: &Request<T>) -> Result<Principal, GatewayError> {
        let caller = Caller::of(request.metadata(), request.extensions());
        self.authenticator.authenticate(caller).inspect_err(|error| {
            metrics::refusal(match error {
                GatewayError::Denied(_) => "denied",
                _ => "unauthenticated",
            });
        })
    }

    /// The same stream, for as long as which something is held.
    fn holding<T: Send + 'static>(answers: Answers<T>, held: impl Send + 'static) -> Answers<T> {
        Box::pin(answers.inspect(move |_| {
            let _ = &held;
        }))
    }

    /// The same stream, ended with a status when the proof ends that its caller has shown.
    fn while_proven<T: Send + 'static>(&self, who: &Principal, answers: Answers<T>) -> Answers<T> {
        let Some(expires_at) = who.expires_at else { return answers };
        let left = Duration::from_millis(expires_at.saturating_mul(1000).saturating_sub(self.clock.now_ms()));
        let over = "the proof that this stream was opened with has expired: open it again with a new one";
        let end = stream::once(async move { Err(GatewayError::Unauthenticated(over.into()).into()) });
        // `take_until` also ends with the stream itself, which then has said why.
        let expired = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&expired);
        let timer = async move {
            sleep(left).await;
            told.store(true, Ordering::Relaxed);
        };
        let end = end.filter(move |_| ready(expired.load(Ordering::Relaxed)));
        Box::pin(answers.take_until(Box::pin(timer)).chain(end))
    }

    /// Where a group lives. Fails at once if nothing can be ordered there now.
    async fn available(&self, group_id: &GroupId) -> Result<u32, GatewayError> {
        // Of a group that is kept here it is known without any node.
        let kept = self.demls.as_ref().and_then(|registry| registry.get(group_id));
        let shard = match kept {
            Some(group) => group.shard,
            None => self.cluster.locator.shard(group_id).await?,
        };
        self.check_mode(shard)?;
        Ok(shard)
    }

    /// Fails if nothing can be ordered in a shard now.
    fn check_mode(&self, shard: u32) -> Result<(), GatewayError> {
        match self.cluster.modes.of(shard) {
            Mode::Unavailable if self.reaches_through_another(shard) => Ok(()),
            Mode::Unavailable => Err(GatewayError::NoQuorum),
            Mode::Ordered | Mode::Suspect { .. } => Ok(()),
        }
    }

    /// The quorum of a shard is reached through another gateway, and not by this one.
    fn reaches_through_another(&self, shard: u32) -> bool {
        let paths = self.demls.as_ref().map(|registry| registry.paths());
        paths.is_some_and(|paths| !paths.is_direct(shard) && paths.relay.reaches_quorum(shard))
    }

    /// Brings a command to the quorum of a shard: by oneself, or through another gateway if only that reaches it.
    async fn bring(&self, shard: u32, command: &Command) -> Result<Final, GatewayError> {
        match &self.demls {
            Some(registry) => registry.paths().submit(shard, command).await,
            None => self.cluster.router.submit(shard, command).await,
        }
    }

    /// Brings something into a group's log. `Superseded` is for the caller to understand.
    async fn order(&self, submission: GroupSubmission, group_id: &GroupId) -> Result<Final, GatewayError> {
        let shard = self.available(group_id).await?;
        let command = Command { command: Some(command::Command::Group(submission)) };
        let outcome = self.bring(shard, &command).await?;
        let refused = match outcome {
            Final::Refused(refused) => refused,
            Final::Reconciling(_) => return Err(GatewayError::Reconciling),
            outcome => return Ok(outcome),
        };
        let error = GatewayError::Refused(refused);
        if error.reason() == concordat_proto::log::v1::Reason::WrongShard {
            self.cluster.locator.forget(group_id);
        }
        Err(error)
    }

    /// The same, for what cannot lose a race.
    async fn order_plain(
        &self,
        submission: GroupSubmission,
        group_id: &GroupId,
    ) -> Result<Accepted, GatewayError> {
        match self.order(submission, group_id).await? {
            Final::Accepted(accepted) => {
                self.fanout.expect(group_id, accepted.seq);
                if let Some(registry) = &self.demls {
                    registry.expect(group_id, accepted.seq);
                }
                Ok(accepted)
            }
            _ => Err(GatewayError::Protocol("an outcome that does not belong to the command")),
        }
    }
}

fn group_id(bytes: Bytes) -> Result<GroupId, GatewayError> {
    convert::group_id("group_id", bytes).map_err(GatewayError::bad_wire)
}

#[tonic::async_trait]
impl Gateway for Api {
    async fn create_group(
        &self,
        request: Request<pb::CreateGroupRequest>,
    ) -> Result<Response<pb::CreateGroupResponse>, Status> {
        let author = self.client(&request)?;
        Ok(Response::new(self.create(author, request.into_inner()).await?))
    }

    async fn submit(
        &self,
        request: Request<pb::SubmitRequest>,
    ) -> Result<Response<pb::SubmitResponse>, Status> {
        let author = self.client(&request)?;
        Ok(Response::new(self.submit_one(author, request.into_inner()).await?))
    }

    type SubmitStreamStream = Answers<pb::SubmitStreamResponse>;

    async fn submit_stream(
        &self,
        request: Request<Streaming<pb::SubmitStreamRequest>>,
    ) -> Result<Response<Self::SubmitStreamStream>, Status> {
        let who = self.principal(&request)?;
        let held = self.meter.client_streams.hold(&who.client)?;
        let answers = self.submit_many(who.client.clone(), request.into_inner());
        Ok(Response::new(self.while_proven(&who, Self::holding(answers, held))))
    }

    type SubscribeStream = Answers<pb::SubscribeResponse>;

    async fn subscribe(
        &self,
        request: Request<pb::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let who = self.principal(&request)?;
        let group = group_id(request.get_ref().group_id.clone())?;
        let held =
            (self.meter.client_streams.hold(&who.client)?, self.meter.group_subscriptions.hold(&group)?);
        let events = self.subscribe_group(who.client.clone(), request.into_inner()).await?;
        Ok(Response::new(self.while_proven(&who, Self::holding(events, held))))
    }

    async fn read_entries(
        &self,
        request: Request<pb::ReadEntriesRequest>,
    ) -> Result<Response<pb::ReadEntriesResponse>, Status> {
        let reader = self.client(&request)?;
        self.meter.read(&reader)?;
        Ok(Response::new(self.read_page(reader, request.into_inner()).await?))
    }

    async fn read_branch_entries(
        &self,
        request: Request<pb::ReadBranchEntriesRequest>,
    ) -> Result<Response<pb::ReadBranchEntriesResponse>, Status> {
        let reader = self.client(&request)?;
        self.meter.read(&reader)?;
        Ok(Response::new(self.read_branch(reader, request.into_inner()).await?))
    }

    async fn offer_branch_entries(
        &self,
        request: Request<pb::OfferBranchEntriesRequest>,
    ) -> Result<Response<pb::OfferBranchEntriesResponse>, Status> {
        let reader = self.client(&request)?;
        self.meter.read(&reader)?;
        Ok(Response::new(self.offer_branch(&reader, request.into_inner()).await?))
    }

    async fn upload_branch_entries(
        &self,
        request: Request<pb::UploadBranchEntriesRequest>,
    ) -> Result<Response<pb::UploadBranchEntriesResponse>, Status> {
        let bringer = self.client(&request)?;
        Ok(Response::new(self.upload_branch(bringer, request.into_inner()).await?))
    }

    async fn get_head(
        &self,
        request: Request<pb::GetHeadRequest>,
    ) -> Result<Response<pb::GetHeadResponse>, Status> {
        let reader = self.client(&request)?;
        self.meter.read(&reader)?;
        Ok(Response::new(self.read_head(reader, request.into_inner()).await?))
    }

    async fn get_group_info(
        &self,
        request: Request<pb::GetGroupInfoRequest>,
    ) -> Result<Response<pb::GetGroupInfoResponse>, Status> {
        let reader = self.client(&request)?;
        self.meter.read(&reader)?;
        Ok(Response::new(self.read_group_info(reader, request.into_inner()).await?))
    }

    async fn close_group(
        &self,
        request: Request<pb::CloseGroupRequest>,
    ) -> Result<Response<pb::CloseGroupResponse>, Status> {
        let author = self.client(&request)?;
        Ok(Response::new(self.close(author, request.into_inner()).await?))
    }

    async fn set_policy(
        &self,
        request: Request<pb::SetPolicyRequest>,
    ) -> Result<Response<pb::SetPolicyResponse>, Status> {
        let author = self.client(&request)?;
        Ok(Response::new(self.change_policy(author, request.into_inner()).await?))
    }

    async fn upload_key_packages(
        &self,
        request: Request<pb::UploadKeyPackagesRequest>,
    ) -> Result<Response<pb::UploadKeyPackagesResponse>, Status> {
        let owner = self.client(&request)?;
        Ok(Response::new(self.upload(owner, request.into_inner()).await?))
    }

    async fn claim_key_package(
        &self,
        request: Request<pb::ClaimKeyPackageRequest>,
    ) -> Result<Response<pb::ClaimKeyPackageResponse>, Status> {
        let claimer = self.client(&request)?;
        Ok(Response::new(self.claim(claimer, request.into_inner()).await?))
    }

    async fn get_key_package_status(
        &self,
        request: Request<pb::GetKeyPackageStatusRequest>,
    ) -> Result<Response<pb::GetKeyPackageStatusResponse>, Status> {
        let owner = self.client(&request)?;
        Ok(Response::new(self.key_package_status(owner).await?))
    }

    type WatchWelcomesStream = Answers<pb::WatchWelcomesResponse>;

    async fn watch_welcomes(
        &self,
        request: Request<pb::WatchWelcomesRequest>,
    ) -> Result<Response<Self::WatchWelcomesStream>, Status> {
        let who = self.principal(&request)?;
        let held = self.meter.client_streams.hold(&who.client)?;
        let welcomes = self.watch(who.client.clone(), request.into_inner())?;
        Ok(Response::new(self.while_proven(&who, Self::holding(welcomes, held))))
    }

    async fn ack_welcomes(
        &self,
        request: Request<pb::AckWelcomesRequest>,
    ) -> Result<Response<pb::AckWelcomesResponse>, Status> {
        let client = self.client(&request)?;
        Ok(Response::new(self.ack(client, request.into_inner()).await?))
    }
}
