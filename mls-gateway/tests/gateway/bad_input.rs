//! Bad input of every kind to every RPC: the right status and reason, and nothing reaches the cluster.

use bytes::Bytes;
use concordat_proto::{
    gateway::v1::{
        AckWelcomesRequest, ClaimKeyPackageRequest, CloseGroupRequest, CreateGroupRequest,
        GetGroupInfoRequest, GetHeadRequest, GetKeyPackageStatusRequest, ReadEntriesRequest,
        SetPolicyRequest, SubmitRequest, SubmitStreamRequest, SubscribeRequest, UploadKeyPackagesRequest,
        WatchWelcomesRequest, gateway_client::GatewayClient, submit_stream_response,
    },
    log::v1::{GroupKind, Policy},
};
use service_kit::status::decode;
use tonic::{Code, Status};

use crate::support::{
    Client, assert_refused, channel, client, create_request, fake::FakeCluster, gateway, member::Member, soon,
};

const GROUP: &[u8] = b"group";

fn cut(bytes: &Bytes) -> Bytes {
    bytes.slice(..bytes.len() - 1)
}

fn longer(bytes: &Bytes) -> Bytes {
    [&bytes[..], b"x"].concat().into()
}

/// Ways to spoil any MLSMessage, and the reason that each is refused with.
fn spoilt(valid: &Bytes) -> Vec<(&'static str, Bytes, &'static str)> {
    let with = |at: usize, value: u8| {
        let mut bytes = valid.to_vec();
        bytes[at] = value;
        Bytes::from(bytes)
    };
    vec![
        ("empty", Bytes::new(), "MALFORMED"),
        ("one byte", Bytes::from_static(&[0]), "MALFORMED"),
        ("cut", cut(valid), "MALFORMED"),
        ("trailing", longer(valid), "MALFORMED"),
        ("version", with(1, 9), "MALFORMED"),
        ("unknown type", with(3, 77), "WRONG_MESSAGE_TYPE"),
        ("huge", Bytes::from(vec![0; 4_500_000]), "TOO_LARGE"),
        ("text", Bytes::from_static(b"\x00\x01\x00\x02 hello, this is no MLS message"), "?"),
    ]
}

fn check(name: &str, error: Status, reason: &str) {
    if reason == "?" {
        let reason = service_kit::status::reason(&error);
        assert!(matches!(reason.as_deref(), Some("MALFORMED" | "WRONG_MESSAGE_TYPE")), "{name}: {error:?}");
    } else {
        eprintln!("{name}");
        assert_refused(&error, Code::InvalidArgument, reason);
    }
}

#[tokio::test]
async fn spoilt_messages_are_refused_with_what_is_wrong_with_them() {
    let cluster = FakeCluster::start(1).await;
    let gateway = gateway(&cluster.addresses()).await;
    let (mut alice, mut calls) = (Member::new("alice"), client(&gateway, b"alice"));
    let info = alice.create(GROUP);
    calls.create_group(create_request(info.clone())).await.unwrap();
    let bob = Member::new("bob");
    let commit = alice.commit(&[("bob", bob.key_package(false))], &[]);
    let applied = cluster.get(|state| state.applied);

    for (name, bytes, reason) in spoilt(&info) {
        let error = calls.create_group(create_request(bytes)).await.unwrap_err();
        check(&format!("create, {name}"), error, reason);
    }
    for (name, bytes, reason) in spoilt(&commit.message) {
        let error =
            calls.submit(SubmitRequest { message: bytes, ..SubmitRequest::default() }).await.unwrap_err();
        check(&format!("submit, {name}"), error, reason);
    }
    for (name, bytes, reason) in spoilt(&commit.group_info).into_iter().skip(1) {
        let error = calls.submit(SubmitRequest { group_info: bytes, ..commit.clone() }).await.unwrap_err();
        check(&format!("group_info, {name}"), error, reason);
    }
    for (name, bytes, reason) in spoilt(&commit.welcome).into_iter().skip(1) {
        let error = calls.submit(SubmitRequest { welcome: bytes, ..commit.clone() }).await.unwrap_err();
        check(&format!("welcome, {name}"), error, reason);
    }
    for (name, bytes, reason) in spoilt(&bob.key_package(false)) {
        let request = UploadKeyPackagesRequest { key_packages: vec![bytes], replace: false };
        check(&format!("key package, {name}"), calls.upload_key_packages(request).await.unwrap_err(), reason);
    }
    // The right encoding in the wrong place.
    for wrong in [&info, &commit.welcome, &bob.key_package(false)] {
        let error = calls
            .submit(SubmitRequest { message: wrong.clone(), ..SubmitRequest::default() })
            .await
            .unwrap_err();
        let facts = assert_refused(&error, Code::InvalidArgument, "WRONG_MESSAGE_TYPE");
        assert_eq!(facts.metadata["expected"], "a public or private message");
    }
    let forged = {
        let mut bytes = bob.key_package(false).to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        UploadKeyPackagesRequest { key_packages: vec![bytes.into()], replace: false }
    };
    let error = calls.upload_key_packages(forged).await.unwrap_err();
    assert_refused(&error, Code::InvalidArgument, "MALFORMED");
    assert_eq!(cluster.get(|state| state.applied), applied, "nothing reached the cluster");
}

