//! Subscriptions are ordered, gap-free and unique, from any place, on every node.

use crate::support::{Cluster, SHARD, Subscriber, commit, create, encode, id, welcome};
use bytes::Bytes;
use concordat_proto::{
    log::v1::{CanonicalCursor, Reason},
    ordering::v1::{
        AckWelcomes, Ended, FollowInbox, ReadInboxRequest, SubscribeRequest, command::Command, ended,
        outcome::Outcome, subscribe_request::Request, subscribe_response::Response,
    },
};
use service_kit::status::reason;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_shows_the_same_log_from_any_place() {
    let cluster = Cluster::start(3).await;
    let mut early = Vec::new();
    cluster.group_with("followed", 5).await;
    for node in 1..=3 {
        let subscriber = Subscriber::open(cluster.ordering(node).await).await;
        subscriber.follow(1, "followed", 0, Bytes::new()).await;
        early.push(subscriber);
    }
    for epoch in 5..60 {
        cluster.submit(SHARD, commit("followed", epoch, b"c")).await;
    }
    let mut logs = Vec::new();
    for mut subscriber in early {
        logs.push(subscriber.entries(0, 61).await);
    }
    assert_eq!(logs[0], logs[1]);
    assert_eq!(logs[1], logs[2]);
    for (after, entry) in
        [0, 1, 17, 60].map(|seq: u64| (seq, seq.checked_sub(1).map(|at| &logs[0][at as usize])))
    {
        let chain = entry.map(|e| e.chain_hash.clone()).unwrap_or_default();
        for node in 1..=3 {
            let mut subscriber = Subscriber::open(cluster.ordering(node).await).await;
            subscriber.follow(9, "followed", after, chain.clone()).await;
            assert_eq!(subscriber.entries(after, 61).await[..], logs[0][after as usize..]);
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_learns_once_that_it_is_live() {
    let cluster = Cluster::start(3).await;
    cluster.group_with("live", 2).await;
    let mut subscriber = Subscriber::open(cluster.ordering(1).await).await;
    subscriber.follow(4, "live", 0, Bytes::new()).await;
    let mut caught_up = 0;
    let mut seq = 0;
    while seq < 3 || caught_up == 0 {
        match subscriber.next().await {
            (4, Response::Entries(entries)) => seq = entries.entries.last().unwrap().seq,
            (4, Response::CaughtUp(head)) => {
                caught_up += 1;
                assert_eq!(head.seq, seq);
            }
            other => panic!("{other:?}"),
        }
    }
    for epoch in 2..10 {
        cluster.submit(SHARD, commit("live", epoch, b"c")).await;
    }
    while seq < 11 {
        match subscriber.next().await {
            (4, Response::Entries(entries)) => seq = entries.entries.last().unwrap().seq,
            other => panic!("told twice that it is live: {other:?}"),
        }
    }
    assert_eq!(caught_up, 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_another_log_is_told_so() {
    let cluster = Cluster::start(3).await;
    cluster.group_with("mine", 3).await;
    let mut subscriber = Subscriber::open(cluster.ordering(1).await).await;
    subscriber.follow(1, "mine", 2, Bytes::from(vec![9; 32])).await;
    subscriber.follow(2, "mine", 99, Bytes::new()).await;
    subscriber.follow(3, "nobody's", 0, Bytes::new()).await;
    subscriber.follow(4, "mine", 1, Bytes::from_static(b"short")).await;
    subscriber.follow(5, "", 0, Bytes::new()).await;
    let mut reasons = std::collections::BTreeMap::new();
    while reasons.len() < 5 {
        match subscriber.next().await {
            (id, Response::Refused(refused)) => {
                reasons.insert(id, refused.reason());
            }
            (id, other) => panic!("{id}: {other:?}"),
        }
    }
    let expected = [
        Reason::CursorMismatch,
        Reason::CursorAhead,
        Reason::GroupNotFound,
        Reason::Malformed,
        Reason::Malformed,
    ];
    assert_eq!(reasons.into_values().collect::<Vec<_>>(), expected);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_holds_up_nobody_and_misses_nothing() {
    let cluster = Cluster::start(3).await;
    let mut slow = Subscriber::open(cluster.ordering(1).await).await;
    let mut quick = Subscriber::open(cluster.ordering(1).await).await;
    cluster.submit(SHARD, create("busy")).await;
    slow.follow(1, "busy", 0, Bytes::new()).await;
    quick.follow(1, "busy", 0, Bytes::new()).await;
    for epoch in 0..100 {
        cluster.submit(SHARD, commit("busy", epoch, &[7; 20_000])).await;
    }
    assert_eq!(quick.entries(0, 101).await.len(), 101);
    assert_eq!(slow.entries(0, 101).await.len(), 101);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_welcome_reaches_the_inbox_of_its_client_on_every_node() {
    let cluster = Cluster::start(3).await;
    cluster.group_with("joined", 2).await;
    let mut followers = Vec::new();
    for node in 1..=3 {
        let subscriber = Subscriber::open(cluster.ordering(node).await).await;
        let follow = FollowInbox { id: 8, client_id: id("bob"), cursor: None };
        subscriber.out.send(SubscribeRequest { request: Some(Request::FollowInbox(follow)) }).await.unwrap();
        followers.push(subscriber);
    }
    let outcome = cluster.submit(SHARD, welcome("joined", 2, "bob")).await;
    let Outcome::Accepted(accepted) = outcome else { panic!("{outcome:?}") };
    for mut follower in followers {
        let (8, Response::Welcomes(welcomes)) = follower.next().await else { panic!("no Welcome") };
        let [welcome] = &welcomes.welcomes[..] else { panic!("not one Welcome") };
        assert_eq!((welcome.seq, welcome.epoch), (accepted.seq, 3));
        assert_eq!(
            (welcome.state_id.clone(), welcome.group_id.clone()),
            (accepted.state_id.clone(), id("joined"))
        );
        assert_eq!(welcome.key_package_refs, [id("ref")]);
    }
    let request =
        ReadInboxRequest { client_id: id("bob"), cursor: None, max_welcomes: 0, linearizable: true };
    let page = cluster.ordering(2).await.read_inbox(request.clone()).await.unwrap().into_inner().welcomes;
    let position = page[0].cursor.as_ref().unwrap().positions[0].position;
    let ack = AckWelcomes { client_id: id("bob"), position };
    let outcome = cluster.submit(SHARD, encode(Command::AckWelcomes(ack))).await;
    assert!(matches!(outcome, Outcome::WelcomesAcked(_)), "{outcome:?}");
    assert!(cluster.ordering(3).await.read_inbox(request).await.unwrap().into_inner().welcomes.is_empty());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_node_says_where_its_readers_go_on() {
    let mut cluster = Cluster::start(3).await;
    cluster.group_with("moving", 5).await;
    let mut read = Vec::new();
    let mut place = CanonicalCursor::default();
    for node in 1..=3 {
        let mut subscriber = Subscriber::open(cluster.ordering(node).await).await;
        subscriber.follow(7, "moving", place.seq, place.chain_hash.clone()).await;
        let from = place.seq;
        cluster.submit(SHARD, commit("moving", 5 + 2 * (node - 1), b"c")).await;
        cluster.submit(SHARD, commit("moving", 6 + 2 * (node - 1), b"c")).await;
        read.extend(subscriber.entries(from, 6 + 2 * (node - 1)).await);
        let stopping = cluster.stop_node(node);
        let ending = async {
            loop {
                match subscriber.next().await {
                    (7, Response::Entries(entries)) => read.extend(entries.entries),
                    (7, Response::Ended(Ended { place: Some(ended::Place::Group(place)) })) => return place,
                    (7, Response::CaughtUp(_)) => {}
                    other => panic!("{other:?}"),
                }
            }
        };
        place = tokio::join!(stopping, ending).1;
        assert_eq!(place.seq, read.last().unwrap().seq);
        assert_eq!(place.chain_hash, read.last().unwrap().chain_hash);
        let status = subscriber.responses.message().await.unwrap_err();
        assert_eq!(reason(&status).as_deref(), Some("NO_QUORUM"));
        cluster.start_node(node).await;
    }
    assert!(read.iter().map(|entry| entry.seq).eq(1..=read.len() as u64), "no gap, no repetition");
    cluster.stop().await;
}
