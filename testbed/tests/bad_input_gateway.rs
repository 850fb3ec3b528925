//! Bad input of every kind to every method of the gateway: a clear typed error; no panic, no lost state.

#![allow(clippy::unwrap_used)] // A panic in a test is its report.

use std::time::Duration;

use bytes::Bytes;
use concordat_proto::{
    gateway::v1::{
        ClaimKeyPackageRequest, CloseGroupRequest, CreateGroupRequest, GetGroupInfoRequest, GetHeadRequest,
        ReadEntriesRequest, SetPolicyRequest, SubmitRequest, SubmitResponse, SubscribeRequest,
        UploadKeyPackagesRequest, gateway_client::GatewayClient, submit_response::Outcome,
    },
    log::v1::{CanonicalCursor, Cursor, GroupKind, Policy, WelcomeRecipient, cursor::Chain},
};
use prost::Message;
use service_kit::{channel::Channel, net::tcp_network, status::reason};
use testbed::{
    Cluster, ClusterOptions, junk,
    mls_bytes::{ContentType, group_info, header, private_message},
    raw::{self, RawAnswer},
    seed,
};
use tonic::{Code, Request, Status, transport::Endpoint};

const DEADLINE: Duration = Duration::from_secs(30);
/// How long a stream may be silent before it counts as a subscription to nothing.
const STREAM_PATIENCE: Duration = Duration::from_millis(200);
/// Random messages for each method.
const RANDOM_MESSAGES: usize = 60;
const GROUP: &[u8] = b"the group";
const ME: &[u8] = b"somebody";

struct World {
    cluster: Cluster,
    channel: Channel,
}

async fn world() -> World {
    let options = ClusterOptions { nodes: 1, gateways: 1, ..ClusterOptions::default() };
    let cluster = Cluster::start(options).await.unwrap();
    let address = cluster.gateway_addresses().remove(0);
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let channel = Channel::lazy(&endpoint, tcp_network());
    World { cluster, channel }
}

impl World {
    fn gateway(&self) -> GatewayClient<Channel> {
        GatewayClient::new(self.channel.clone()).max_encoding_message_size(usize::MAX)
    }

    async fn create(&self) {
        let request = CreateGroupRequest {
            group_info: group_info(GROUP, 0),
            kind: GroupKind::Mls.into(),
            policy: None,
        };
        self.gateway().create_group(request_by(ME, request)).await.unwrap();
    }

    async fn submit(&self, request: SubmitRequest) -> Result<SubmitResponse, Status> {
        self.gateway().submit(request_by(ME, request)).await.map(tonic::Response::into_inner)
    }

    fn assert_unharmed(&self) {
        let services = self.cluster.gateways().into_iter().map(|g| g.service().log_tail());
        for log in services.chain(self.cluster.nodes().into_iter().map(|n| n.service().log_tail())) {
            assert!(!log.contains("panicked"), "{log}");
        }
        assert!(self.cluster.gateways().iter().all(|gateway| gateway.service().is_running()));
    }
}

fn request_by<T>(client: &[u8], message: T) -> Request<T> {
    let mut request = Request::new(message);
    raw::name_client(request.metadata_mut(), client);
    request.set_timeout(DEADLINE);
    request
}

fn message(bytes: impl Into<Bytes>) -> SubmitRequest {
    SubmitRequest { message: bytes.into(), ..SubmitRequest::default() }
}

