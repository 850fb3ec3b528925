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
        MeshGateway, MeshParts,
        limits::{STREAM_BYTES_MAX, TOTAL_BYTES_MAX},
        store::Bounds,
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
    let network = tcp_network();
    let incoming = network.listen("127.0.0.1:0".into()).await.unwrap();
    let mesh = network.listen(mesh.into()).await.unwrap();
    let rng = Randomness::from_os();
    MeshGateway::start(MeshParts::trusting(dir.into(), bounds, incoming, mesh, peers.to_vec(), network, rng))
        .unwrap()
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
    let late = gateway(&path("late"), &[first.mesh_address().to_string()], WIDE, "127.0.0.1:0").await;
    knows(&late).await;
    assert_eq!(read(&mut calls(&late).await, 0, 20).await, came);
}
