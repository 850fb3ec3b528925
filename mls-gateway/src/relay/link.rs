//! Listening to peers: each configured peer is dialed again and again, and is a neighbour for as long as it is heard.

use std::sync::Arc;

use concordat_proto::relay::v1::{self as pb, link_message::Message, relay_client::RelayClient};
use group_log::fork::GatewayId;
use service_kit::{channel::Channel, net::SharedNetwork};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming, transport::Endpoint};

use super::{Neighbour, Relay, repair::Repair};
use crate::{
    demls::Registry,
    error::GatewayError,
    limits::{
        CONNECT_TIMEOUT, RELAY_DIGESTS_MAX, RELAY_MESSAGE_BYTES_MAX, RELAY_RECONNECT_PAUSE, RELAY_SILENCE_MAX,
    },
    metrics,
};

/// Listens to the peers at these addresses (`host:port`), for good.
pub fn listen_to_peers(
    relay: &Arc<Relay>,
    registry: &Arc<Registry>,
    peers: &[String],
    network: &SharedNetwork,
    address: &str,
) -> Result<Vec<AbortOnDropHandle<()>>, tonic::transport::Error> {
    peers
        .iter()
        .map(|peer| {
            let endpoint = Endpoint::from_shared(format!("http://{peer}"))?.connect_timeout(CONNECT_TIMEOUT);
            let channel = Channel::lazy(&endpoint, Arc::clone(network));
            let client = RelayClient::new(channel)
                .max_decoding_message_size(RELAY_MESSAGE_BYTES_MAX)
                .max_encoding_message_size(RELAY_MESSAGE_BYTES_MAX);
            let peer = Peer {
                relay: Arc::clone(relay),
                registry: Arc::clone(registry),
                peer: peer.clone(),
                address: address.to_owned(),
                client,
            };
            Ok(AbortOnDropHandle::new(tokio::spawn(peer.run())))
        })
        .collect()
}

struct Peer {
    relay: Arc<Relay>,
    registry: Arc<Registry>,
    /// Where it is.
    peer: String,
    /// Where this gateway is.
    address: String,
    client: Neighbour,
}

impl Peer {
    async fn run(self) {
        let mut last_words = String::new();
        loop {
            let Err(status) = self.listen().await else { return };
            let words = format!("{:?}: {}", status.code(), status.message());
            // A peer that is down says the same over and over.
            if words != last_words {
                tracing::info!(peer = self.peer, words, "a peer is not heard");
                last_words = words;
            }
            sleep(RELAY_RECONNECT_PAUSE).await;
        }
    }

    /// Opens a link, over a new connection if the peer has asked for one. Nothing if there is nobody to listen to: a list of all gateways
    /// may name this one, too.
    async fn open(&self) -> Result<Option<(GatewayId, Streaming<pb::LinkMessage>)>, Status> {
        let mut cluster = self.relay.cluster.clone();
        let Ok(Some(cluster_id)) = cluster.wait_for(Option::is_some).await.map(|id| id.clone()) else {
            return Ok(None);
        };
        let hello = pb::Hello {
            gateway_id: self.relay.own.0.to_vec().into(),
            cluster_id,
            address: self.address.clone(),
        };
        let request = self.relay.signed(pb::LinkRequest { hello: Some(hello) });
        let mut client = self.client.clone();
        let opened = timeout(CONNECT_TIMEOUT, client.link(request)).await;
        let mut messages = opened.map_err(|_| Status::deadline_exceeded("no answer in time"))??.into_inner();
        let Some(Next::Message(Message::Hello(hello))) = next(&mut messages).await? else {
            return Err(GatewayError::Protocol("a link begins with a hello").into());
        };
        let neighbour = self.relay.check_peer(&hello.gateway_id, &hello.cluster_id)?;
        Ok((neighbour != self.relay.own).then_some((neighbour, messages)))
    }

    /// Listens until the link is cut. Ends well only if there is nobody to listen to.
    async fn listen(&self) -> Result<(), Status> {
        let Some((neighbour, mut messages)) = self.open().await? else { return Ok(()) };
        tracing::info!(peer = self.peer, gateway = ?neighbour, "a peer is heard");
        let link = Link { relay: &self.relay, neighbour };
        self.relay.state.lock().neighbours.insert(neighbour, self.client.clone());
        metrics::relay_links(self.relay.links());
        let repair = Repair::start(Arc::clone(&self.relay), Arc::clone(&self.registry), self.client.clone());
        loop {
            let message = match next(&mut messages).await? {
                Some(Next::Message(message)) => message,
                Some(Next::Unknown) => continue,
                // The link is as old as its connection may be. Meanwhile the peer stays a neighbour.
                None => {
                    messages = self.open_again(neighbour).await?;
                    continue;
                }
            };
            match message {
                Message::Reach(reach) => {
                    if link.relay.state.lock().reach.announced(neighbour, &reach) {
                        link.relay.changed.send_replace(());
                    }
                }
                Message::Digests(digests) if digests.groups.len() <= RELAY_DIGESTS_MAX => {
                    repair.heard(digests.groups);
                }
                Message::Digests(digests) => {
                    let expected = format!("at most {RELAY_DIGESTS_MAX}");
                    return Err(GatewayError::bad_field("digests", expected, digests.groups.len()).into());
                }
                Message::Hello(_) => {}
            }
        }
    }

    async fn open_again(&self, neighbour: GatewayId) -> Result<Streaming<pb::LinkMessage>, Status> {
        let opened = timeout(RELAY_SILENCE_MAX, self.open()).await;
        match opened.map_err(|_| Status::unavailable("the peer is silent"))?? {
            Some((same, messages)) if same == neighbour => Ok(messages),
            _ => Err(Status::unavailable("another gateway answers in the peer's place")),
        }
    }
}

/// What comes over a link.
enum Next {
    Message(Message),
    /// Of a later version.
    Unknown,
}

/// What comes next; nothing if the peer has ended the link. Silence is a cut.
async fn next(messages: &mut Streaming<pb::LinkMessage>) -> Result<Option<Next>, Status> {
    match timeout(RELAY_SILENCE_MAX, messages.message()).await {
        Ok(Ok(message)) => Ok(message.map(|message| message.message.map_or(Next::Unknown, Next::Message))),
        Ok(Err(status)) => Err(status),
        Err(_) => Err(Status::unavailable("the peer is silent")),
    }
}

/// Takes the neighbour away when the link ends.
struct Link<'r> {
    relay: &'r Arc<Relay>,
    neighbour: GatewayId,
}

impl Drop for Link<'_> {
    fn drop(&mut self) {
        let mut state = self.relay.state.lock();
        state.neighbours.remove(&self.neighbour);
        state.reach.cut(&self.neighbour);
        metrics::relay_links(state.neighbours.len());
        drop(state);
        self.relay.changed.send_replace(());
    }
}
