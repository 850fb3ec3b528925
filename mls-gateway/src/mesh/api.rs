//! `concordat.gateway.v1.DimlsGroups`: what clients call.

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use bytes::Bytes;
use concordat_proto::{
    convert,
    gateway::v1::{
        self as pb, CreateDgroupRequest, CreateDgroupResponse, DroppedItems, ListDgroupsRequest,
        ListDgroupsResponse, StreamPosition, StreamPositions, SubmitItemRequest, SubmitItemResponse,
        SubscribeItemsRequest, SubscribeItemsResponse,
        dimls_groups_server::{DimlsGroups, DimlsGroupsServer},
        subscribe_items_response::Event,
    },
    log::v1::Reason,
};
use futures::Stream as Futures;
use group_log::{
    ClientId, GroupId,
    dimls::{DgroupId, Setup},
};
use service_kit::shutdown::Drain;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{
    check::check,
    limits::{DGROUPS_MAX, EVENTS_MAX, LISTED_MAX, PAGE_ITEMS, SETUP_BYTES_MAX},
    store::{MeshStore, StoreError, Stored},
};
use crate::{
    error::GatewayError,
    identity::{Authenticator, Caller},
    limits::{CLIENT_MESSAGE_BYTES_MAX, CLUSTER_MESSAGE_BYTES_MAX},
    metrics,
    quota::Meter,
};

/// The service. Clones share everything.
#[derive(Clone)]
pub struct DimlsApi {
    /// Nothing in a gateway that keeps no data.
    pub(crate) store: Option<Arc<MeshStore>>,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) drain: Drain,
}

impl From<StoreError> for GatewayError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => GatewayError::overloaded("the number of DiMLS groups", DGROUPS_MAX),
            StoreError::NoRoom(bytes) => {
                GatewayError::overloaded("what this gateway keeps of DiMLS groups", format!("{bytes} bytes"))
            }
            other => GatewayError::Storage(other.to_string()),
        }
    }
}

/// Runs what waits for the disk where it holds nobody up.
pub(crate) async fn on_disk<T: Send + 'static>(
    store: &Arc<MeshStore>,
    work: impl FnOnce(&MeshStore) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, GatewayError> {
    let store = Arc::clone(store);
    match tokio::task::spawn_blocking(move || work(&store)).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(GatewayError::Storage(error.to_string())),
    }
}

fn dgroup_id(bytes: &Bytes) -> Result<DgroupId, GatewayError> {
    DgroupId::from_slice(bytes).ok_or_else(|| GatewayError::bad_field("dgroup_id", "32 bytes", bytes.len()))
}

/// What a DGroup is metered as.
fn metered(id: &DgroupId) -> Result<GroupId, GatewayError> {
    GroupId::new(id.to_bytes()).map_err(|_| GatewayError::Protocol("a DGroup's id is no group id"))
}