#[tokio::test]
async fn impossible_fields_are_named() {
    let cluster = FakeCluster::start(1).await;
    let gateway = gateway(&cluster.addresses()).await;
    let (mut alice, mut calls) = (Member::new("alice"), client(&gateway, b"alice"));
    let info = alice.create(GROUP);
    let field = |error: Status| {
        let facts = assert_refused(&error, Code::InvalidArgument, "MALFORMED");
        facts.metadata["field"].clone()
    };
    for kind in [GroupKind::Unspecified as i32, 99] {
        let request = CreateGroupRequest { group_info: info.clone(), kind, policy: None };
        assert_eq!(field(calls.create_group(request).await.unwrap_err()), "kind");
    }
    let policy = Some(Policy { past_epochs: Some(1000), ..Policy::default() });
    let request = CreateGroupRequest { group_info: info.clone(), kind: GroupKind::Mls.into(), policy };
    assert_refused(&calls.create_group(request).await.unwrap_err(), Code::InvalidArgument, "POLICY_INVALID");
    calls.create_group(create_request(info.clone())).await.unwrap();

    let commit = alice.update();
    let request = SubmitRequest { parent_state_id: Bytes::from_static(b"short"), ..commit.clone() };
    assert_eq!(field(calls.submit(request).await.unwrap_err()), "parent_state_id");
    let wrong_state = SubmitRequest { parent_state_id: Bytes::from_static(&[9; 32]), ..commit.clone() };
    assert_refused(&calls.submit(wrong_state).await.unwrap_err(), Code::FailedPrecondition, "WRONG_STATE");
    alice.abandon();
    let mut message = alice.say("hi");
    message.welcome = Bytes::from_static(b"?");
    assert_eq!(field(calls.submit(message).await.unwrap_err()), "welcome");

    for id in [Bytes::new(), Bytes::from(vec![1; 257])] {
        let group_id = || id.clone();
        let requests = [
            calls.get_head(GetHeadRequest { group_id: group_id(), linearizable: false }).await.map(drop),
            calls.get_group_info(GetGroupInfoRequest { group_id: group_id() }).await.map(drop),
            calls.close_group(CloseGroupRequest { group_id: group_id(), epoch: 0 }).await.map(drop),
            calls
                .set_policy(SetPolicyRequest {
                    group_id: group_id(),
                    epoch: 0,
                    policy: Some(Policy::default()),
                })
                .await
                .map(drop),
            calls
                .subscribe(SubscribeRequest {
                    group_id: group_id(),
                    cursor: None,
                    known_branch_entries: Vec::new(),
                })
                .await
                .map(drop),
            calls
                .read_entries(ReadEntriesRequest { group_id: group_id(), ..ReadEntriesRequest::default() })
                .await
                .map(drop),
        ];
        for result in requests {
            assert_eq!(field(result.unwrap_err()), "group_id");
        }
    }
    let request = SetPolicyRequest { group_id: Bytes::from_static(GROUP), epoch: 0, policy: None };
    assert_eq!(field(calls.set_policy(request).await.unwrap_err()), "policy");
    let request = UploadKeyPackagesRequest { key_packages: vec![Bytes::new(); 101], replace: false };
    assert_eq!(field(calls.upload_key_packages(request).await.unwrap_err()), "key_packages");
    let request = UploadKeyPackagesRequest::default();
    assert_eq!(field(calls.upload_key_packages(request).await.unwrap_err()), "key_packages");
    let request = ClaimKeyPackageRequest { client_id: Bytes::new(), claim_id: Bytes::new() };
    assert_eq!(field(calls.claim_key_package(request).await.unwrap_err()), "client_id");
    let request = ClaimKeyPackageRequest { client_id: "bob".into(), claim_id: "short".into() };
    assert_eq!(field(calls.claim_key_package(request).await.unwrap_err()), "claim_id");
}

