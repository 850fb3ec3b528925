//! Gateways without a cluster, over real sockets and disks.

#![allow(clippy::unwrap_used)] // A panic in a test is its report.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use concordat_proto::gateway::v1::{
    CreateDgroupRequest, DimlsItem, StreamPosition, SubmitItemRequest, SubscribeItemsRequest,
    dimls_groups_client::DimlsGroupsClient, subscribe_items_response::Event,
};
use group_log::{ClientId, dimls::Setup};
use mls_gateway::{
    identity::CLIENT_KEY,
    mesh::{
        Bounds, DimlsParts, MeshGateway, MeshParts,
        limits::{DROPPED_PATIENCE, STREAM_BYTES_MAX, TOTAL_BYTES_MAX},
    },
};
use openmls::prelude::{BasicCredential, Ciphersuite, CredentialWithKey, MlsGroup};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use service_kit::{net::tcp_network, rng::Randomness};
use tonic::{Code, Request, metadata::MetadataValue, transport::Channel};

const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
const WIDE: Bounds = Bounds { stream_bytes: STREAM_BYTES_MAX, total_bytes: TOTAL_BYTES_MAX };

async fn gateway(dir: &Path, peers: &[String], bounds: Bounds, mesh: &str) -> MeshGateway {
    patient(dir, peers, bounds, mesh, DROPPED_PATIENCE).await
}

/// One that waits so long for what another has dropped.
async fn patient(
    dir: &Path,
    peers: &[String],
    bounds: Bounds,
    mesh: &str,
    patience: Duration,
) -> MeshGateway {
    let network = tcp_network();
    let incoming = network.listen("127.0.0.1:0".into()).await.unwrap();
    let mesh = network.listen(mesh.into()).await.unwrap();
    let rng = Randomness::from_os();
    let dimls = DimlsParts {
        bounds,
        peers: peers.to_vec(),
        dropped_patience: patience,
        ..DimlsParts::new(dir.into())
    };
    MeshGateway::start(MeshParts::trusting(dimls, incoming, mesh, network, rng)).unwrap()
}

type Calls = DimlsGroupsClient<Channel>;

async fn calls(gateway: &MeshGateway) -> Calls {
    DimlsGroupsClient::connect(format!("http://{}", gateway.address())).await.unwrap()
}

fn as_client<T>(name: &'static str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert_bin(CLIENT_KEY, MetadataValue::from_bytes(name.as_bytes()));
    request
}

fn setup() -> Setup {
    Setup::new([3; 16], ["ann", "bob"].map(|name| ClientId::new(name).unwrap()), [u16::from(SUITE)], 32)
        .unwrap()
}

/// Real messages of a real group with the id of the Send Group of `owner`.
fn messages(owner: &'static str, count: u64) -> Vec<DimlsItem> {
    let provider = OpenMlsRustCrypto::default();
    let signer = SignatureKeyPair::new(SUITE.signature_algorithm()).unwrap();
    let credential = CredentialWithKey {
        credential: BasicCredential::new(owner.into()).into(),
        signature_key: signer.public().into(),
    };
    let id = setup().id().send_group(&ClientId::new(owner).unwrap());
    let mut group = MlsGroup::builder()
        .with_group_id(openmls::prelude::GroupId::from_slice(id.as_bytes()))
        .ciphersuite(SUITE)
        .build(&provider, &signer, credential)
        .unwrap();
    (1..=count)
        .map(|seq| DimlsItem {
            owner: Bytes::new(),
            seq,
            message: group.create_message(&provider, &signer, &[0; 200]).unwrap().to_bytes().unwrap().into(),
            welcome: Bytes::new(),
        })
        .collect()
}

async fn create(calls: &mut Calls) {
    let request = CreateDgroupRequest { setup: setup().encode().into() };
    calls.create_dgroup(as_client("ann", request)).await.unwrap();
}

async fn submit(calls: &mut Calls, as_: &'static str, item: DimlsItem) -> Result<u64, tonic::Status> {
    let request = SubmitItemRequest { dgroup_id: setup().id().to_bytes(), item: Some(item) };
    Ok(calls.submit_item(as_client(as_, request)).await?.into_inner().contiguous)
}

