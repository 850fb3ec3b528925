//! DiMLS groups at a gateway in front of a cluster: the same endpoint as all others, but without the cluster.

use concordat_proto::{
    gateway::v1::{
        CreateDgroupRequest, DimlsItem, ListDgroupsRequest, SubmitItemRequest, SubscribeItemsRequest,
        dimls_groups_client::DimlsGroupsClient, subscribe_items_response::Event,
    },
    log::v1::GroupKind,
};
use group_log::{ClientId, dimls::Setup};
use mls_gateway::{
    identity::CLIENT_KEY,
    mesh::DimlsParts,
    server::{DemlsParts, Gateway},
};
use service_kit::net::tcp_network;
use tonic::{Code, Request, metadata::MetadataValue, transport::Channel};

use crate::support::{
    assert_refused, client, create_request, fake::FakeCluster, gateway, gateway_with, member::Member, soon,
};

fn setup() -> Setup {
    let members = ["ann", "bob"].map(|name| ClientId::new(name).unwrap());
    Setup::new([9; 16], members, [1], 32).unwrap()
}

fn by<T>(name: &'static str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert_bin(CLIENT_KEY, MetadataValue::from_bytes(name.as_bytes()));
    request
}

async fn calls(gateway: &Gateway) -> DimlsGroupsClient<Channel> {
    DimlsGroupsClient::connect(format!("http://{}", gateway.address())).await.unwrap()
}

#[tokio::test]
async fn all_kinds_live_at_one_endpoint_and_dimls_needs_no_quorum() {
    let cluster = FakeCluster::start(1).await;
    let network = tcp_network();
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let relay = network.listen("127.0.0.1:0".into()).await.unwrap();
    let relay_address = relay.local_addr().to_string();
    let first = gateway_with(&cluster.addresses(), |parts| {
        parts.demls = Some(DemlsParts { relay: Some(relay), ..DemlsParts::new(one.path().join("data")) });
        parts.dimls = Some(DimlsParts::new(one.path().join("dimls")));
    })
    .await;
    let second = gateway_with(&cluster.addresses(), |parts| {
        parts.dimls =
            Some(DimlsParts { peers: vec![relay_address], ..DimlsParts::new(two.path().join("dimls")) });
    })
    .await;
    let mut ordered = client(&first, b"ann");
    ordered.create_group(create_request(Member::new("ann").create(b"a plain group"))).await.unwrap();
    drop(cluster);

    let mut owner = Member::new("ann");
    let setup = setup();
    let id = setup.id();
    let mut at_first = calls(&first).await;
    let create = CreateDgroupRequest { setup: setup.encode().into() };
    at_first.create_dgroup(by("ann", create)).await.unwrap();
    owner.create(id.send_group(&ClientId::new("ann").unwrap()).as_bytes());
    let message = owner.say("hello").message;
    let item = DimlsItem {
        owner: Default::default(),
        seq: 1,
        message: message.clone(),
        welcome: Default::default(),
    };
    let request = SubmitItemRequest { dgroup_id: id.to_bytes(), item: Some(item) };
    assert_eq!(at_first.submit_item(by("ann", request)).await.unwrap().into_inner().contiguous, 1);

    // The other gateway pulls it from the relay of the first.
    let mut at_second = calls(&second).await;
    soon("the group at the other gateway", async {
        while at_second
            .list_dgroups(by("bob", ListDgroupsRequest {}))
            .await
            .unwrap()
            .into_inner()
            .setups
            .is_empty()
        {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    let follow = SubscribeItemsRequest { dgroup_id: id.to_bytes(), cursor: Vec::new() };
    let mut told = at_second.subscribe_items(by("bob", follow)).await.unwrap().into_inner();
    let got = soon("the item", async {
        loop {
            if let Some(Event::Item(item)) = told.message().await.unwrap().unwrap().event {
                break item;
            }
        }
    })
    .await;
    assert_eq!((got.seq, got.message), (1, message));
}

#[tokio::test]
async fn the_log_refuses_kind_dimls_and_names_the_right_call() {
    let cluster = FakeCluster::start(1).await;
    let gateway = gateway(&cluster.addresses()).await;
    let mut request = create_request(Member::new("ann").create(b"group"));
    request.kind = GroupKind::Dimls.into();
    let error = client(&gateway, b"ann").create_group(request).await.unwrap_err();
    assert_refused(&error, Code::InvalidArgument, "MALFORMED");
    assert!(error.message().contains("DimlsGroups/CreateDgroup"), "{error}");
    // Without a disk there are no DiMLS groups either, and the answer says what to do about it.
    let setup = setup().encode().into();
    let error =
        calls(&gateway).await.create_dgroup(by("ann", CreateDgroupRequest { setup })).await.unwrap_err();
    assert!(error.message().contains("--data-dir"), "{error}");
}
