//! Bad input on the relay: refused with the reason, and nothing is lost.

use bytes::Bytes;
use concordat_proto::{
    log::v1::{Application, BranchEntry, Commit, CommitFacts, Content, content},
    relay::v1::{
        FetchBranchRequest, FetchLogRequest, ForwardRequest, Hello, LinkRequest, SequenceRequest,
        StoreRequest, relay_client::RelayClient,
    },
};
use group_log::{EntryId, StateId};
use mls_gateway::relay::{CLUSTER_KEY, GATEWAY_KEY};
use service_kit::net::{Connector, tcp_network};
use tonic::{
    Code, Request, Status,
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};

use super::site::{GROUP, Site, add, create, made_in, provisional, sites};
use crate::support::{
    assert_refused,
    fake::FakeCluster,
    member::{Member, tampered},
    submit,
};

pub fn relay(site: &Site) -> RelayClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", site.relay_address)).unwrap();
    RelayClient::new(endpoint.connect_with_connector_lazy(Connector::new(tcp_network())))
}

pub fn from<T>(cluster: &'static str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert_bin(GATEWAY_KEY, MetadataValue::from_bytes(&[3; 16]));
    request.metadata_mut().insert(CLUSTER_KEY, MetadataValue::from_static(cluster));
    request
}

fn entry(parent: &StateId, message: Bytes) -> BranchEntry {
    let commit = Commit { message, ..Commit::default() };
    BranchEntry {
        parent_state_id: parent.to_bytes(),
        author: Bytes::from_static(b"mallory"),
        content: Some(Content { content: Some(content::Content::Commit(commit)) }),
        facts: None,
    }
}

async fn store(site: &Site, entries: Vec<BranchEntry>) -> Result<u32, Status> {
    let request = StoreRequest { group_id: GROUP.into(), entries };
    relay(site).store(from("fake", request)).await.map(|answer| answer.into_inner().new_entries)
}

#[tokio::test]
async fn bad_input_from_other_gateways_is_refused_with_the_reason_and_nothing_is_lost() {
    let cluster = FakeCluster::start(3).await;
    let site = sites(&cluster, 1, |_, _| false).await.remove(0);
    let mut calls = site.client(b"alice");
    let (mut alice, mut bob) = (Member::new("alice"), Member::new("bob"));
    let first = create(&mut calls, &mut alice).await;
    let second = add(&mut calls, &mut alice, &mut bob, &first).await;
    site.registered(&cluster).await;
    cluster.set(|state| state.no_quorum = true);
    let mine = made_in(&second, alice.update());
    provisional(submit(&mut calls, mine.clone()).await);
    let theirs = made_in(&second, bob.commit(&[], &[0])).message;

    // A foreign gateway.
    let hello = |cluster: &str| Hello {
        gateway_id: vec![3; 16].into(),
        cluster_id: cluster.into(),
        address: String::new(),
    };
    let link = LinkRequest { hello: Some(hello("theirs")) };
    let refused = relay(&site).link(link).await.map(drop).unwrap_err();
    assert_eq!(
        assert_refused(&refused, Code::PermissionDenied, "PERMISSION_DENIED").metadata["expected"],
        "fake"
    );
    let request = StoreRequest { group_id: GROUP.into(), entries: vec![entry(&second, theirs.clone())] };
    let refused = relay(&site).store(from("theirs", request)).await.unwrap_err();
    assert_refused(&refused, Code::PermissionDenied, "PERMISSION_DENIED");
    let refused = relay(&site).fetch_branch(FetchBranchRequest::default()).await.unwrap_err();
    assert_refused(&refused, Code::InvalidArgument, "MALFORMED");

    // A gap, and a fork point that never was.
    let nowhere = StateId([7; 32]);
    let refused = store(&site, vec![entry(&nowhere, theirs.clone())]).await.unwrap_err();
    let facts = assert_refused(&refused, Code::FailedPrecondition, "BRANCH_GAP");
    assert_eq!(facts.metadata["parent_state_id"], nowhere.to_string());

    // A forged branch: bytes that nobody signed, another group's, not a DMLSMessage, not even a message.
    let plain = theirs.slice(..theirs.len() - 33);
    let forged = [&tampered(&plain)[..], &theirs[plain.len()..]].concat().into();
    let refused = store(&site, vec![entry(&second, forged)]).await.unwrap_err();
    assert_refused(&refused, Code::InvalidArgument, "INVALID_COMMIT");
    let mut eve = Member::new("eve");
    eve.create(b"another");
    for wrong in [made_in(&second, eve.update()).message, plain, Bytes::from_static(b"x")] {
        let refused = store(&site, vec![entry(&second, wrong)]).await.unwrap_err();
        assert_refused(&refused, Code::InvalidArgument, "MALFORMED");
    }

    // Beyond the limits.
    let refused = store(&site, vec![entry(&second, theirs.clone()); 1025]).await.unwrap_err();
    assert_refused(&refused, Code::InvalidArgument, "MALFORMED");
    let unknown = FetchLogRequest { group_id: Bytes::from_static(b"unknown"), after_seq: 0 };
    assert!(relay(&site).fetch_log(from("fake", unknown)).await.is_err());
    let request =
        SequenceRequest { hops_left: 99, sequencer: vec![4; 16].into(), ..SequenceRequest::default() };
    let refused = relay(&site).sequence(from("fake", request)).await.unwrap_err();
    assert_refused(&refused, Code::InvalidArgument, "MALFORMED");
    let request = ForwardRequest { shard: 1, command: Bytes::new(), hops_left: 0 };
    assert!(relay(&site).forward(from("fake", request)).await.is_err());

    // What is right is taken in, whatever was claimed about it: once.
    let mut lie = entry(&second, theirs.clone());
    lie.facts = Some(CommitFacts { author: vec![8; 32].into(), ..CommitFacts::default() });
    assert_eq!(store(&site, vec![lie.clone(), lie.clone()]).await.unwrap(), 1);
    assert_eq!(store(&site, vec![lie]).await.unwrap(), 0);
    cluster.set(|state| state.no_quorum = false);
    let id = EntryId::from(super::site::after(
        &second,
        &concordat_proto::gateway::v1::SubmitRequest { message: theirs, ..Default::default() },
    ));
    crate::support::until("both are reported, with true facts", async || {
        cluster.get(|state| {
            let fork = &state.forks.groups[GROUP].fork;
            let mine = fork.reported(&super::site::after(&second, &mine).into());
            mine.is_some() && fork.reported(&id).is_some_and(|entry| entry.facts.removes.len() == 1)
        })
    })
    .await;
}