/// Reads until `last` of the stream of ann has come. Returns what came, `Err(to)` for what was dropped.
async fn read(calls: &mut Calls, after: u64, last: u64) -> Vec<Result<u64, u64>> {
    let cursor = vec![StreamPosition { owner: Bytes::from_static(b"ann"), seq: after }];
    let request = SubscribeItemsRequest { dgroup_id: setup().id().to_bytes(), cursor };
    let mut told = calls.subscribe_items(as_client("bob", request)).await.unwrap().into_inner();
    let mut came = Vec::new();
    tokio::time::timeout(Duration::from_secs(60), async {
        while came.last() != Some(&Ok(last)) {
            match told.message().await.unwrap().unwrap().event.unwrap() {
                Event::Item(item) => came.push(Ok(item.seq)),
                Event::Dropped(dropped) => came.push(Err(dropped.to)),
                Event::CaughtUp(_) => {}
            }
        }
    })
    .await
    .unwrap();
    came
}

/// Waits until a gateway knows the DGroup.
async fn knows(gateway: &MeshGateway) {
    while gateway.store().setup(&setup().id()).unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn gateways_that_never_meet_are_served_by_a_third_that_meets_them_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let first = gateway(&path("first"), &[], WIDE, "127.0.0.1:0").await;
    let at = first.mesh_address().to_string();
    let mut ann = calls(&first).await;
    create(&mut ann).await;
    for item in messages("ann", 5) {
        submit(&mut ann, "ann", item).await.unwrap();
    }
    // The courier meets the first one, and keeps what it got over a restart.
    let courier = gateway(&path("courier"), &[at], WIDE, "127.0.0.1:0").await;
    knows(&courier).await;
    assert_eq!(read(&mut calls(&courier).await, 0, 5).await.len(), 5);
    courier.stop().await;
    first.stop().await;
    let courier = gateway(&path("courier"), &[], WIDE, "127.0.0.1:0").await;
    let last = gateway(&path("last"), &[courier.mesh_address().to_string()], WIDE, "127.0.0.1:0").await;
    knows(&last).await;
    let mut bob = calls(&last).await;
    assert_eq!(read(&mut bob, 0, 5).await, [Ok(1), Ok(2), Ok(3), Ok(4), Ok(5)]);
    assert_eq!(read(&mut bob, 3, 5).await, [Ok(4), Ok(5)], "from a cursor");
}

#[tokio::test]
async fn only_the_owner_writes_in_its_stream_and_nobody_twice_at_one_place() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = gateway(dir.path(), &[], WIDE, "127.0.0.1:0").await;
    let mut calls = calls(&gateway).await;
    create(&mut calls).await;
    let items = messages("ann", 3);
    let code = |result: Result<u64, tonic::Status>| result.unwrap_err().code();
    assert_eq!(code(submit(&mut calls, "bob", items[0].clone()).await), Code::PermissionDenied);
    let named = DimlsItem { owner: Bytes::from_static(b"ann"), ..items[0].clone() };
    assert_eq!(code(submit(&mut calls, "bob", named).await), Code::PermissionDenied);
    assert_eq!(code(submit(&mut calls, "eve", items[0].clone()).await), Code::PermissionDenied);
    let junk = DimlsItem { message: Bytes::from_static(b"junk"), ..items[0].clone() };
    assert_eq!(code(submit(&mut calls, "ann", junk).await), Code::InvalidArgument);
    assert_eq!(submit(&mut calls, "ann", items[1].clone()).await.unwrap(), 0, "it waits for the first");
    assert_eq!(submit(&mut calls, "ann", items[0].clone()).await.unwrap(), 2);
    assert_eq!(submit(&mut calls, "ann", items[0].clone()).await.unwrap(), 2, "the same again");
    let other = DimlsItem { seq: 1, ..items[2].clone() };
    assert_eq!(code(submit(&mut calls, "ann", other).await), Code::FailedPrecondition);
    let far = DimlsItem { seq: 5000, ..items[2].clone() };
    assert_eq!(code(submit(&mut calls, "ann", far).await), Code::FailedPrecondition);
}

