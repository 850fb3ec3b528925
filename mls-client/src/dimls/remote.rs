//! The way to a gateway for DiMLS groups: `concordat.gateway.v1.DimlsGroups`.

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
use service_kit::{
    channel::Channel,
    net::{SharedNetwork, tcp_network},
};

use super::item::Item;
use crate::{
    error::Error,
    limits::MAX_ANSWER_BYTES,
    transport::{CallError, Security, line::Line},
};

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
    line: Line,
}

impl Remote {
    /// For `client` to the gateway at `url`, over TCP: `http://host:port` for one that runs with `--insecure-dev`, `https://host:port` for
    /// all others. Does not connect yet. Needs a tokio runtime.
    pub fn new(url: &str, client: &ClientId, security: &Security) -> Result<Self, Error> {
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
        let gateway =
            DimlsGroupsClient::new(line.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES);
        Ok(Remote { gateway, line })
    }

    /// Begins a DGroup, or brings it to a gateway that has not heard of it.
    pub async fn create(&self, setup: &Setup) -> Result<(), CallError> {
        let request = self.line.timed(CreateDgroupRequest { setup: setup.encode().into() })?;
        self.gateway.clone().create_dgroup(request).await?;
        Ok(())
    }

    /// The DGroups that this client is to be in.
    pub async fn list(&self) -> Result<Vec<Setup>, CallError> {
        let listed =
            self.gateway.clone().list_dgroups(self.line.timed(ListDgroupsRequest {})?).await?.into_inner();
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
        let request =
            self.line.timed(SubmitItemRequest { dgroup_id: dgroup.to_bytes(), item: Some(wire) })?;
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
        let told = self.gateway.clone().subscribe_items(self.line.request(request)?).await?.into_inner();
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
