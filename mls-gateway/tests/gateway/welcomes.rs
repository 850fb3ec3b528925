//! Welcomes reach clients that were offline, in order, until they say that they have them.

use bytes::Bytes;
use concordat_proto::{
    gateway::v1::{AckWelcomesRequest, WatchWelcomesRequest},
    log::v1::{InboxCursor, PendingWelcome, ShardPosition},
};
use tonic::Code;

use crate::support::{
    Client, accepted, assert_refused, client, create_request, gateway, member::Member, real::RealCluster,
    soon, submit,
};

async fn invite(calls: &mut Client, group: &[u8], guest: &Member) {
    let mut host = Member::new("host");
    calls.create_group(create_request(host.create(group))).await.unwrap();
    let package = guest.key_package(false);
    let add = host.commit(&[(guest.name, package)], &[]);
    accepted(submit(calls, add).await);
}

struct Inbox(tonic::Streaming<concordat_proto::gateway::v1::WatchWelcomesResponse>);

impl Inbox {
    async fn open(calls: &mut Client, cursor: Option<InboxCursor>) -> Self {
        Self(calls.watch_welcomes(WatchWelcomesRequest { cursor }).await.unwrap().into_inner())
    }

    async fn next(&mut self) -> PendingWelcome {
        soon("a Welcome", self.0.message()).await.unwrap().unwrap().welcome.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offline_client_finds_its_welcomes_and_gets_new_ones_live_at_another_gateway() {
    let cluster = RealCluster::start().await;
    let (east, west) = (gateway(&cluster.addresses()).await, gateway(&cluster.addresses()).await);
    let (mut hosts, mut bobs) = (client(&east, b"host"), client(&west, b"bob"));
    let mut bob = Member::new("bob");
    for group in [&b"one"[..], b"two", b"three"] {
        invite(&mut hosts, group, &bob).await;
    }
    let mut inbox = Inbox::open(&mut bobs, None).await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(inbox.next().await);
    }
    let mut groups: Vec<Bytes> = waiting.iter().map(|w| w.group_id.clone()).collect();
    groups.sort();
    assert_eq!(groups, [&b"one"[..], b"three", b"two"]);
    bob.join(&waiting[0].welcome);
    assert_eq!((bob.epoch(), waiting[0].seq), (waiting[0].epoch, 2));

    invite(&mut hosts, b"four", &bob).await;
    assert_eq!(&inbox.next().await.group_id[..], b"four");

    // A new watch shows everything that was not acknowledged, and after a cursor only what is newer.
    let mut again = Inbox::open(&mut bobs, None).await;
    let mut cursor = InboxCursor::default();
    for _ in 0..4 {
        cursor.positions.extend(again.next().await.cursor.unwrap().positions);
    }
    cursor = newest(&cursor);
    let mut after = Inbox::open(&mut bobs, Some(cursor.clone())).await;
    bobs.ack_welcomes(AckWelcomesRequest { cursor: Some(cursor) }).await.unwrap();
    invite(&mut hosts, b"five", &bob).await;
    assert_eq!(&after.next().await.group_id[..], b"five");
    assert_eq!(
        &Inbox::open(&mut bobs, None).await.next().await.group_id[..],
        b"five",
        "the others are dropped"
    );
}

fn newest(cursor: &InboxCursor) -> InboxCursor {
    let mut places = std::collections::BTreeMap::new();
    for at in &cursor.positions {
        let place = places.entry(at.shard).or_insert(0);
        *place = at.position.max(*place);
    }
    InboxCursor {
        positions: places.into_iter().map(|(shard, position)| ShardPosition { shard, position }).collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_places_in_an_inbox_are_refused() {
    let cluster = RealCluster::start().await;
    let gateway = gateway(&cluster.addresses()).await;
    let mut bobs = client(&gateway, b"bob");
    let at = |shard, position| ShardPosition { shard, position };
    for positions in [vec![at(0, 1)], vec![at(65, 1)], vec![at(1, 1), at(1, 2)]] {
        let cursor = Some(InboxCursor { positions });
        let error = bobs.watch_welcomes(WatchWelcomesRequest { cursor: cursor.clone() }).await.unwrap_err();
        assert_refused(&error, Code::InvalidArgument, "MALFORMED");
        let error = bobs.ack_welcomes(AckWelcomesRequest { cursor }).await.unwrap_err();
        assert_refused(&error, Code::InvalidArgument, "MALFORMED");
    }
    let cursor = Some(InboxCursor { positions: vec![at(40, 1)] });
    let error = bobs.ack_welcomes(AckWelcomesRequest { cursor }).await.unwrap_err();
    assert_refused(&error, Code::InvalidArgument, "MALFORMED");
    let error = bobs.ack_welcomes(AckWelcomesRequest { cursor: None }).await.unwrap_err();
    assert_refused(&error, Code::InvalidArgument, "MALFORMED");
}