#[tokio::test]
async fn what_was_dropped_at_the_bound_is_said_to_readers_and_other_gateways() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let small = Bounds { stream_bytes: 2500, total_bytes: TOTAL_BYTES_MAX };
    let first = gateway(&path("first"), &[], small, "127.0.0.1:0").await;
    let mut ann = calls(&first).await;
    create(&mut ann).await;
    for item in messages("ann", 20) {
        submit(&mut ann, "ann", item).await.unwrap();
    }
    let came = read(&mut ann, 0, 20).await;
    let Some(Err(dropped)) = came.first() else { panic!("{came:?}") };
    let rest: Vec<_> = (dropped + 1..=20).map(Ok).collect();
    assert_eq!(came[1..], rest);
    // What it has just taken in goes with the news of it, dropped or not: afterwards there is only what is kept.
    first.stop().await;
    let first = gateway(&path("first"), &[], small, "127.0.0.1:0").await;
    let late = gateway(&path("late"), &[first.mesh_address().to_string()], WIDE, "127.0.0.1:0").await;
    knows(&late).await;
    assert_eq!(read(&mut calls(&late).await, 0, 20).await, came);
}

/// A gateway that has items 1 to `count` of ann, and stops.
async fn filled(dir: &Path, items: &[DimlsItem], bounds: Bounds) {
    let gateway = gateway(dir, &[], bounds, "127.0.0.1:0").await;
    let mut ann = calls(&gateway).await;
    create(&mut ann).await;
    for item in items {
        submit(&mut ann, "ann", item.clone()).await.unwrap();
    }
    gateway.stop().await;
}

#[tokio::test]
async fn what_one_gateway_has_dropped_a_third_may_still_bring() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let items = messages("ann", 20);
    // All three had the beginning. The small one went on and dropped it, the large one went on and did not.
    filled(&path("behind"), &items[..2], WIDE).await;
    filled(&path("small"), &items, Bounds { stream_bytes: 2500, ..WIDE }).await;
    filled(&path("large"), &items, WIDE).await;
    let small = gateway(&path("small"), &[], WIDE, "127.0.0.1:0").await;
    let large_at = {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        port.local_addr().unwrap().to_string()
    };
    let peers = [small.mesh_address().to_string(), large_at.clone()];
    let behind = gateway(&path("behind"), &peers, WIDE, "127.0.0.1:0").await;
    let mut bob = calls(&behind).await;
    // The small one alone does not make it give up what is gone there.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let ann = ClientId::new("ann").unwrap();
    assert_eq!(behind.store().stream(&setup().id(), &ann).unwrap().last, 2);
    let _large = gateway(&path("large"), &[], WIDE, &large_at).await;
    let all: Vec<_> = (1..=20).map(Ok).collect();
    assert_eq!(read(&mut bob, 0, 20).await, all, "nothing is missing");
}

#[tokio::test]
async fn what_nobody_brings_in_time_is_given_up_although_nothing_else_happens() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let items = messages("ann", 20);
    filled(&path("behind"), &items[..2], WIDE).await;
    filled(&path("small"), &items, Bounds { stream_bytes: 2500, ..WIDE }).await;
    let small = gateway(&path("small"), &[], WIDE, "127.0.0.1:0").await;
    let peers = [small.mesh_address().to_string()];
    let patience = Duration::from_millis(700);
    let behind = patient(&path("behind"), &peers, WIDE, "127.0.0.1:0", patience).await;
    let came = read(&mut calls(&behind).await, 2, 20).await;
    let Some(Err(dropped)) = came.first() else { panic!("{came:?}") };
    assert_eq!(came[1..], (dropped + 1..=20).map(Ok).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_gateway_that_was_down_goes_on_where_it_was_and_keeps_what_it_had() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let items = messages("ann", 30);
    let first = gateway(&path("first"), &[], WIDE, "127.0.0.1:0").await;
    let at = first.mesh_address().to_string();
    let mut ann = calls(&first).await;
    create(&mut ann).await;
    for (round, some) in items.chunks(10).enumerate() {
        for item in some {
            submit(&mut ann, "ann", item.clone()).await.unwrap();
        }
        // The second one is there only now and then, and finds the first one on from its own disk.
        let second = gateway(&path("second"), std::slice::from_ref(&at), WIDE, "127.0.0.1:0").await;
        knows(&second).await;
        let after = 10 * round as u64;
        let expected: Vec<_> = (after + 1..=after + 10).map(Ok).collect();
        assert_eq!(read(&mut calls(&second).await, after, after + 10).await, expected);
        second.stop().await;
    }
}
