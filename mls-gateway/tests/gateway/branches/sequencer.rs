//! A sequencer that speaks of another entry than it was asked for is not believed.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use concordat_proto::relay::v1::{
    self as pb, link_message::Message, relay_server, relay_server::RelayServer, sequence_response::Outcome,
};
use futures::{Stream, StreamExt, stream};
use group_log::{
    EntryId, GroupId, StateId,
    fork::{BranchEntry, GatewayId},
    hash,
};
use mls_gateway::{limits::RELAY_HEARTBEAT, relay::Reach};
use service_kit::net::tcp_network;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, transport::Server};

use super::site::{GROUP, Site, after, create, made_in, provisional, sites};
use crate::support::{fake::FakeCluster, member::Member, submit, until};

/// What the sequencer says that it has accepted, for what it was asked to.
type Lie = fn(&BranchEntry) -> Bytes;

/// A gateway that says so, and has nothing.
#[derive(Clone)]
struct Liar {
    id: GatewayId,
    lie: Arc<Mutex<Lie>>,
    /// What it was asked to sequence.
    asked: Arc<Mutex<Vec<EntryId>>>,
}

type Links = Pin<Box<dyn Stream<Item = Result<pb::LinkMessage, Status>> + Send>>;

#[tonic::async_trait]
impl relay_server::Relay for Liar {
    type LinkStream = Links;

    async fn link(&self, _: Request<pb::LinkRequest>) -> Result<Response<Links>, Status> {
        let gateway_id = Bytes::copy_from_slice(&self.id.0);
        let hello =
            pb::Hello { gateway_id: gateway_id.clone(), cluster_id: "fake".into(), address: String::new() };
        let own = pb::Reached { gateway_id, ..pb::Reached::default() };
        let reach = pb::Reach { gateways: vec![own] };
        let message = |message| Ok(pb::LinkMessage { message: Some(message) });
        let ticks = tokio_stream::wrappers::IntervalStream::new(tokio::time::interval(RELAY_HEARTBEAT));
        let hello = stream::once(async move { message(Message::Hello(hello)) });
        let alive = ticks.map(move |_| message(Message::Reach(reach.clone())));
        Ok(Response::new(hello.chain(alive).boxed()))
    }

    async fn sequence(
        &self,
        request: Request<pb::SequenceRequest>,
    ) -> Result<Response<pb::SequenceResponse>, Status> {
        let entry = BranchEntry::try_from(request.into_inner().entry.unwrap()).unwrap();
        self.asked.lock().unwrap().push(entry.id());
        let entry_id = (self.lie.lock().unwrap())(&entry);
        let outcome = Some(Outcome::Accepted(pb::SequencedEntry { entry_id, copies: 2 }));
        Ok(Response::new(pb::SequenceResponse { outcome }))
    }

    async fn store(&self, _: Request<pb::StoreRequest>) -> Result<Response<pb::StoreResponse>, Status> {
        Err(Status::unavailable("no disk"))
    }

    async fn fetch_branch(
        &self,
        _: Request<pb::FetchBranchRequest>,
    ) -> Result<Response<pb::FetchBranchResponse>, Status> {
        Err(Status::unavailable("nothing"))
    }

    async fn fetch_log(
        &self,
        _: Request<pb::FetchLogRequest>,
    ) -> Result<Response<pb::FetchLogResponse>, Status> {
        Err(Status::unavailable("nothing"))
    }

    async fn forward(&self, _: Request<pb::ForwardRequest>) -> Result<Response<pb::ForwardResponse>, Status> {
        Err(Status::unavailable("no quorum"))
    }
}

/// A liar that the gateway of this site asks before itself.
fn first_for(site: &Site) -> GatewayId {
    let own = site.gateway().demls().unwrap().store().gateway_id();
    let group = GroupId::new(GROUP.to_vec()).unwrap();
    let comes_first = |id: &GatewayId| {
        let mut reach = Reach::new(own);
        let gateway_id = Bytes::copy_from_slice(&id.0);
        let announced = pb::Reached { gateway_id, ..pb::Reached::default() };
        reach.announced(*id, &pb::Reach { gateways: vec![announced] });
        reach.sequencers(&group)[0] == *id
    };
    (0..=u8::MAX).map(|n| GatewayId([n; 16])).find(comes_first).expect("one of 256 comes first")
}

#[tokio::test]
async fn a_sequencer_that_answers_for_another_entry_is_not_believed() {
    let cluster = FakeCluster::start(3).await;
    let mut site = sites(&cluster, 1, |_, _| false).await.remove(0);
    let said_so: [Lie; 5] = [
        // Other bytes in the same state; the same bytes in another state, and in another group's; no id at all.
        |entry| hash::commit_state_id(&entry.parent, b"another commit").to_bytes(),
        |entry| BranchEntry { parent: StateId([7; 32]), ..entry.clone() }.id().to_bytes(),
        |entry| {
            let other = GroupId::new(&b"another group"[..]).unwrap();
            let parent = hash::create_state_id(&other, 0, &Bytes::from_static(b"info"));
            BranchEntry { parent, ..entry.clone() }.id().to_bytes()
        },
        |entry| entry.id().to_bytes().slice(..31),
        |_| Bytes::new(),
    ];
    let lie = Arc::new(Mutex::new(said_so[0]));
    let liar = Liar { id: first_for(&site), lie: Arc::clone(&lie), asked: Arc::default() };
    let incoming = tcp_network().listen("127.0.0.1:0".into()).await.unwrap();
    let address = incoming.local_addr().to_string();
    let serving = Server::builder().add_service(RelayServer::new(liar.clone()));
    let _serving = AbortOnDropHandle::new(tokio::spawn(async move {
        serving.serve_with_incoming(incoming).await.unwrap();
    }));
    site.link_to(address).await;

    let mut calls = site.client(b"alice");
    let mut alice = Member::new("alice");
    let mut state = create(&mut calls, &mut alice).await;
    site.registered(&cluster).await;
    let relay = Arc::clone(&site.gateway().demls().unwrap().paths().relay);
    until("the liar is heard", async || relay.links() == 1).await;
    cluster.set(|state| state.no_quorum = true);
    let mut made = Vec::new();
    for next in said_so {
        *lie.lock().unwrap() = next;
        let commit = made_in(&state, alice.update());
        state = after(&state, &commit);
        let answer = provisional(submit(&mut calls, commit).await);
        alice.merge();
        // What was answered for is here, and nowhere else.
        assert_eq!((answer.entry_id, answer.copies), (state.to_bytes(), 1));
        assert!(site.group().has(&state.into()).await.unwrap());
        made.push(EntryId::from(state));
    }
    assert_eq!(*liar.asked.lock().unwrap(), made, "it was asked first, and once each time");
    cluster.set(|state| state.no_quorum = false);
    until("all are in the log", async || {
        cluster.get(|cluster| cluster.forks.groups[GROUP].fork.current().unwrap().state_id == state)
    })
    .await;
}
