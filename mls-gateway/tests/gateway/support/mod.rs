//! What the tests stand on: real OpenMLS members, gateways over real sockets, a real cluster, and a fake one that misbehaves on order.

pub mod fake;
pub mod forks;
pub mod member;
pub mod real;

use std::{future::Future, time::Duration};

use bytes::Bytes;
use concordat_proto::{
    gateway::v1::{
        CreateGroupRequest, SubmitRequest, SubmitResponse, SubscribeRequest, SubscribeResponse,
        gateway_client::GatewayClient, submit_response::Outcome, subscribe_response::Event,
    },
    log::v1::{Accepted, Cursor, Entry, GroupKind, Head, Superseded, cursor::Chain},
};
use mls_gateway::{
    identity::CLIENT_KEY,
    server::{Gateway, Parts},
};
use service_kit::{
    net::{Connector, tcp_network},
    rng::Randomness,
    status::StatusFacts,
};
use tonic::{
    Code, Request, Status, Streaming,
    metadata::MetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

/// Nothing in these tests takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Fails the test with a message instead of hanging.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} did not happen"))
}

/// Waits until `condition` holds.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    soon(what, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// A gateway in front of these ordering nodes.
pub async fn gateway(ordering: &[String]) -> Gateway {
    gateway_with(ordering, |_| {}).await
}

/// The same, not made as usual.
pub async fn gateway_with(ordering: &[String], change: impl FnOnce(&mut Parts)) -> Gateway {
    let network = tcp_network();
    let incoming = network.listen("127.0.0.1:0".into()).await.unwrap();
    let mut parts = Parts::new(ordering.to_vec(), incoming, network, Randomness::from_os());
    change(&mut parts);
    let gateway = Gateway::start(parts).unwrap();
    soon("the gateway", gateway.ready()).await;
    gateway
}

#[derive(Clone)]
pub struct Named(Bytes);

impl Interceptor for Named {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert_bin(CLIENT_KEY, MetadataValue::from_bytes(&self.0));
        Ok(request)
    }
}

/// A connection to a gateway that names its client.
pub type Client = GatewayClient<InterceptedService<Channel, Named>>;

pub fn channel(gateway: &Gateway) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", gateway.address())).unwrap();
    endpoint.connect_with_connector_lazy(Connector::new(tcp_network()))
}

pub fn client(gateway: &Gateway, name: &[u8]) -> Client {
    let named = Named(Bytes::copy_from_slice(name));
    GatewayClient::with_interceptor(channel(gateway), named)
        .max_decoding_message_size(32 << 20)
        .max_encoding_message_size(32 << 20)
}

pub fn create_request(group_info: Bytes) -> CreateGroupRequest {
    CreateGroupRequest { group_info, kind: GroupKind::Mls.into(), policy: None }
}

/// Submits and returns what became of it.
pub async fn submit(client: &mut Client, request: SubmitRequest) -> Outcome {
    soon("an answer", client.submit(request)).await.unwrap().into_inner().outcome.unwrap()
}

pub fn accepted(outcome: Outcome) -> Accepted {
    match outcome {
        Outcome::Accepted(accepted) => accepted,
        other => panic!("expected to be accepted, got {other:?}"),
    }
}

pub fn superseded(outcome: Outcome) -> Superseded {
    match outcome {
        Outcome::Superseded(superseded) => superseded,
        other => panic!("expected to be superseded, got {other:?}"),
    }
}

pub fn outcome(response: Result<tonic::Response<SubmitResponse>, Status>) -> Result<Outcome, Status> {
    response.map(|r| r.into_inner().outcome.unwrap())
}

/// Asserts the code and the reason of a status, and returns its facts.
#[track_caller]
pub fn assert_refused(status: &Status, code: Code, reason: &str) -> StatusFacts {
    let facts = StatusFacts::of(status);
    assert_eq!((status.code(), facts.reason.as_deref()), (code, Some(reason)), "{status:?}");
    facts
}

/// Alice begins a group and adds Bob.
pub async fn pair(calls: &mut Client, group: &[u8]) -> (member::Member, member::Member) {
    let (mut alice, mut bob) = (member::Member::new("alice"), member::Member::new("bob"));
    calls.create_group(create_request(alice.create(group))).await.unwrap();
    let package = bob.key_package(false);
    let add = alice.commit(&[("bob", package)], &[]);
    let welcome = add.welcome.clone();
    accepted(submit(calls, add).await);
    alice.merge();
    bob.join(&welcome);
    (alice, bob)
}

/// An open subscription.
pub struct Events(Streaming<SubscribeResponse>);

impl Events {
    pub async fn open(client: &mut Client, group_id: &[u8], cursor: Option<(u64, Bytes)>) -> Self {
        let cursor = cursor.map(|(seq, chain_hash)| Cursor {
            chain: Some(Chain::Canonical(concordat_proto::log::v1::CanonicalCursor { seq, chain_hash })),
        });
        let request = SubscribeRequest {
            group_id: Bytes::copy_from_slice(group_id),
            cursor,
            known_branch_entries: Vec::new(),
        };
        Self(soon("a subscription", client.subscribe(request)).await.unwrap().into_inner())
    }

    pub async fn next(&mut self) -> Result<Event, Status> {
        soon("an event", self.0.message()).await.map(|e| e.expect("the stream goes on").event.unwrap())
    }

    /// The next entry; other events are passed over.
    pub async fn entry(&mut self) -> Entry {
        loop {
            if let Event::Entry(entry) = self.next().await.unwrap() {
                return entry;
            }
        }
    }

    pub async fn entries(&mut self, count: usize) -> Vec<Entry> {
        let mut entries = Vec::new();
        while entries.len() < count {
            entries.push(self.entry().await);
        }
        entries
    }

    /// All entries up to the first that says that everything was delivered.
    pub async fn caught_up(&mut self) -> (Vec<Entry>, Head) {
        let mut entries = Vec::new();
        loop {
            match self.next().await.unwrap() {
                Event::Entry(entry) => entries.push(entry),
                Event::CaughtUp(head) => return (entries, head),
                Event::ModeChange(_) | Event::BranchEntry(_) => {}
                Event::Pruned(_) => panic!("the log begins later"),
            }
        }
    }
}