fn commit(epoch: u64, ciphertext: &[u8]) -> SubmitRequest {
    message(private_message(GROUP, epoch, ContentType::Commit, ciphertext))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_bytes_whatsoever_harm_a_gateway() {
    let seed = seed::seed("bad input, gateway");
    let mut rng = seed::rng(seed, 0);
    let world = world().await;
    world.create().await;
    let good = commit(0, b"a good one").encode_to_vec();
    for method in raw::methods("concordat.gateway.v1.Gateway") {
        let mut inputs = junk::classics();
        inputs.extend((0..RANDOM_MESSAGES).map(|_| junk::plausible(&mut rng, 3)));
        inputs.extend((0..RANDOM_MESSAGES).map(|_| junk::spoiled(&good, &mut rng)));
        let patience = if method.streams_answers { STREAM_PATIENCE } else { DEADLINE };
        for input in inputs {
            let length = input.len();
            match raw::call(&world.channel, &method, vec![input], b"junk", patience).await {
                RawAnswer::Answered(_) => {}
                RawAnswer::Refused(status) => {
                    // What a handler that panicked looks like from outside.
                    assert_ne!(status.code(), Code::Unknown, "{} with {length} bytes: {status}", method.path);
                    assert_ne!(
                        status.code(),
                        Code::Cancelled,
                        "{} with {length} bytes: {status}",
                        method.path
                    );
                }
                RawAnswer::Silent => {
                    assert!(method.streams_answers, "{} with {length} bytes was not answered", method.path);
                }
            }
        }
        world.assert_unharmed();
    }
    // The group is still there, in whatever epoch spoiled commits that were still commits have brought it to.
    let request = GetHeadRequest { group_id: GROUP.into(), linearizable: true };
    let head = world.gateway().get_head(request_by(ME, request)).await;
    let epoch = head.unwrap().into_inner().head.unwrap().epoch;
    let answer = world.submit(commit(epoch, b"afterwards")).await.unwrap();
    assert!(matches!(answer.outcome, Some(Outcome::Accepted(_))), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_submission_is_refused_with_its_reason() {
    let world = world().await;
    world.create().await;
    let application = |ciphertext: &[u8]| private_message(GROUP, 0, ContentType::Application, ciphertext);
    let good = application(b"x");
    let mut other_version = good.to_vec();
    other_version[1] = 2;
    let mut no_type = good.to_vec();
    no_type[4 + 1 + GROUP.len() + 8] = 9;
    let with = |change: &dyn Fn(&mut SubmitRequest)| {
        let mut request = commit(0, b"commit");
        change(&mut request);
        request
    };
    let recipient =
        WelcomeRecipient { client_id: Bytes::from_static(b"x"), key_package_ref: Bytes::from_static(b"y") };
    let cases: Vec<(&str, SubmitRequest, &[&str])> = vec![
        ("nothing", SubmitRequest::default(), &["MALFORMED"]),
        ("noise", message(vec![0xff; 100]), &["MALFORMED"]),
        ("another version", message(other_version), &["MALFORMED"]),
        ("a cut message", message(good.slice(..good.len() - 1)), &["MALFORMED"]),
        ("something behind it", message([&good[..], b"x"].concat()), &["MALFORMED"]),
        ("an unknown content type", message(no_type), &["MALFORMED", "WRONG_MESSAGE_TYPE"]),
        ("a GroupInfo", message(group_info(GROUP, 0)), &["WRONG_MESSAGE_TYPE"]),
        ("an unknown wire format", message(header(77)), &["MALFORMED", "WRONG_MESSAGE_TYPE"]),
        ("a Welcome that is none", message(header(3)), &["MALFORMED", "WRONG_MESSAGE_TYPE"]),
        ("no group id", message(private_message(b"", 0, ContentType::Application, b"x")), &["MALFORMED"]),
        (
            "a long group id",
            message(private_message(&[1; 257], 0, ContentType::Application, b"x")),
            &["MALFORMED"],
        ),
        (
            "an unknown group",
            message(private_message(b"none", 0, ContentType::Commit, b"x")),
            &["GROUP_NOT_FOUND"],
        ),
        ("an epoch ahead", commit(9, b"x"), &["EPOCH_AHEAD"]),
        ("the last epoch there is", commit(u64::MAX, b"x"), &["EPOCH_AHEAD", "MALFORMED"]),
        ("a huge message", message(application(&vec![0; 1024 * 1024 + 1])), &["TOO_LARGE"]),
        ("a short state id", with(&|r| r.parent_state_id = vec![1; 31].into()), &["MALFORMED"]),
        ("another state", with(&|r| r.parent_state_id = vec![1; 32].into()), &["WRONG_STATE"]),
        ("a Welcome of noise", with(&|r| r.welcome = Bytes::from_static(b"noise")), &["MALFORMED"]),
        ("a GroupInfo of noise", with(&|r| r.group_info = Bytes::from_static(b"noise")), &["MALFORMED"]),
        (
            "a GroupInfo of another group",
            with(&|r| r.group_info = group_info(b"another", 1)),
            &["MALFORMED", "INVALID_COMMIT"],
        ),
        (
            "a GroupInfo of another epoch",
            with(&|r| r.group_info = group_info(GROUP, 7)),
            &["MALFORMED", "INVALID_COMMIT"],
        ),
        ("recipients without a Welcome", with(&|r| r.recipients = vec![recipient.clone()]), &["MALFORMED"]),
        (
            "a Welcome with an application message",
            SubmitRequest { welcome: Bytes::from_static(b"x"), ..message(good.clone()) },
            &["MALFORMED"],
        ),
    ];
    let mut wrong = Vec::new();
    for (what, request, expected) in cases {
        match world.submit(request).await {
            Err(status) if reason(&status).is_some_and(|got| expected.contains(&got.as_str())) => {}
            other => wrong.push(format!("{what}: expected {expected:?}, got {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Nothing of it has left a trace, and losing a race is an answer.
    let first = world.submit(commit(0, b"first")).await.unwrap();
    assert!(matches!(first.outcome, Some(Outcome::Accepted(ref accepted)) if accepted.seq == 2), "{first:?}");
    assert_eq!(world.submit(commit(0, b"first")).await.unwrap(), first);
    let second = world.submit(commit(0, b"second")).await.unwrap();
    assert!(matches!(second.outcome, Some(Outcome::Superseded(_))), "{second:?}");
    world.assert_unharmed();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_bad_request_is_refused_with_its_reason() {
    let world = world().await;
    world.create().await;
    let mut gateway = world.gateway();
    let mut wrong = Vec::new();
    let mut expect = |what: &str, got: Result<(), Status>, expected: &[&str]| match got {
        Err(status) if reason(&status).is_some_and(|got| expected.contains(&got.as_str())) => {}
        other => wrong.push(format!("{what}: expected {expected:?}, got {other:?}")),
    };

    let head = GetHeadRequest { group_id: GROUP.into(), linearizable: false };
    let answer = gateway.get_head(Request::new(head.clone())).await;
    expect("no client", answer.map(drop), &["UNAUTHENTICATED"]);
    let answer = gateway.get_head(request_by(&[1; 129], head)).await;
    expect("a long client id", answer.map(drop), &["UNAUTHENTICATED", "MALFORMED"]);

    let create = |group_info: Bytes, kind: i32, policy| CreateGroupRequest { group_info, kind, policy };
    let mls = i32::from(GroupKind::Mls);
    let beyond = Some(Policy { past_epochs: Some(65), ..Policy::default() });
    for (what, request, expected) in [
        ("a create without GroupInfo", create(Bytes::new(), mls, None), &["MALFORMED"][..]),
        ("a create of noise", create(vec![0xff; 50].into(), mls, None), &["MALFORMED"]),
        ("a create from a commit", create(commit(0, b"x").message, mls, None), &["WRONG_MESSAGE_TYPE"]),
        ("a create of no kind", create(group_info(b"new", 0), 0, None), &["MALFORMED"]),
        ("a create of an unknown kind", create(group_info(b"new", 0), 99, None), &["MALFORMED"]),
        ("a create with a bad policy", create(group_info(b"new", 0), mls, beyond), &["POLICY_INVALID"]),
        ("a create that exists otherwise", create(group_info(GROUP, 3), mls, None), &["GROUP_EXISTS"]),
    ] {
        expect(what, gateway.create_group(request_by(ME, request)).await.map(drop), expected);
    }

    let none = Bytes::from_static(b"none");
    for (group_id, expected) in [(none.clone(), "GROUP_NOT_FOUND"), (Bytes::new(), "MALFORMED")] {
        let expected = &[expected][..];
        let request = GetHeadRequest { group_id: group_id.clone(), linearizable: true };
        expect("GetHead", gateway.get_head(request_by(ME, request)).await.map(drop), expected);
        let request = GetGroupInfoRequest { group_id: group_id.clone() };
        expect("GetGroupInfo", gateway.get_group_info(request_by(ME, request)).await.map(drop), expected);
        let request = ReadEntriesRequest { group_id: group_id.clone(), ..Default::default() };
        expect("ReadEntries", gateway.read_entries(request_by(ME, request)).await.map(drop), expected);
        let request = CloseGroupRequest { group_id: group_id.clone(), epoch: 0 };
        expect("CloseGroup", gateway.close_group(request_by(ME, request)).await.map(drop), expected);
        let request = SetPolicyRequest { group_id: group_id.clone(), epoch: 0, policy: None };
        let or_no_policy = [expected[0], "MALFORMED", "POLICY_INVALID"];
        expect("SetPolicy", gateway.set_policy(request_by(ME, request)).await.map(drop), &or_no_policy);
        let request = SubscribeRequest { group_id, cursor: None, known_branch_entries: Vec::new() };
        let answer = match gateway.subscribe(request_by(ME, request)).await {
            Ok(stream) => stream.into_inner().message().await.map(drop),
            Err(status) => Err(status),
        };
        expect("Subscribe", answer, expected);
    }

    let cursor = |seq, chain_hash: Vec<u8>| {
        Some(Cursor { chain: Some(Chain::Canonical(CanonicalCursor { seq, chain_hash: chain_hash.into() })) })
    };
    for (cursor, expected) in [
        (cursor(99, vec![]), "CURSOR_AHEAD"),
        (cursor(1, vec![1; 32]), "CURSOR_MISMATCH"),
        (cursor(1, vec![1; 5]), "MALFORMED"),
    ] {
        let request =
            ReadEntriesRequest { group_id: GROUP.into(), cursor: cursor.clone(), ..Default::default() };
        expect("ReadEntries", gateway.read_entries(request_by(ME, request)).await.map(drop), &[expected]);
        let request = SubscribeRequest { group_id: GROUP.into(), cursor, known_branch_entries: Vec::new() };
        let answer = match gateway.subscribe(request_by(ME, request)).await {
            Ok(stream) => stream.into_inner().message().await.map(drop),
            Err(status) => Err(status),
        };
        expect("Subscribe with a cursor", answer, &[expected]);
    }

    for key_packages in [vec![Bytes::new()], vec![Bytes::from(vec![0xff; 40])], vec![header(5).into()]] {
        let request = UploadKeyPackagesRequest { key_packages, replace: false };
        expect(
            "UploadKeyPackages",
            gateway.upload_key_packages(request_by(ME, request)).await.map(drop),
            &["MALFORMED"],
        );
    }
    let request = UploadKeyPackagesRequest { key_packages: vec![commit(0, b"x").message], replace: false };
    let answer = gateway.upload_key_packages(request_by(ME, request)).await;
    expect("a commit as a KeyPackage", answer.map(drop), &["WRONG_MESSAGE_TYPE"]);
    let claim = |client_id: &'static [u8], claim_id: Vec<u8>| ClaimKeyPackageRequest {
        client_id: Bytes::from_static(client_id),
        claim_id: claim_id.into(),
    };
    for (what, request, expected) in [
        ("a claim of nobody's", claim(b"", vec![]), "MALFORMED"),
        ("a claim of a client without any", claim(b"nobody", vec![]), "KEY_PACKAGES_EXHAUSTED"),
        ("a claim with a bad id", claim(b"nobody", vec![1; 3]), "MALFORMED"),
    ] {
        expect(what, gateway.claim_key_package(request_by(ME, request)).await.map(drop), &[expected]);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    world.assert_unharmed();
}
