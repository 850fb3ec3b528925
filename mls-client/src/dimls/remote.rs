//! The way to a gateway for DiMLS groups: `concordat.gateway.v1.DimlsGroups`.

use bytes::Bytes;
use concordat_proto::gateway::v1::{
    CreateDgroupRequest, DimlsItem, DroppedItems, ListDgroupsRequest, StreamPosition, StreamPositions,
    SubmitItemRequest, SubscribeItemsRequest, dimls_groups_client::DimlsGroupsClient,
    subscribe_items_response::Event,
};
use futures::{StreamExt, future::ready, stream::BoxStream};
use group_log::{
    ClientId,
    dimls::{DgroupId, Setup},
};
use service_kit::net::{Connector, SharedNetwork, tcp_network};
use tonic::{
    Request,
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};

use super::item::Item;
use crate::{
    error::Error,
    limits::{CALL_TIMEOUT, CONNECT_TIMEOUT, KEEP_ALIVE_INTERVAL, MAX_ANSWER_BYTES},
    transport::CallError,
};

/// The metadata key that names the calling client.
const CLIENT_KEY: &str = "concordat-client-bin";

/// What a gateway tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The next item of its stream.
    Item(Item),
    /// The items of `owner` up to `to` are gone.
    Dropped {
        /// Whose.
        owner: ClientId,
        /// The last one that is gone.
        to: u64,
    },
    /// Everything that the gateway has was delivered.
    CaughtUp,
}

/// A connection to a gateway, made when it is needed and again when it is lost.
#[derive(Clone, Debug)]
pub struct Remote {
    gateway: DimlsGroupsClient<Channel>,
    client: Bytes,
}

impl Remote {
    /// For `client` to the gateway at `url` (such as `http://127.0.0.1:7400`), over TCP. Does not connect yet.
    pub fn new(url: &str, client: &ClientId) -> Result<Self, Error> {
        Self::over(tcp_network(), url, client)
    }

    /// The same over another network.
    pub fn over(network: SharedNetwork, url: &str, client: &ClientId) -> Result<Self, Error> {
        let whole = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        if !whole.starts_with("http://") {
            let message = "DiMLS groups are reached in plaintext only (http://host:port) so far; put a TLS tunnel in front";
            return Err(Error::Invalid(message.into()));
        }
        let channel = Endpoint::from_shared(whole)
            .map_err(|e| {
                Error::Invalid(format!("`{url}` is not the URL of a gateway: {e}; expected http://host:port"))
            })?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_while_idle(true)
            .connect_with_connector_lazy(Connector::new(network));
        let gateway = DimlsGroupsClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        Ok(Remote { gateway, client: client.to_bytes() })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert_bin(CLIENT_KEY, MetadataValue::from_bytes(&self.client));
        request
    }

    fn timed<T>(&self, message: T) -> Request<T> {
        let mut request = self.request(message);
        request.set_timeout(CALL_TIMEOUT);
        request
    }

    /// Begins a DGroup, or brings it to a gateway that has not heard of it.
    pub async fn create(&self, setup: &Setup) -> Result<(), CallError> {
        let request = self.timed(CreateDgroupRequest { setup: setup.encode().into() });
        self.gateway.clone().create_dgroup(request).await?;
        Ok(())
    }

    /// The DGroups that this client is to be in.
    pub async fn list(&self) -> Result<Vec<Setup>, CallError> {
        let listed = self.gateway.clone().list_dgroups(self.timed(ListDgroupsRequest {})).await?.into_inner();
        // What this version cannot read is for a newer one.
        Ok(listed.setups.iter().filter_map(|setup| Setup::decode(setup).ok()).collect())
    }

    /// Puts an item at its place. Returns up to where the gateway has the stream without a gap.
    pub async fn submit(&self, dgroup: &DgroupId, item: &Item) -> Result<u64, CallError> {
        let wire = DimlsItem {
            owner: item.owner.to_bytes(),
            seq: item.seq,
            message: item.message.clone(),
            welcome: item.welcome.clone(),
        };
        let request = self.timed(SubmitItemRequest { dgroup_id: dgroup.to_bytes(), item: Some(wire) });
        Ok(self.gateway.clone().submit_item(request).await?.into_inner().contiguous)
    }

    /// Follows a DGroup from a cursor.
    pub async fn subscribe(
        &self,
        dgroup: &DgroupId,
        cursor: &[(ClientId, u64)],
    ) -> Result<BoxStream<'static, Result<Delivery, CallError>>, CallError> {
        let position = |(owner, seq): &(ClientId, u64)| StreamPosition { owner: owner.to_bytes(), seq: *seq };
        let request = SubscribeItemsRequest {
            dgroup_id: dgroup.to_bytes(),
            cursor: cursor.iter().map(position).collect(),
        };
        let told = self.gateway.clone().subscribe_items(self.request(request)).await?.into_inner();
        let delivery = |answer: Result<_, tonic::Status>| match answer {
            Err(status) => Some(Err(status.into())),
            Ok(answer) => read(answer).map(Ok),
        };
        Ok(told.filter_map(move |answer| ready(delivery(answer))).boxed())
    }
}

/// Nothing for what cannot be: it is not an item of anybody.
fn read(answer: concordat_proto::gateway::v1::SubscribeItemsResponse) -> Option<Delivery> {
    match answer.event? {
        Event::Item(DimlsItem { owner, seq, message, welcome }) => {
            Some(Delivery::Item(Item { owner: ClientId::new(owner).ok()?, seq, message, welcome }))
        }
        Event::Dropped(DroppedItems { owner, to }) => {
            Some(Delivery::Dropped { owner: ClientId::new(owner).ok()?, to })
        }
        Event::CaughtUp(StreamPositions { .. }) => Some(Delivery::CaughtUp),
    }
}
