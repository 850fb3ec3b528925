//! Following a group: every entry once, in order, from wherever the reader was.

use bytes::Bytes;
use concordat_proto::{
    gateway::v1::{ReadEntriesRequest, SubscribeRequest, subscribe_response::Event},
    log::v1::{BranchCursor, CanonicalCursor, Cursor, cursor::Chain},
};
use tonic::{Code, Status};

use crate::support::{
    Client, Events, accepted, assert_refused, client, create_request, fake::FakeCluster, gateway,
    member::Member, submit,
};

const GROUP: &[u8] = b"group";

async fn group_with(calls: &mut Client, messages: usize) -> Member {
    let mut alice = Member::new("alice");
    calls.create_group(create_request(alice.create(GROUP))).await.unwrap();
    for n in 0..messages {
        accepted(submit(calls, alice.say(&n.to_string())).await);
    }
    alice
}

#[tokio::test]
async fn a_reader_resumes_from_any_place_and_then_follows_live() {
    let cluster = FakeCluster::start(2).await;
    let (east, west) = (gateway(&cluster.addresses()).await, gateway(&cluster.addresses()).await);
    let mut calls = client(&east, b"alice");
    let mut alice = group_with(&mut calls, 5).await;
    let (all, head) = Events::open(&mut calls, GROUP, None).await.caught_up().await;
    assert!(all.iter().map(|e| e.seq).eq(1..=6));
    assert_eq!(head.seq, 6);
    let mut resumed = Vec::new();
    for (at, entry) in all.iter().enumerate() {
        // At the other gateway, with and without the chain hash.
        for hash in [entry.chain_hash.clone(), Bytes::new()] {
            let mut calls = client(&west, b"alice");
            let mut events = Events::open(&mut calls, GROUP, Some((entry.seq, hash))).await;
            let (rest, _) = events.caught_up().await;
            assert_eq!(rest, all[at + 1..]);
            resumed.push(events);
        }
    }
    accepted(submit(&mut calls, alice.update()).await);
    for events in &mut resumed {
        assert_eq!(events.entry().await.seq, 7);
    }
    assert_eq!(west.followed_groups(), 1, "one upstream for all");
    cluster.get(|state| assert_eq!(state.follows.values().sum::<usize>(), 2, "one for each gateway"));
}

async fn subscribe_error(calls: &mut Client, group: &[u8], chain: Chain) -> Status {
    let cursor = Some(Cursor { chain: Some(chain) });
    let request = SubscribeRequest {
        group_id: Bytes::copy_from_slice(group),
        cursor,
        known_branch_entries: Vec::new(),
    };
    match calls.subscribe(request).await {
        Err(error) => error,
        Ok(stream) => {
            let mut stream = stream.into_inner();
            loop {
                match stream.message().await {
                    Ok(Some(message)) => assert!(!matches!(message.event, Some(Event::Entry(_)))),
                    Ok(None) => panic!("expected an error"),
                    Err(error) => return error,
                }
            }
        }
    }
}

fn canonical(seq: u64, chain_hash: &'static [u8]) -> Chain {
    Chain::Canonical(CanonicalCursor { seq, chain_hash: Bytes::from_static(chain_hash) })
}

#[tokio::test]
async fn places_that_cannot_be_are_refused() {
    let cluster = FakeCluster::start(1).await;
    let gateway = gateway(&cluster.addresses()).await;
    let mut calls = client(&gateway, b"alice");
    group_with(&mut calls, 2).await;
    let unknown = subscribe_error(&mut calls, b"unknown", canonical(0, b"")).await;
    assert_refused(&unknown, Code::NotFound, "GROUP_NOT_FOUND");
    let ahead = subscribe_error(&mut calls, GROUP, canonical(9, b"")).await;
    assert_refused(&ahead, Code::OutOfRange, "CURSOR_AHEAD");
    let ahead = subscribe_error(&mut calls, GROUP, canonical(u64::MAX, b"")).await;
    assert_refused(&ahead, Code::OutOfRange, "CURSOR_AHEAD");
    for seq in 0..=3 {
        let other = subscribe_error(&mut calls, GROUP, canonical(seq, &[7; 32])).await;
        assert_refused(&other, Code::FailedPrecondition, "CURSOR_MISMATCH");
    }
    let short = subscribe_error(&mut calls, GROUP, canonical(1, b"short")).await;
    assert_refused(&short, Code::InvalidArgument, "MALFORMED");
    let id = Bytes::from_static(&[1; 32]);
    let branch = Chain::Branch(BranchCursor { fork_state_id: id.clone(), state_id: id, n: 1 });
    let branch = subscribe_error(&mut calls, GROUP, branch).await;
    assert_refused(&branch, Code::FailedPrecondition, "CURSOR_MISMATCH");
}

#[tokio::test]
async fn pages_are_read_from_any_place() {
    let cluster = FakeCluster::start(1).await;
    let gateway = gateway(&cluster.addresses()).await;
    let mut calls = client(&gateway, b"alice");
    group_with(&mut calls, 9).await;
    let mut request = ReadEntriesRequest {
        group_id: Bytes::from_static(GROUP),
        max_entries: 4,
        ..ReadEntriesRequest::default()
    };
    let mut read = Vec::new();
    loop {
        let page = calls.read_entries(request.clone()).await.unwrap().into_inner();
        let Some(last) = page.entries.last() else { break };
        let cursor = CanonicalCursor { seq: last.seq, chain_hash: last.chain_hash.clone() };
        request.cursor = Some(Cursor { chain: Some(Chain::Canonical(cursor)) });
        read.extend(page.entries);
    }
    assert!(read.iter().map(|e| e.seq).eq(1..=10));
    request.max_entries = 1001;
    assert_refused(&calls.read_entries(request).await.unwrap_err(), Code::InvalidArgument, "MALFORMED");
}
