//! Bad input of every kind to every method of the ordering service: a clear typed error; no panic, no lost state.

#![allow(clippy::unwrap_used)] // A panic in a test is its report.

use std::time::Duration;

use bytes::Bytes;
use concordat_proto::{
    log::v1::{self as log, Reason, content::Content},
    ordering::v1::{
        AckPosition, AckWelcomes, AssignGroup, ClaimKeyPackage, CloseCollection, Command, EvictGateway,
        FollowGroup, GetHeadRequest, GroupSubmission, LocateRequest, NoteGateways, ReadBranchEntriesRequest,
        ReadEntriesRequest, ReadInboxRequest, RegisterGateway, ReleaseGateway, ReportBranches,
        SubscribeRequest, UploadKeyPackages, WatchQuorumRequest, command::Command as Kind, outcome::Outcome,
        subscribe_request, subscribe_response,
    },
};
use group_log::{
    ClientId, GroupId,
    limits::{MAX_COMMIT_BYTES, MAX_MESSAGE_BYTES},
};
use prost::Message;
use service_kit::{channel::Channel, net::tcp_network};
use testbed::{
    Cluster, ClusterOptions, junk,
    load::{Load, LoadOptions},
    ordering::{Attempt, OrderingClient},
    raw::{self, RawAnswer},
    seed,
};
use tonic::{Code, transport::Endpoint};

const DEADLINE: Duration = Duration::from_secs(30);
/// How long a stream may be silent before it counts as a subscription to nothing.
const STREAM_PATIENCE: Duration = Duration::from_millis(200);
/// Random messages for each method.
const RANDOM_MESSAGES: usize = 60;

