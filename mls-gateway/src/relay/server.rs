//! What a gateway answers to others.

use std::{collections::BTreeMap, io, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use concordat_proto::{
    convert,
    log::v1 as log,
    ordering::v1::{Command, Outcome, command},
    relay::v1::{
        self as pb, link_message,
        relay_server::{Relay as RelayService, RelayServer},
        sequence_response,
    },
};
use futures::{Stream, StreamExt};
use group_log::{
    GroupId,
    fork::{BranchEntry, GatewayId, Mode},
};
use prost::Message;
use service_kit::{
    net::Incoming,
    shutdown::Drain,
    tls::{Gatekeeper, RoleKind},
};
use tokio::{
    sync::mpsc,
    time::{Instant, interval, sleep, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, service::interceptor::InterceptedService, transport::Server};

use super::{Relay, repair::known};
use crate::{
    demls::{Group, GroupError, Registry, group::Digest, read},
    error::GatewayError,
    limits::{
        BRANCH_IDS_MAX, BRANCH_PAGE_BYTES, LOG_BATCH_ENTRIES, RELAY_DIGEST_PAUSE, RELAY_DIGESTS_MAX,
        RELAY_HEARTBEAT, RELAY_HOPS_MAX, RELAY_MESSAGE_BYTES_MAX,
    },
    mesh::exchange::Exchange,
    metrics,
};

/// Messages that wait for a listener; one that does not read is cut off.
const LINK_MESSAGES_MAX: usize = 64;

/// The service.
#[derive(Clone)]
pub struct RelayApi {
    relay: Arc<Relay>,
    registry: Arc<Registry>,
    /// host:port that others reach this gateway at.
    address: String,
    /// A link that is older is ended, so that its listener opens it anew over a new connection.
    link_age: Duration,
}

impl RelayApi {
    /// What `relay` and `registry` know, at a gateway that others reach at `address` (host:port).
    pub fn new(relay: Arc<Relay>, registry: Arc<Registry>, address: String) -> Self {
        Self { relay, registry, address, link_age: Duration::MAX }
    }
}

/// Serves other gateways, which `gatekeeper` tells from others, until the process stops: the relay, and the streams of DiMLS groups.
pub async fn serve(
    incoming: Incoming,
    api: RelayApi,
    mesh: Option<Exchange>,
    gatekeeper: Gatekeeper,
    drain: Drain,
) -> io::Result<()> {
    // By then the connection's end was announced, so the next link goes over another one.
    let link_age = incoming.connection_age();
    let service = RelayServer::new(RelayApi { link_age, ..api })
        .max_decoding_message_size(RELAY_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(RELAY_MESSAGE_BYTES_MAX);
    let only_gateways = move |request: Request<()>| {
        gatekeeper.admit(request.extensions(), &[RoleKind::Gateway]).map(|_| request)
    };
    let mesh = mesh.map(|mesh| InterceptedService::new(mesh.into_service(link_age), only_gateways.clone()));
    let served = Server::builder()
        .http2_adaptive_window(Some(true))
        .max_connection_age(incoming.connection_age())
        .add_service(InterceptedService::new(service, only_gateways))
        .add_optional_service(mesh);
    served
        .serve_with_incoming_shutdown(incoming, async move { drain.begun().await })
        .await
        .map_err(io::Error::other)
}

impl RelayApi {
    fn held(&self, id: Bytes) -> Result<Arc<Group>, GatewayError> {
        let id = convert::group_id("group_id", id).map_err(GatewayError::bad_wire)?;
        self.registry.get(&id).ok_or(GatewayError::GroupNotFound)
    }

    fn check<T>(&self, request: &Request<T>) -> Result<GatewayId, Status> {
        self.relay.check(request.metadata())
    }

    async fn sequence_here(
        &self,
        request: pb::SequenceRequest,
    ) -> Result<sequence_response::Outcome, GatewayError> {
        let entry = request.entry.ok_or_else(|| GatewayError::bad_field("entry", "an entry", "nothing"))?;
        let not_here =
            |holds_group| Ok(sequence_response::Outcome::NotSequencer(pb::NotSequencer { holds_group }));
        let Ok(group) = self.held(request.group_id) else { return not_here(false) };
        if group.mode() != Mode::Forked {
            return not_here(group.may_fork().await);
        }
        let entry = BranchEntry::try_from(entry).map_err(GatewayError::bad_wire)?;
        let (entry, looked) = group.look(entry).await?;
        match group.accept(entry, &looked).await {
            Ok(id) => {
                let accepted = pb::SequencedEntry { entry_id: id.to_bytes(), copies: 1 };
                Ok(sequence_response::Outcome::Accepted(accepted))
            }
            Err(GroupError::NotForked) => not_here(true),
            Err(GroupError::Branch(refusal)) => Ok((&refusal).into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Each gateway registers, reports and acknowledges for itself. Whoever does so in this one's name lies.
    fn check_speaker(&self, command: &Bytes) -> Result<(), GatewayError> {
        use command::Command::{AckPosition, RegisterGateway, ReleaseGateway, ReportBranches};
        let command = Command::decode(command.clone())
            .map_err(|error| GatewayError::bad_field("command", "an encoded Command", error))?;
        let speaker = match &command.command {
            Some(ReportBranches(report)) => &report.gateway_id,
            Some(AckPosition(ack)) => &ack.gateway_id,
            Some(RegisterGateway(register)) => &register.gateway_id,
            Some(ReleaseGateway(release)) => &release.gateway_id,
            _ => return Ok(()),
        };
        if speaker[..] == self.relay.own.0 {
            tracing::warn!("another gateway has spoken in the name of this one: it is refused");
            return Err(GatewayError::NotYours(
                "the command speaks for the gateway that it was sent to: a gateway reports and acknowledges for itself only",
            ));
        }
        Ok(())
    }

    async fn forward_here(&self, request: &pb::ForwardRequest) -> Result<Outcome, Status> {
        let command = Command::decode(request.command.clone())
            .map_err(|error| GatewayError::bad_field("command", "an encoded Command", error))?;
        // Nodes decide about these; no gateway has a reason to ask for them.
        if matches!(
            command.command,
            None | Some(command::Command::CloseCollection(_) | command::Command::EvictGateway(_))
        ) {
            return Err(GatewayError::bad_field(
                "command",
                "something that a gateway may ask for",
                "another",
            )
            .into());
        }
        Ok(self.registry.paths().submit_directly(request.shard, &command).await?.into())
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl RelayService for RelayApi {
    type LinkStream = Answers<pb::LinkMessage>;

    async fn link(&self, request: Request<pb::LinkRequest>) -> Result<Response<Self::LinkStream>, Status> {
        let hello = request.into_inner().hello.unwrap_or_default();
        let listener = self.relay.check_peer(&hello.gateway_id, &hello.cluster_id).inspect_err(refused)?;
        let (messages, told) = mpsc::channel(LINK_MESSAGES_MAX);
        tokio::spawn(tell(self.clone(), listener, messages));
        Ok(Response::new(Box::pin(ReceiverStream::new(told).take_until(sleep(self.link_age)))))
    }

    async fn sequence(
        &self,
        request: Request<pb::SequenceRequest>,
    ) -> Result<Response<pb::SequenceResponse>, Status> {
        self.check(&request).inspect_err(refused)?;
        let mut request = request.into_inner();
        let to = convert::gateway_id("sequencer", &request.sequencer).map_err(GatewayError::bad_wire)?;
        let outcome = if to == self.relay.own {
            self.sequence_here(request).await.map_err(Status::from).inspect_err(refused)?
        } else {
            request.hops_left = hops(request.hops_left)?;
            self.relay.sequence(request, &to).await?
        };
        Ok(Response::new(pb::SequenceResponse { outcome: Some(outcome) }))
    }

    async fn store(&self, request: Request<pb::StoreRequest>) -> Result<Response<pb::StoreResponse>, Status> {
        self.check(&request).inspect_err(refused)?;
        let pb::StoreRequest { group_id, entries } = request.into_inner();
        let group = self.held(group_id)?;
        let new = take_in(&group, entries).await.map_err(Status::from).inspect_err(refused)?;
        Ok(Response::new(pb::StoreResponse { new_entries: new }))
    }

    async fn fetch_branch(
        &self,
        request: Request<pb::FetchBranchRequest>,
    ) -> Result<Response<pb::FetchBranchResponse>, Status> {
        self.check(&request).inspect_err(refused)?;
        let pb::FetchBranchRequest { group_id, have } = request.into_inner();
        let (entries, more) = self.held(group_id)?.lacking(&known(&have)?).await;
        Ok(Response::new(pb::FetchBranchResponse { entries, more }))
    }

    async fn fetch_log(
        &self,
        request: Request<pb::FetchLogRequest>,
    ) -> Result<Response<pb::FetchLogResponse>, Status> {
        self.check(&request).inspect_err(refused)?;
        let pb::FetchLogRequest { group_id, after_seq } = request.into_inner();
        let id = convert::group_id("group_id", group_id).map_err(GatewayError::bad_wire)?;
        // Asked by a gateway that reaches the quorum through this one only: followed for it from now on.
        let group = self.registry.open(&id).await?;
        let paths = self.registry.paths();
        let stored = read(&group, paths, after_seq, LOG_BATCH_ENTRIES, BRANCH_PAGE_BYTES).await?;
        let newest = group.log_seq().map_err(GatewayError::from)?;
        let more = stored.last().is_some_and(|last| last.entry.seq < newest);
        let mut page = pb::FetchLogResponse { entries: Vec::new(), bodies: Vec::new(), more };
        for stored in stored {
            page.entries.push(stored.entry);
            page.bodies.extend(stored.bodies);
        }
        Ok(Response::new(page))
    }

    async fn forward(
        &self,
        request: Request<pb::ForwardRequest>,
    ) -> Result<Response<pb::ForwardResponse>, Status> {
        self.check(&request).inspect_err(refused)?;
        let mut request = request.into_inner();
        self.check_speaker(&request.command).map_err(Status::from).inspect_err(refused)?;
        let outcome = if self.registry.paths().is_direct(request.shard) {
            self.forward_here(&request).await.inspect_err(refused)?
        } else {
            request.hops_left = hops(request.hops_left)?;
            self.relay.pass_on(request).await?
        };
        Ok(Response::new(pb::ForwardResponse { outcome: outcome.encode_to_vec().into() }))
    }
}

/// Takes in entries that came in one request.
pub(crate) async fn take_in(group: &Arc<Group>, entries: Vec<log::BranchEntry>) -> Result<u32, GatewayError> {
    if entries.len() > BRANCH_IDS_MAX {
        return Err(GatewayError::bad_field("entries", format!("at most {BRANCH_IDS_MAX}"), entries.len()));
    }
    let entries = entries.into_iter().map(BranchEntry::try_from).collect::<Result<Vec<_>, _>>();
    let entries = entries.map_err(GatewayError::bad_wire)?;
    Ok(group.take_in(entries).await?)
}

/// How often a request may still be passed on after this time.
fn hops(left: u32) -> Result<u32, GatewayError> {
    match left {
        1..=RELAY_HOPS_MAX => Ok(left - 1),
        0 => Err(GatewayError::Unreachable("the gateway asked for is too many links away".into())),
        got => Err(GatewayError::bad_field("hops_left", format!("at most {RELAY_HOPS_MAX}"), got)),
    }
}

fn refused(status: &Status) {
    let reason = service_kit::status::StatusFacts::of(status).reason;
    let reason = reason.and_then(|name| log::Reason::from_str_name(&format!("REASON_{name}")));
    metrics::relay_refused(reason.map_or("OTHER", crate::error::reason_name));
}

/// Tells a listener whom this gateway reaches and what it has, until it is gone.
async fn tell(api: RelayApi, listener: GatewayId, messages: mpsc::Sender<Result<pb::LinkMessage, Status>>) {
    let own = api.relay.own.0.to_vec().into();
    let cluster_id = api.relay.cluster.borrow().clone().unwrap_or_default();
    let hello = pb::Hello { gateway_id: own, cluster_id, address: api.address.clone() };
    if send(&messages, link_message::Message::Hello(hello)).await.is_err() {
        return;
    }
    let (mut reach, mut groups) = (api.relay.changes(), api.registry.digests_changed());
    let mut heartbeat = interval(RELAY_HEARTBEAT);
    let mut told: BTreeMap<GroupId, Digest> = BTreeMap::new();
    groups.mark_changed();
    loop {
        let digests = tokio::select! {
            _ = heartbeat.tick() => false,
            changed = reach.changed() => {
                if changed.is_err() {
                    return;
                }
                false
            }
            changed = groups.changed() => {
                if changed.is_err() {
                    return;
                }
                // More may change at the same moment; but a heartbeat is never late for it.
                sleep(RELAY_DIGEST_PAUSE).await;
                groups.borrow_and_update();
                true
            }
            () = messages.closed() => return,
        };
        reach.borrow_and_update();
        let announcement = api.relay.state.lock().reach.announcement(&listener);
        if send(&messages, link_message::Message::Reach(announcement)).await.is_err() {
            return;
        }
        if digests {
            let news = news(&api.registry, &mut told).await;
            for part in news.chunks(RELAY_DIGESTS_MAX) {
                let digests = pb::Digests { groups: part.to_vec() };
                if send(&messages, link_message::Message::Digests(digests)).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn send(
    messages: &mpsc::Sender<Result<pb::LinkMessage, Status>>,
    message: link_message::Message,
) -> Result<(), ()> {
    let message = Ok(pb::LinkMessage { message: Some(message) });
    let deadline = Instant::now() + RELAY_HEARTBEAT * 10;
    timeout_at(deadline, messages.send(message)).await.map_err(drop)?.map_err(drop)
}

/// Digests that the listener has not been told. A group that is simply ordered again is told of once more, and then no longer.
async fn news(registry: &Registry, told: &mut BTreeMap<GroupId, Digest>) -> Vec<pb::GroupDigest> {
    let unsettled = registry.unsettled();
    let settled: Vec<GroupId> = told.keys().filter(|id| !unsettled.contains_key(*id)).cloned().collect();
    let mut news = Vec::new();
    let groups =
        unsettled.into_iter().chain(settled.iter().filter_map(|id| Some((id.clone(), registry.get(id)?))));
    for (id, group) in groups {
        let Ok(digest) = group.digest().await else { continue };
        if told.insert(id.clone(), digest) != Some(digest) {
            news.push(pb::GroupDigest {
                group_id: id.to_bytes(),
                log_seq: digest.log_seq,
                tree_entries: digest.entries,
                tree_digest: Bytes::copy_from_slice(&digest.xor),
            });
        }
    }
    for id in settled {
        told.remove(&id);
    }
    news
}
