//! Links between gateways (`concordat.relay.v1`): whom a gateway reaches, and what it asks of others while a quorum is out of reach.
//!
//! A gateway listens to each peer that it is configured with; a peer that it hears is a neighbour. So peers must name one another.

mod link;
mod reach;
mod repair;
mod server;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use concordat_proto::{
    log::v1 as log,
    ordering::v1::{Command, Outcome},
    relay::v1::{self as pb, relay_client::RelayClient, sequence_response},
};
use group_log::{GroupId, fork::GatewayId};
use parking_lot::Mutex;
use prost::Message;
use service_kit::channel::Channel;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tonic::{
    Request, Status,
    metadata::{AsciiMetadataValue, MetadataMap, MetadataValue},
};

pub use link::listen_to_peers;
pub use reach::{Reach, Route};
pub(crate) use repair::{named, with_bodies};
pub(crate) use server::take_in;
pub use server::{RelayApi, serve};

use crate::{
    cluster::Final,
    error::GatewayError,
    limits::{RELAY_FORWARD_TIMEOUT, RELAY_HOPS_MAX, RELAY_REQUEST_TIMEOUT, SECOND_COPY_PATIENCE},
};

/// The metadata key in which a gateway names itself to another: its 16 bytes.
pub const GATEWAY_KEY: &str = "concordat-gateway-bin";
/// The metadata key in which a gateway names its cluster to another.
pub const CLUSTER_KEY: &str = "concordat-cluster";

/// A client of one neighbour.
pub(crate) type Neighbour = RelayClient<Channel>;

/// The neighbours, and what can be asked of them.
pub struct Relay {
    own: GatewayId,
    cluster: watch::Receiver<Option<String>>,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

struct State {
    reach: Reach,
    neighbours: BTreeMap<GatewayId, Neighbour>,
}

impl Relay {
    /// No neighbour yet. `cluster` names the cluster once it is known; without it nobody is listened to.
    pub fn new(own: GatewayId, cluster: watch::Receiver<Option<String>>) -> Arc<Self> {
        let state = State { reach: Reach::new(own), neighbours: BTreeMap::new() };
        Arc::new(Self { own, cluster, state: Mutex::new(state), changed: watch::Sender::new(()) })
    }

    /// Completes when somebody is reached or not reached any more, or reaches a quorum or none any more.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The shards whose quorum this gateway reaches by itself.
    pub fn set_quorum(&self, shards: BTreeSet<u32>) {
        if self.state.lock().reach.set_quorum(shards) {
            self.changed.send_replace(());
        }
    }

    /// Another gateway reaches the quorum of a shard.
    pub fn reaches_quorum(&self, shard: u32) -> bool {
        self.state.lock().reach.to_quorum(shard).is_some()
    }

    /// The shards whose quorum other gateways reach.
    pub fn quorums_of_others(&self) -> BTreeSet<u32> {
        self.state.lock().reach.quorums_of_others()
    }

    /// Gateways in the order in which they are asked to sequence a group, this one among them.
    pub fn sequencers(&self, group: &GroupId) -> Vec<GatewayId> {
        self.state.lock().reach.sequencers(group)
    }

    /// Neighbours.
    pub fn links(&self) -> usize {
        self.state.lock().neighbours.len()
    }

    /// Asks a gateway, through others if need be, to sequence an entry.
    pub async fn sequence(
        &self,
        request: pb::SequenceRequest,
        to: &GatewayId,
    ) -> Result<sequence_response::Outcome, Status> {
        let next = self.state.lock().reach.routes().get(to).map(|route| route.next);
        let mut client = self.neighbour(next)?;
        let answer = within(RELAY_REQUEST_TIMEOUT, client.sequence(self.signed(request))).await?;
        answer.outcome.ok_or_else(|| Status::internal("the answer is empty"))
    }

    /// Has a neighbour write entries to its disk. Completes with the first that has; the others go on.
    pub async fn second_copy(&self, group: &GroupId, entries: Vec<log::BranchEntry>) -> bool {
        let neighbours: Vec<Neighbour> = self.state.lock().neighbours.values().cloned().collect();
        let (done, mut stored) = mpsc::channel(neighbours.len().max(1));
        for mut client in neighbours {
            let request =
                self.signed(pb::StoreRequest { group_id: group.to_bytes(), entries: entries.clone() });
            let done = done.clone();
            tokio::spawn(async move {
                if within(RELAY_REQUEST_TIMEOUT, client.store(request)).await.is_ok() {
                    let _ = done.send(()).await;
                }
            });
        }
        drop(done);
        timeout(SECOND_COPY_PATIENCE, stored.recv()).await.is_ok_and(|stored| stored.is_some())
    }