impl DimlsApi {
    /// The service to be served.
    pub(crate) fn into_service(self) -> DimlsGroupsServer<Self> {
        DimlsGroupsServer::new(self)
            .max_decoding_message_size(CLIENT_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(CLUSTER_MESSAGE_BYTES_MAX)
    }

    fn store(&self) -> Result<&Arc<MeshStore>, GatewayError> {
        self.store.as_ref().ok_or(GatewayError::NoStorage)
    }

    fn client<T>(&self, request: &Request<T>) -> Result<ClientId, GatewayError> {
        Ok(self.authenticator.authenticate(Caller::of(request.metadata(), request.extensions()))?.client)
    }

    /// A DGroup of which the caller is a member.
    async fn joined(&self, id: DgroupId, caller: &ClientId) -> Result<Setup, GatewayError> {
        let setup = on_disk(self.store()?, move |store| store.setup(&id))
            .await?
            .ok_or(GatewayError::GroupNotFound)?;
        match setup.number(caller) {
            Some(_) => Ok(setup),
            None => Err(GatewayError::NotYours("only its members use a DGroup")),
        }
    }

    async fn create(&self, caller: ClientId, setup: Bytes) -> Result<DgroupId, GatewayError> {
        self.meter.client(&caller, setup.len())?;
        if setup.len() > SETUP_BYTES_MAX {
            return Err(GatewayError::bad_field(
                "setup",
                format!("at most {SETUP_BYTES_MAX} bytes"),
                setup.len(),
            ));
        }
        let setup = Setup::decode(&setup)
            .map_err(|e| GatewayError::bad_field("setup", "the setup of a DGroup", e))?;
        if setup.number(&caller).is_none() {
            return Err(GatewayError::NotYours("only a member brings a DGroup"));
        }
        on_disk(self.store()?, move |store| store.create(&setup)).await
    }

    async fn submit(&self, caller: ClientId, request: SubmitItemRequest) -> Result<u64, GatewayError> {
        let id = dgroup_id(&request.dgroup_id)?;
        let bytes = request.item.as_ref().map_or(0, |item| item.message.len() + item.welcome.len());
        self.meter.client(&caller, bytes)?;
        let setup = self.joined(id, &caller).await?;
        let _under_way = self.meter.group(&metered(&id)?, bytes)?;
        let mut item = request.item.ok_or_else(|| GatewayError::bad_field("item", "an item", "nothing"))?;
        if item.owner.is_empty() {
            item.owner = caller.to_bytes();
        }
        if item.owner != caller.as_bytes() {
            return Err(GatewayError::NotYours("only its owner writes in a stream"));
        }
        let item = check(&id, &setup, item)?;
        let seq = item.seq;
        let stored = on_disk(self.store()?, move |store| store.submit(id, item)).await?;
        let refused = |reason, message: &str, facts: [(&str, String); 2]| {
            Err(GatewayError::Refused(convert::refused(reason, format_args!("{message}"), facts)))
        };
        metrics::mesh_items("client", 1);
        match stored {
            Stored::Kept { contiguous } => Ok(contiguous),
            // It was here, and was delivered or can be delivered by nobody.
            Stored::Dropped => Ok(seq),
            Stored::TooFar { contiguous } => refused(
                Reason::EpochAhead,
                "too many items are missing in front of it, or there is no room for it to wait for them; submit those first",
                [("expected", (contiguous + 1).to_string()), ("got", seq.to_string())],
            ),
            Stored::Conflict => refused(
                Reason::WrongState,
                "another item has this number; was the client's state restored from a copy?",
                [("expected", "the item with this number".into()), ("got", "another one".into())],
            ),
        }
    }

    async fn follow(
        self,
        id: DgroupId,
        mut cursor: BTreeMap<ClientId, u64>,
        events: mpsc::Sender<Result<SubscribeItemsResponse, Status>>,
    ) -> Result<(), GatewayError> {
        let mut marks = self.store()?.marks();
        let mut told_caught_up = false;
        let mut seen = 0;
        loop {
            let newest = *marks.borrow_and_update();
            let streams = on_disk(self.store()?, move |store| store.streams(&id, seen)).await?;
            let mut read_all = true;
            let mut moved = false;
            for (owner, stream) in &streams {
                let read = cursor.entry(owner.clone()).or_default();
                if *read + 1 < stream.first {
                    let dropped = DroppedItems { owner: owner.to_bytes(), to: stream.first - 1 };
                    *read = stream.first - 1;
                    if send(&events, Event::Dropped(dropped)).await.is_err() {
                        return Ok(());
                    }
                }
                while *read < stream.last {
                    let (from, to, who) = (*read + 1, stream.last, owner.clone());
                    let page =
                        on_disk(self.store()?, move |store| store.read(&id, &who, from, to, PAGE_ITEMS))
                            .await?;
                    // Dropped in the meantime: the next round says so.
                    if page.first().is_none_or(|first| first.seq != from) {
                        read_all = false;
                        break;
                    }
                    for item in page {
                        *read = item.seq;
                        moved = true;
                        if send(&events, Event::Item(item.into())).await.is_err() {
                            return Ok(());
                        }
                    }
                }
            }
            // What has changed since is looked at again in the next round.
            if read_all {
                seen = newest;
            }
            if !moved && read_all && !std::mem::replace(&mut told_caught_up, true) {
                let position =
                    |(owner, seq): (&ClientId, &u64)| StreamPosition { owner: owner.to_bytes(), seq: *seq };
                let positions = cursor.iter().map(position).collect();
                if send(&events, Event::CaughtUp(StreamPositions { positions })).await.is_err() {
                    return Ok(());
                }
            }
            if moved {
                continue;
            }
            tokio::select! {
                changed = marks.changed() => if changed.is_err() { return Err(GatewayError::Stopping) },
                () = self.drain.begun() => return Err(GatewayError::Stopping),
                () = events.closed() => return Ok(()),
            }
        }
    }
}

async fn send(events: &mpsc::Sender<Result<SubscribeItemsResponse, Status>>, event: Event) -> Result<(), ()> {
    events.send(Ok(SubscribeItemsResponse { event: Some(event) })).await.map_err(|_| ())
}

#[tonic::async_trait]
impl DimlsGroups for DimlsApi {
    async fn create_dgroup(
        &self,
        request: Request<CreateDgroupRequest>,
    ) -> Result<Response<CreateDgroupResponse>, Status> {
        let caller = self.client(&request)?;
        let id = self.create(caller, request.into_inner().setup).await?;
        Ok(Response::new(CreateDgroupResponse { dgroup_id: id.to_bytes() }))
    }

