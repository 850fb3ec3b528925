//! Bad input of every kind to every RPC: a typed error, no panic, and the node goes on.

use crate::support::{Cluster, SHARD, Submitter, Subscriber, commit, create, encode, id};
use bytes::Bytes;
use concordat_proto::{
    log::v1::{CanonicalCursor, InboxCursor, Reason, ShardPosition},
    ordering::v1::{
        AddLearnerRequest, AssignGroup, BootstrapRequest, FollowGroup, GetHeadRequest,
        GetKeyPackageStatusRequest, LocateRequest, NodeAddress, PromoteRequest, ReadEntriesRequest,
        ReadInboxRequest, RemoveRequest, Submission, SubmitRequest, SubscribeRequest, TransferLeaderRequest,
        command::Command as Wrapped, outcome::Outcome, subscribe_request::Request,
    },
    raft::v1::{self as raft, peers_client::PeersClient},
};
use rand::{RngCore, SeedableRng, rngs::StdRng};
use service_kit::status::reason;
use tonic::{Code, Status};

fn refused(outcome: Outcome) -> Reason {
    match outcome {
        Outcome::Refused(refused) => refused.reason(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn submissions() {
    let seed = std::env::var("CONCORDAT_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("CONCORDAT_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader(SHARD).await;
    let mut stream = Submitter::open(cluster.ordering(leader).await).await.unwrap();
    let assign = encode(Wrapped::AssignGroup(AssignGroup { group_id: id("g"), shard: 1 }));
    let cases = [
        (SHARD, Bytes::new(), Reason::UnknownCommand),
        (SHARD, Bytes::from_static(&[0xff; 40]), Reason::Malformed),
        (SHARD, create("x").slice(..10), Reason::Malformed),
        (SHARD, Bytes::from(vec![0; (4 << 20) + 1]), Reason::TooLarge),
        (SHARD, assign.clone(), Reason::WrongShard),
        (0, create("x"), Reason::WrongShard),
        (77, create("x"), Reason::WrongShard),
        (u32::MAX, assign, Reason::WrongShard),
        (SHARD, create(""), Reason::Malformed),
        (SHARD, create(&"x".repeat(300)), Reason::Malformed),
        (SHARD, commit("unknown", 0, b"c"), Reason::GroupNotFound),
    ];
    for (shard, command, reason) in cases {
        let len = command.len();
        assert_eq!(refused(stream.submit(shard, command).await), reason, "{len} bytes for shard {shard}");
    }
    for _ in 0..200 {
        let mut garbage = vec![0; (random.next_u32() % 200) as usize];
        random.fill_bytes(&mut garbage);
        let outcome = stream.submit(random.next_u32() % 3, garbage.into()).await;
        assert!(!matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
    }
    // Two submissions under one id end the stream, with the reason.
    let twice = |_| Submission { id: 5, shard: SHARD, command: create("twice") };
    stream.send((0..2).map(twice).collect()).await;
    let status = loop {
        match stream.answers.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended without a reason"),
            Err(status) => break status,
        }
    };
    assert_eq!(reason(&status).as_deref(), Some("MALFORMED"));
    let mut stream = Submitter::open(cluster.ordering(leader).await).await.unwrap();
    stream.send((0..2000).map(|id| Submission { id, shard: SHARD, command: create("many") }).collect()).await;
    assert_eq!(stream.answers.message().await.unwrap_err().code(), Code::InvalidArgument);
    let named = SubmitRequest { site: "x".repeat(256), ..SubmitRequest::default() };
    let mut answers =
        cluster.ordering(leader).await.submit(tokio_stream::once(named)).await.unwrap().into_inner();
    let refused = answers.message().await.unwrap_err();
    assert_eq!(reason(&refused).as_deref(), Some("MALFORMED"), "{refused:?}");
    cluster.group_with("still works", 1).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_and_subscriptions() {
    let cluster = Cluster::start(1).await;
    cluster.group_with("g", 1).await;
    let mut client = cluster.ordering(1).await;
    let long = Bytes::from(vec![1; 1000]);
    let check =
        |status: Status, expected: &str| assert_eq!(reason(&status).as_deref(), Some(expected), "{status:?}");
    for (group_id, expected) in
        [(Bytes::new(), "MALFORMED"), (long.clone(), "TOO_LARGE"), (id("none"), "GROUP_NOT_FOUND")]
    {
        let cursor = None;
        let request = ReadEntriesRequest {
            group_id: group_id.clone(),
            cursor,
            max_entries: u32::MAX,
            linearizable: true,
        };
        check(client.read_entries(request).await.unwrap_err(), expected);
        let request = GetHeadRequest { group_id, linearizable: false, include_group_info: true };
        check(client.get_head(request).await.unwrap_err(), expected);
    }
    for (seq, chain_hash, expected) in [
        (9, Bytes::new(), "CURSOR_AHEAD"),
        (u64::MAX, Bytes::new(), "CURSOR_AHEAD"),
        (1, Bytes::from(vec![0; 32]), "CURSOR_MISMATCH"),
        (1, Bytes::from_static(b"x"), "MALFORMED"),
    ] {
        let cursor = Some(CanonicalCursor { seq, chain_hash });
        let request = ReadEntriesRequest { group_id: id("g"), cursor, max_entries: 1, linearizable: false };
        check(client.read_entries(request).await.unwrap_err(), expected);
    }
    let request = LocateRequest { group_id: Bytes::new(), linearizable: false };
    check(client.locate(request).await.unwrap_err(), "MALFORMED");
    let request = GetKeyPackageStatusRequest { client_id: long.clone(), linearizable: false };
    check(client.get_key_package_status(request).await.unwrap_err(), "TOO_LARGE");
    let positions = vec![ShardPosition { shard: 1, position: u64::MAX }; 1000];
    let cursor = Some(InboxCursor { positions });
    let request =
        ReadInboxRequest { client_id: id("c"), cursor, max_welcomes: u32::MAX, linearizable: false };
    check(client.read_inbox(request).await.unwrap_err(), "MALFORMED");
    let positions = vec![ShardPosition { shard: 1, position: u64::MAX }];
    let cursor = Some(InboxCursor { positions });
    let request = ReadInboxRequest { client_id: id("c"), cursor, max_welcomes: 0, linearizable: false };
    assert!(client.read_inbox(request).await.unwrap().into_inner().welcomes.is_empty());

    let empty = SubscribeRequest { request: None };
    let follow = |id: u64| Some(Request::Follow(FollowGroup { id, group_id: self::id("g"), cursor: None }));
    for requests in
        [vec![empty], vec![SubscribeRequest { request: follow(1) }, SubscribeRequest { request: follow(1) }]]
    {
        let mut subscriber = Subscriber::open(cluster.ordering(1).await).await;
        for request in requests {
            subscriber.out.send(request).await.unwrap();
        }
        let status = loop {
            match subscriber.responses.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("ended without a reason"),
                Err(status) => break status,
            }
        };
        check(status, "MALFORMED");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_and_peers() {
    let cluster = Cluster::start(1).await;
    let mut admin = cluster.admin(1).await;
    let check =
        |status: Status, expected: &str| assert_eq!(reason(&status).as_deref(), Some(expected), "{status:?}");
    check(admin.bootstrap(BootstrapRequest::default()).await.unwrap_err(), "MALFORMED");
    let address = NodeAddress {
        node_id: 1,
        peer_address: "nowhere".into(),
        address: "x:1".into(),
        site: String::new(),
    };
    let request = BootstrapRequest { nodes: vec![address.clone()], data_shards: 1 };
    check(admin.bootstrap(request).await.unwrap_err(), "MALFORMED");
    let nodes = vec![NodeAddress { peer_address: "127.0.0.1:1".into(), ..address.clone() }];
    let request = BootstrapRequest { nodes: nodes.clone(), data_shards: 65 };
    check(admin.bootstrap(request).await.unwrap_err(), "MALFORMED");
    check(admin.bootstrap(BootstrapRequest { nodes, data_shards: 1 }).await.unwrap_err(), "PEER");
    check(admin.add_learner(AddLearnerRequest { node: None, max_lag: 0 }).await.unwrap_err(), "MALFORMED");
    check(
        admin.add_learner(AddLearnerRequest { node: Some(address), max_lag: 0 }).await.unwrap_err(),
        "MALFORMED",
    );
    check(admin.promote(PromoteRequest { node_ids: vec![] }).await.unwrap_err(), "MALFORMED");
    check(admin.promote(PromoteRequest { node_ids: vec![9] }).await.unwrap_err(), "MALFORMED");
    check(admin.remove(RemoveRequest { node_id: 0 }).await.unwrap_err(), "MALFORMED");
    check(admin.remove(RemoveRequest { node_id: 1 }).await.unwrap_err(), "PRECONDITION");
    let request = TransferLeaderRequest { shard: 9, to_node_id: 1 };
    check(admin.transfer_leader(request).await.unwrap_err(), "MALFORMED");

    let url = format!("http://{}", cluster.node(1).addresses().peers);
    let mut peers = PeersClient::connect(url).await.unwrap();
    check(peers.vote(raft::VoteRequest::default()).await.unwrap_err(), "STRANGER");
    check(peers.heartbeat(raft::HeartbeatRequest::default()).await.unwrap_err(), "STRANGER");
    check(peers.ping(raft::PingRequest::default()).await.unwrap_err(), "STRANGER");
    check(peers.administer(raft::AdministerRequest::default()).await.unwrap_err(), "STRANGER");
    let foreign =
        raft::Hello { cluster_id: "another".into(), node_id: 7, to_node_id: 1, ..raft::Hello::default() };
    check(peers.ping(raft::PingRequest { hello: Some(foreign.clone()) }).await.unwrap_err(), "STRANGER");
    check(peers.join(raft::JoinRequest::default()).await.unwrap_err(), "PRECONDITION");
    let requests =
        vec![raft::ReplicateRequest { request: Some(raft::replicate_request::Request::Hello(foreign)) }];
    check(peers.replicate(tokio_stream::iter(requests)).await.unwrap_err(), "STRANGER");
    check(peers.replicate(tokio_stream::empty()).await.unwrap_err(), "STRANGER");
    let requests = vec![raft::InstallSnapshotRequest { request: None }];
    check(peers.install_snapshot(tokio_stream::iter(requests)).await.unwrap_err(), "MALFORMED");
    let me = cluster.node(1).node().identity.hello(1, [0; 16]);
    let request = raft::VoteRequest { hello: Some(me), shard: 1, ..raft::VoteRequest::default() };
    check(peers.vote(request).await.unwrap_err(), "MALFORMED");
    cluster.group_with("still works", 1).await;
    cluster.stop().await;
}