#[tokio::test]
async fn a_branch_beyond_the_bound_is_refused_and_what_was_there_before_is_kept() {
    const BOUND: usize = 64 * 1024;
    let cluster = FakeCluster::start(3).await;
    let mut site = sites(&cluster, 1, |_, _| false).await.remove(0);
    site.bound(BOUND).await;
    let mut calls = site.client(b"alice");
    let (mut alice, mut bob) = (Member::new("alice"), Member::new("bob"));
    let first = create(&mut calls, &mut alice).await;
    let second = add(&mut calls, &mut alice, &mut bob, &first).await;
    site.registered(&cluster).await;
    cluster.set(|state| state.no_quorum = true);
    let commit = made_in(&second, alice.update());
    let third = super::site::after(&second, &commit);
    provisional(submit(&mut calls, commit).await);

    let long = |n: u8| {
        let message = made_in(&second, bob.say(&char::from(b'a' + n).to_string().repeat(20 * 1024))).message;
        let content = Some(Content { content: Some(content::Content::Application(Application { message })) });
        BranchEntry { content, ..entry(&second, Bytes::new()) }
    };
    let messages: Vec<_> = (0..4).map(long).collect();
    let mut taken = Vec::new();
    let refused = loop {
        match store(&site, vec![messages[taken.len()].clone()]).await {
            Ok(new) => taken.push(new),
            Err(refused) => break refused,
        }
    };
    let facts = assert_refused(&refused, Code::ResourceExhausted, "OVERLOADED");
    assert_eq!(facts.metadata["limit"], BOUND.to_string());
    assert_eq!(taken, [1; 3]);
    // The same from whoever is served here; what is there already may come again.
    assert_eq!(store(&site, messages[..3].to_vec()).await.unwrap(), 0);
    assert_eq!(refused.message().matches("bytes").count(), 1, "{refused:?}");

    cluster.set(|state| state.no_quorum = false);
    crate::support::until("everything that was taken in is in the log", async || {
        cluster.get(|state| {
            let fork = &state.forks.groups[GROUP].fork;
            let is_kept = |entry: &BranchEntry| {
                let entry = group_log::fork::BranchEntry::try_from(entry.clone()).unwrap();
                fork.verdict(&entry.id()).is_some()
            };
            fork.verdict(&third.into()).is_some() && messages[..3].iter().all(is_kept)
        })
    })
    .await;
    until_there_is_room(&site, &messages[3]).await;
}

/// When `Stable` has passed, there is room again: what was refused comes once more, from wherever it was kept.
async fn until_there_is_room(site: &Site, entry: &BranchEntry) {
    crate::support::until("there is room", async || matches!(store(site, vec![entry.clone()]).await, Ok(1)))
        .await;
}