    async fn list_dgroups(
        &self,
        request: Request<ListDgroupsRequest>,
    ) -> Result<Response<ListDgroupsResponse>, Status> {
        let caller = self.client(&request)?;
        self.meter.read(&caller)?;
        let setups = on_disk(self.store()?, move |store| store.setups_of(&caller, LISTED_MAX)).await?;
        Ok(Response::new(ListDgroupsResponse { setups }))
    }

    async fn submit_item(
        &self,
        request: Request<SubmitItemRequest>,
    ) -> Result<Response<SubmitItemResponse>, Status> {
        let caller = self.client(&request)?;
        let contiguous = self.submit(caller, request.into_inner()).await?;
        Ok(Response::new(SubmitItemResponse { contiguous }))
    }

    type SubscribeItemsStream = Pin<Box<dyn Futures<Item = Result<SubscribeItemsResponse, Status>> + Send>>;

    async fn subscribe_items(
        &self,
        request: Request<SubscribeItemsRequest>,
    ) -> Result<Response<Self::SubscribeItemsStream>, Status> {
        let caller = self.client(&request)?;
        let pb::SubscribeItemsRequest { dgroup_id: id, cursor: positions } = request.into_inner();
        let id = dgroup_id(&id)?;
        let setup = self.joined(id, &caller).await?;
        let mut cursor = BTreeMap::new();
        for StreamPosition { owner, seq } in positions {
            let owner = convert::client_id("cursor.owner", owner).map_err(GatewayError::bad_wire)?;
            if setup.number(&owner).is_none() {
                return Err(GatewayError::bad_field("cursor.owner", "a member", "another client").into());
            }
            cursor.insert(owner, seq);
        }
        let held =
            (self.meter.client_streams.hold(&caller)?, self.meter.group_subscriptions.hold(&metered(&id)?)?);
        let (events, told) = mpsc::channel(EVENTS_MAX);
        let (api, hold) = (self.clone(), self.drain.hold());
        tokio::spawn(async move {
            let (_hold, _held) = (hold, held);
            if let Err(error) = api.follow(id, cursor, events.clone()).await {
                // The client goes on from its cursor, here or at another gateway.
                let _ = events.send(Err(error.into())).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(told))))
    }
}