    /// Passes a command on to a gateway that reaches the quorum of a shard, and gives its final outcome.
    pub async fn forward(&self, shard: u32, command: &Command) -> Result<Final, GatewayError> {
        let request =
            pb::ForwardRequest { shard, command: command.encode_to_vec().into(), hops_left: RELAY_HOPS_MAX };
        let outcome = match self.pass_on(request).await {
            Ok(outcome) => outcome,
            Err(status) => {
                return Err(crate::error::final_answer(&status).unwrap_or(GatewayError::OutcomeUnknown));
            }
        };
        Final::from_outcome(outcome).ok_or(GatewayError::OutcomeUnknown)
    }

    async fn pass_on(&self, request: pb::ForwardRequest) -> Result<Outcome, Status> {
        let next = self.state.lock().reach.to_quorum(request.shard);
        let mut client = self.neighbour(next)?;
        let answer = within(RELAY_FORWARD_TIMEOUT, client.forward(self.signed(request))).await?;
        Outcome::decode(answer.outcome).map_err(|error| Status::internal(error.to_string()))
    }

    /// The log of a group after an entry, from the neighbour towards the quorum of its shard.
    pub async fn fetch_log(
        &self,
        shard: u32,
        group: &GroupId,
        after_seq: u64,
    ) -> Result<pb::FetchLogResponse, Status> {
        let next = self.state.lock().reach.to_quorum(shard);
        self.fetch_log_from(self.neighbour(next)?, group, after_seq).await
    }

    pub(crate) async fn fetch_log_from(
        &self,
        mut client: Neighbour,
        group: &GroupId,
        after_seq: u64,
    ) -> Result<pb::FetchLogResponse, Status> {
        let request = self.signed(pb::FetchLogRequest { group_id: group.to_bytes(), after_seq });
        within(RELAY_REQUEST_TIMEOUT, client.fetch_log(request)).await
    }

    fn neighbour(&self, id: Option<GatewayId>) -> Result<Neighbour, Status> {
        let neighbour = id.and_then(|id| self.state.lock().neighbours.get(&id).cloned());
        neighbour
            .ok_or_else(|| GatewayError::Unreachable("the gateway asked for is not reached".into()).into())
    }

    /// A request that says who asks.
    pub(crate) fn signed<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        metadata.insert_bin(GATEWAY_KEY, MetadataValue::from_bytes(&self.own.0));
        if let Some(cluster) =
            self.cluster.borrow().as_deref().and_then(|id| AsciiMetadataValue::try_from(id).ok())
        {
            metadata.insert(CLUSTER_KEY, cluster);
        }
        request
    }

    /// Who asks, if it belongs to the same cluster.
    fn check(&self, metadata: &MetadataMap) -> Result<GatewayId, Status> {
        let id = metadata.get_bin(GATEWAY_KEY).and_then(|value| value.to_bytes().ok()).unwrap_or_default();
        let cluster = metadata.get(CLUSTER_KEY).and_then(|value| value.to_str().ok()).unwrap_or_default();
        self.check_peer(&id, cluster)
    }

    fn check_peer(&self, id: &Bytes, cluster: &str) -> Result<GatewayId, Status> {
        let id = concordat_proto::convert::gateway_id("gateway_id", id).map_err(GatewayError::bad_wire)?;
        match self.cluster.borrow().as_deref() {
            Some(own) if own == cluster => Ok(id),
            Some(own) => Err(foreign(own, cluster).into()),
            None => Err(GatewayError::Unreachable("this gateway has not met its cluster yet".into()).into()),
        }
    }
}

fn foreign(expected: &str, got: &str) -> GatewayError {
    let facts = [("expected", expected.to_owned()), ("got", got.to_owned())];
    GatewayError::Refused(concordat_proto::convert::refused(
        log::Reason::PermissionDenied,
        format_args!(
            "this gateway belongs to cluster {expected}, the caller to {got:?}: link gateways of one cluster only"
        ),
        facts,
    ))
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Status> {
    match timeout(limit, call).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("no answer in time")),
    }
}