#[tokio::test]
async fn groups_that_do_not_exist_are_not_found() {
    let cluster = FakeCluster::start(1).await;
    let gateway = gateway(&cluster.addresses()).await;
    let (mut alice, mut calls) = (Member::new("alice"), client(&gateway, b"alice"));
    alice.create(b"never created");
    let group_id = Bytes::from_static(b"never created");
    let results = [
        calls.submit(alice.update()).await.map(drop),
        calls.get_head(GetHeadRequest { group_id: group_id.clone(), linearizable: false }).await.map(drop),
        calls.get_group_info(GetGroupInfoRequest { group_id: group_id.clone() }).await.map(drop),
        calls.close_group(CloseGroupRequest { group_id: group_id.clone(), epoch: 0 }).await.map(drop),
        calls
            .subscribe(SubscribeRequest {
                group_id: group_id.clone(),
                cursor: None,
                known_branch_entries: Vec::new(),
            })
            .await
            .map(drop),
        calls.read_entries(ReadEntriesRequest { group_id, ..ReadEntriesRequest::default() }).await.map(drop),
    ];
    for result in results {
        assert_refused(&result.unwrap_err(), Code::NotFound, "GROUP_NOT_FOUND");
    }
}

#[tokio::test]
async fn whoever_does_not_say_who_it_is_can_do_nothing() {
    let cluster = FakeCluster::start(1).await;
    let gateway = gateway(&cluster.addresses()).await;
    let mut nameless = GatewayClient::new(channel(&gateway));
    let mut too_long: Client = client(&gateway, &[1; 129]);
    let calls = &mut nameless;
    let results = [
        calls.create_group(CreateGroupRequest::default()).await.map(drop),
        calls.submit(SubmitRequest::default()).await.map(drop),
        calls.submit_stream(tokio_stream::empty()).await.map(drop),
        calls.subscribe(SubscribeRequest::default()).await.map(drop),
        calls.read_entries(ReadEntriesRequest::default()).await.map(drop),
        calls.get_head(GetHeadRequest::default()).await.map(drop),
        calls.get_group_info(GetGroupInfoRequest::default()).await.map(drop),
        calls.close_group(CloseGroupRequest::default()).await.map(drop),
        calls.set_policy(SetPolicyRequest::default()).await.map(drop),
        calls.upload_key_packages(UploadKeyPackagesRequest::default()).await.map(drop),
        calls.claim_key_package(ClaimKeyPackageRequest::default()).await.map(drop),
        calls.get_key_package_status(GetKeyPackageStatusRequest::default()).await.map(drop),
        calls.watch_welcomes(WatchWelcomesRequest::default()).await.map(drop),
        calls.ack_welcomes(AckWelcomesRequest::default()).await.map(drop),
        too_long.get_head(GetHeadRequest::default()).await.map(drop),
    ];
    for result in results {
        assert_refused(&result.unwrap_err(), Code::Unauthenticated, "UNAUTHENTICATED");
    }
}

#[tokio::test]
async fn a_stream_answers_each_submission_and_survives_the_bad_ones() {
    let cluster = FakeCluster::start(1).await;
    let gateway = gateway(&cluster.addresses()).await;
    let (mut alice, mut calls) = (Member::new("alice"), client(&gateway, b"alice"));
    calls.create_group(create_request(alice.create(GROUP))).await.unwrap();
    let mut requests = Vec::new();
    for id in 0..100 {
        let request = match id % 5 {
            4 => SubmitRequest { message: Bytes::from_static(b"nonsense"), ..SubmitRequest::default() },
            _ => alice.say(&id.to_string()),
        };
        requests.push(SubmitStreamRequest { id, request: Some(request) });
    }
    let mut answers = calls.submit_stream(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let mut seqs = [0; 100];
    let mut count = 0;
    while let Some(answer) = soon("an answer", answers.message()).await.unwrap() {
        count += 1;
        match answer.result.unwrap() {
            submit_stream_response::Result::Response(response) => {
                seqs[answer.id as usize] = crate::support::accepted(response.outcome.unwrap()).seq;
            }
            submit_stream_response::Result::Error(error) => {
                assert_eq!(answer.id % 5, 4);
                assert_refused(&decode(&error), Code::InvalidArgument, "MALFORMED");
            }
        }
    }
    assert_eq!(count, 100);
    let accepted: Vec<u64> = seqs.into_iter().filter(|seq| *seq > 0).collect();
    assert!(accepted.iter().copied().eq(2..=81), "those for one group keep their order: {accepted:?}");
}