fn assert_unharmed(cluster: &Cluster) {
    for node in cluster.nodes() {
        let log = std::fs::read_to_string(node.service().log_path()).unwrap();
        assert!(!log.contains("panicked"), "node {} panicked:\n{}", node.id(), node.service().log_tail());
        assert!(node.service().is_running(), "node {} ended:\n{}", node.id(), node.service().log_tail());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_bytes_whatsoever_harm_a_node() {
    let seed = seed::seed("bad input, ordering");
    let mut rng = seed::rng(seed, 0);
    let cluster = Cluster::start(ClusterOptions::default()).await.unwrap();
    let load =
        Load::start(&cluster, &LoadOptions { seed, groups: 2, ..LoadOptions::default() }).await.unwrap();
    let leader = cluster.leader(0).await.unwrap();
    let endpoint = Endpoint::from_shared(format!("http://{}", leader.address())).unwrap();
    let channel = Channel::lazy(&endpoint, tcp_network());
    for service in ["concordat.ordering.v1.Ordering", "concordat.ordering.v1.Admin"] {
        for method in raw::methods(service) {
            let mut inputs = junk::classics();
            inputs.extend((0..RANDOM_MESSAGES).map(|_| junk::plausible(&mut rng, 3)));
            let patience = if method.streams_answers { STREAM_PATIENCE } else { DEADLINE };
            for input in inputs {
                let length = input.len();
                match raw::call(&channel, &method, vec![input], b"junk", patience).await {
                    RawAnswer::Answered(_) => {}
                    RawAnswer::Refused(status) => {
                        // What a handler that panicked looks like from outside.
                        assert_ne!(
                            status.code(),
                            Code::Unknown,
                            "{} with {length} bytes: {status}",
                            method.path
                        );
                        assert_ne!(
                            status.code(),
                            Code::Cancelled,
                            "{} with {length} bytes: {status}",
                            method.path
                        );
                    }
                    RawAnswer::Silent => {
                        assert!(
                            method.streams_answers,
                            "{} with {length} bytes was not answered",
                            method.path
                        );
                    }
                }
            }
            assert_unharmed(&cluster);
        }
    }
    load.progress(50, DEADLINE).await.unwrap();
    let summary = load.finish(&cluster).await.unwrap();
    eprintln!("bad input, ordering: {summary:?}");
    for shard in cluster.leader(0).await.unwrap().admin().status().await.unwrap().shards {
        assert_eq!(shard.voters.len(), 3, "shard {} lost a voter", shard.shard);
    }
}

struct World {
    cluster: Cluster,
    client: OrderingClient,
    group: Bytes,
    shard: u32,
    state: Bytes,
}

async fn world() -> World {
    let cluster = Cluster::start(ClusterOptions { nodes: 1, ..ClusterOptions::default() }).await.unwrap();
    let client = OrderingClient::new(cluster.ordering_addresses());
    let group = GroupId::new("a group").unwrap();
    let shard = client.assign(&group, 1, DEADLINE).await.unwrap();
    let create = submission(
        &group.to_bytes(),
        0,
        Content::Create(log::Create {
            kind: log::GroupKind::Mls.into(),
            policy: None,
            group_info: Bytes::from_static(b"group info"),
        }),
    );
    let Outcome::Accepted(accepted) = client.submit(shard, &create, DEADLINE).await.unwrap() else {
        panic!("the group was not created")
    };
    World { cluster, client, group: group.to_bytes(), shard, state: accepted.state_id }
}

fn submission(group: &Bytes, epoch: u64, content: Content) -> Command {
    let content = Some(log::Content { content: Some(content) });
    group_submission(GroupSubmission {
        group_id: group.clone(),
        author: ClientId::new("somebody").unwrap().to_bytes(),
        epoch,
        parent_state_id: Bytes::new(),
        content,
        facts: None,
        members_only: false,
    })
}

fn group_submission(submission: GroupSubmission) -> Command {
    Command { command: Some(Kind::Group(submission)) }
}

fn commit(message: impl Into<Bytes>) -> Content {
    Content::Commit(log::Commit { message: message.into(), ..log::Commit::default() })
}

/// Commands about branches and gateways. The group has none, because it is plain MLS.
fn branch_cases(shard: u32, group: &Bytes, state: &Bytes) -> Vec<(&'static str, u32, Command, Reason)> {
    let gateway_id = || Bytes::from_static(&[7; 16]);
    let report = |group: &Bytes, gateway_id, entries| {
        let report = ReportBranches { group_id: group.clone(), gateway_id, entries, complete: true };
        Command { command: Some(Kind::ReportBranches(report)) }
    };
    let entry = log::BranchEntry {
        parent_state_id: state.clone(),
        author: Bytes::from_static(b"somebody"),
        content: Some(log::Content { content: Some(commit("c")) }),
        facts: None,
    };
    let empty = log::BranchEntry { content: None, ..entry.clone() };
    let facts = Some(log::CommitFacts { adds: vec![Bytes::from_static(b"short")], ..Default::default() });
    let wrong_facts = log::BranchEntry { facts, ..entry.clone() };
    let none = Bytes::from_static(b"none");
    let of = |kind| Command { command: Some(kind) };
    let ack = |group_id| {
        let gateway_id = gateway_id();
        of(Kind::AckPosition(AckPosition { group_id, gateway_id, position: 1, registration: 0 }))
    };
    let (group_id, gateway) = (group.clone(), gateway_id());
    let register = RegisterGateway { group_id, gateway_id: gateway, position: 1, departures: 0 };
    let release = ReleaseGateway { group_id: group.clone(), gateway_id: gateway_id(), registration: 0 };
    let close = CloseCollection { group_id: group.clone(), collection: 1, nonce: vec![0; 32].into() };
    let evict = EvictGateway { group_id: group.clone(), gateway_id: gateway_id() };
    let note = NoteGateways { gateway_ids: vec![gateway_id()] };
    vec![
        ("a report", shard, report(group, gateway_id(), vec![entry.clone()]), Reason::WrongKind),
        (
            "a report on no group",
            shard,
            report(&none, gateway_id(), vec![entry.clone()]),
            Reason::GroupNotFound,
        ),
        ("a report of nobody", shard, report(group, Bytes::new(), vec![entry.clone()]), Reason::Malformed),
        ("a report of nothing", shard, report(group, gateway_id(), vec![empty]), Reason::Malformed),
        ("a report with no leaf", shard, report(group, gateway_id(), vec![wrong_facts]), Reason::Malformed),
        ("a report elsewhere", 0, report(group, gateway_id(), vec![entry]), Reason::WrongShard),
        ("an acknowledgement", shard, ack(group.clone()), Reason::WrongKind),
        ("an acknowledgement of no group", shard, ack(none), Reason::GroupNotFound),
        ("a registration", shard, of(Kind::RegisterGateway(register)), Reason::WrongKind),
        ("a release", shard, of(Kind::ReleaseGateway(release)), Reason::WrongKind),
        ("a close from outside", shard, of(Kind::CloseCollection(close)), Reason::PermissionDenied),
        ("an eviction from outside", shard, of(Kind::EvictGateway(evict)), Reason::PermissionDenied),
        ("a sign of life from outside", shard, of(Kind::NoteGateways(note)), Reason::PermissionDenied),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_command_is_refused_with_its_reason() {
    let world = world().await;
    let World { client, group, shard, state, .. } = &world;
    let good = GroupSubmission {
        group_id: group.clone(),
        author: Bytes::from_static(b"somebody"),
        epoch: 0,
        parent_state_id: state.clone(),
        content: Some(log::Content { content: Some(commit("good")) }),
        facts: None,
        members_only: false,
    };
    let with = |change: fn(&mut GroupSubmission)| {
        let mut bad = good.clone();
        change(&mut bad);
        group_submission(bad)
    };
    let application = |message: Vec<u8>| Content::Application(log::Application { message: message.into() });
    let policy = Some(log::Policy { past_epochs: Some(65), ..log::Policy::default() });
    let cases: Vec<(&str, u32, Command, Reason)> = vec![
        ("no command", *shard, Command::default(), Reason::UnknownCommand),
        ("no group id", *shard, with(|s| s.group_id = Bytes::new()), Reason::Malformed),
        ("a long group id", *shard, with(|s| s.group_id = vec![1; 257].into()), Reason::Malformed),
        ("no author", *shard, with(|s| s.author = Bytes::new()), Reason::Malformed),
        ("a long author", *shard, with(|s| s.author = vec![1; 129].into()), Reason::Malformed),
        ("a short state id", *shard, with(|s| s.parent_state_id = vec![1; 31].into()), Reason::Malformed),
        ("no content", *shard, with(|s| s.content = None), Reason::Malformed),
        ("empty content", *shard, with(|s| s.content = Some(log::Content::default())), Reason::Malformed),
        ("another state", *shard, with(|s| s.parent_state_id = vec![1; 32].into()), Reason::WrongState),
        ("an epoch ahead", *shard, with(|s| s.epoch = 7), Reason::EpochAhead),
        ("the last epoch there is", *shard, with(|s| s.epoch = u64::MAX), Reason::Malformed),
        ("an empty commit", *shard, submission(group, 0, commit("")), Reason::Malformed),
        (
            "an unknown group",
            *shard,
            submission(&Bytes::from_static(b"none"), 0, commit("x")),
            Reason::GroupNotFound,
        ),
        (
            "a long message",
            *shard,
            submission(group, 0, application(vec![1; MAX_MESSAGE_BYTES + 1])),
            Reason::TooLarge,
        ),
        (
            "a long commit",
            *shard,
            submission(group, 0, commit(vec![1; MAX_COMMIT_BYTES + 1])),
            Reason::TooLarge,
        ),
        (
            "another create",
            *shard,
            submission(
                group,
                0,
                Content::Create(log::Create {
                    kind: log::GroupKind::Mls.into(),
                    policy: None,
                    group_info: Bytes::from_static(b"another"),
                }),
            ),
            Reason::GroupExists,
        ),
        (
            "a create of no kind",
            *shard,
            submission(
                &Bytes::from_static(b"new"),
                0,
                Content::Create(log::Create { kind: 99, policy: None, group_info: Bytes::from_static(b"x") }),
            ),
            Reason::Malformed,
        ),
        (
            "a policy out of bounds",
            *shard,
            submission(group, 0, Content::PolicyChange(log::PolicyChange { policy })),
            Reason::PolicyInvalid,
        ),
        (
            "a group of another shard",
            3 - *shard,
            submission(&Bytes::from_static(b"elsewhere"), 0, commit("x")),
            Reason::GroupNotFound,
        ),
        (
            "a shard that is none, for a new group",
            0,
            Command {
                command: Some(Kind::AssignGroup(AssignGroup {
                    group_id: Bytes::from_static(b"new"),
                    shard: 99,
                })),
            },
            Reason::Malformed,
        ),
        (
            "no client whose KeyPackage",
            0,
            Command { command: Some(Kind::ClaimKeyPackage(ClaimKeyPackage::default())) },
            Reason::Malformed,
        ),
        (
            "a client without KeyPackages",
            0,
            Command {
                command: Some(Kind::ClaimKeyPackage(ClaimKeyPackage {
                    client_id: Bytes::from_static(b"nobody"),
                    claim_id: vec![1; 16].into(),
                    claimer: Bytes::from_static(b"somebody"),
                })),
            },
            Reason::KeyPackagesExhausted,
        ),
        (
            "an empty KeyPackage",
            0,
            Command {
                command: Some(Kind::UploadKeyPackages(UploadKeyPackages {
                    client_id: Bytes::from_static(b"somebody"),
                    key_packages: vec![log::KeyPackage::default()],
                    replace: false,
                })),
            },
            Reason::Malformed,
        ),
        (
            "an inbox of nobody",
            *shard,
            Command { command: Some(Kind::AckWelcomes(AckWelcomes::default())) },
            Reason::Malformed,
        ),
    ];
    let cases = cases.into_iter().chain(branch_cases(*shard, group, state));
    let mut wrong = Vec::new();
    for (what, shard, command, expected) in cases {
        match client.attempt(shard, command.encode_to_vec().into()).await {
            Attempt::Answered(Outcome::Refused(refused)) => {
                let got = Reason::try_from(refused.reason).unwrap();
                if got != expected || refused.message.is_empty() {
                    wrong.push(format!("{what}: expected {expected:?}, got {got:?}: {}", refused.message));
                }
            }
            other => wrong.push(format!("{what}: expected {expected:?}, got {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Nothing of it has left a trace.
    let good = client.submit(*shard, &group_submission(good), DEADLINE).await.unwrap();
    assert!(matches!(good, Outcome::Accepted(ref accepted) if accepted.seq == 2), "{good:?}");
    assert_unharmed(&world.cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_command_for_a_shard_or_as_bytes_is_refused() {
    let world = world().await;
    for shard in [0, 1, 2, 3, 99, u32::MAX] {
        for bytes in [vec![], vec![0xff; 9], vec![0x0a, 0x7f], vec![0xa2, 0x06, 0x00]] {
            match world.client.attempt(shard, bytes.into()).await {
                Attempt::Answered(Outcome::Refused(refused)) => {
                    let reason = Reason::try_from(refused.reason).unwrap();
                    let expected = [Reason::Malformed, Reason::UnknownCommand, Reason::WrongShard];
                    assert!(expected.contains(&reason), "shard {shard}: {reason:?}: {}", refused.message);
                }
                other => panic!("shard {shard}: {other:?}"),
            }
        }
    }
    assert_unharmed(&world.cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_reads_and_subscriptions_are_refused_with_their_reason() {
    let world = world().await;
    let address = world.cluster.node(1).address().to_owned();
    let mut wire = world.client.wire(&address);
    let cursor = |seq, chain_hash| Some(log::CanonicalCursor { seq, chain_hash });
    let cursors = [
        (cursor(99, Bytes::new()), "CURSOR_AHEAD"),
        (cursor(1, vec![1; 32].into()), "CURSOR_MISMATCH"),
        (cursor(1, vec![1; 31].into()), "MALFORMED"),
    ];
    for (cursor, expected) in &cursors {
        let request = ReadEntriesRequest {
            group_id: world.group.clone(),
            cursor: cursor.clone(),
            ..Default::default()
        };
        let status = wire.read_entries(request).await.unwrap_err();
        assert_eq!(service_kit::status::reason(&status).as_deref(), Some(*expected), "{status}");
    }
    for (group_id, expected) in
        [(Bytes::from_static(b"none"), "GROUP_NOT_FOUND"), (Bytes::new(), "MALFORMED")]
    {
        let request = ReadEntriesRequest { group_id: group_id.clone(), ..Default::default() };
        let status = wire.read_entries(request).await.unwrap_err();
        assert_eq!(service_kit::status::reason(&status).as_deref(), Some(expected), "ReadEntries: {status}");
        let status = wire.get_head(GetHeadRequest { group_id, ..Default::default() }).await.unwrap_err();
        assert_eq!(service_kit::status::reason(&status).as_deref(), Some(expected), "GetHead: {status}");
    }
    let status = wire.locate(LocateRequest::default()).await.unwrap_err();
    assert_eq!(service_kit::status::reason(&status).as_deref(), Some("MALFORMED"), "Locate: {status}");
    let status = wire.read_inbox(ReadInboxRequest::default()).await.unwrap_err();
    assert_eq!(service_kit::status::reason(&status).as_deref(), Some("MALFORMED"), "ReadInbox: {status}");

    let branch_reads = [
        (world.group.clone(), vec![Bytes::from_static(b"short")], "MALFORMED"),
        (world.group.clone(), vec![Bytes::from_static(&[1; 32]); 1025], "TOO_LARGE"),
        (Bytes::from_static(b"none"), Vec::new(), "GROUP_NOT_FOUND"),
        (Bytes::new(), Vec::new(), "MALFORMED"),
    ];
    for (group_id, ids, expected) in branch_reads {
        let status = wire.read_branch_entries(ReadBranchEntriesRequest { group_id, ids }).await.unwrap_err();
        assert_eq!(service_kit::status::reason(&status).as_deref(), Some(expected), "{status}");
    }
    let status = wire.watch_quorum(WatchQuorumRequest { gateway_id: vec![1; 15].into() }).await.unwrap_err();
    assert_eq!(service_kit::status::reason(&status).as_deref(), Some("MALFORMED"), "WatchQuorum: {status}");

    // One bad request on a shared stream ends its own subscription only.
    let follow = |id, group_id: &Bytes, cursor| SubscribeRequest {
        request: Some(subscribe_request::Request::Follow(FollowGroup {
            id,
            group_id: group_id.clone(),
            cursor,
        })),
    };
    let none = Bytes::from_static(b"none");
    let requests = vec![
        follow(1, &none, None),
        follow(2, &world.group, cursors[0].0.clone()),
        follow(3, &world.group, cursors[1].0.clone()),
        follow(4, &world.group, None),
    ];
    let (sender, receiver) = tokio::sync::mpsc::channel(requests.len());
    for request in requests {
        sender.send(request).await.unwrap();
    }
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers = wire.subscribe(stream).await.unwrap().into_inner();
    let (mut refused, mut entries) = (Vec::new(), 0);
    while refused.len() < 3 || entries < 1 {
        let answer = answers.message().await.unwrap().expect("the stream goes on");
        match answer.response {
            Some(subscribe_response::Response::Refused(why)) => refused.push((answer.id, why.reason())),
            Some(subscribe_response::Response::Entries(page)) => {
                assert_eq!(answer.id, 4);
                entries += page.entries.len();
            }
            _ => {}
        }
    }
    refused.sort_unstable_by_key(|(id, _)| *id);
    assert_eq!(refused, [(1, Reason::GroupNotFound), (2, Reason::CursorAhead), (3, Reason::CursorMismatch)]);
    assert_unharmed(&world.cluster);
}
