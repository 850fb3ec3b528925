//! Only members write to and read a DeMLS group; without a quorum the gateway judges by the branch.

use bytes::Bytes;
use concordat_proto::{
    gateway::v1::{
        GetHeadRequest, OfferBranchEntriesRequest, ReadBranchEntriesRequest, ReadEntriesRequest,
        SubscribeRequest, UploadBranchEntriesRequest, subscribe_response::Event,
    },
    log::v1::content::Content,
};
use tonic::{Code, Status};

use super::site::{GROUP, add, after, branch_entry, create, made_in, provisional, sites};
use crate::support::{
    Client, Events, accepted, assert_refused, create_request, fake::FakeCluster, member::Member, submit,
};

#[track_caller]
fn denied<T: std::fmt::Debug>(what: &str, answer: Result<T, Status>) {
    match answer {
        Err(status) => _ = assert_refused(&status, Code::PermissionDenied, "PERMISSION_DENIED"),
        Ok(answer) => panic!("{what} was let in: {answer:?}"),
    }
}

/// Everything that one can ask of the group beside submitting to it; `id` is one of its branch entries.
async fn is_kept_out(calls: &mut Client, id: &Bytes) {
    let group_id = Bytes::from_static(GROUP);
    let entry_ids = vec![id.clone()];
    let asked = ReadBranchEntriesRequest { group_id: group_id.clone(), entry_ids: entry_ids.clone() };
    denied("ReadBranchEntries", calls.read_branch_entries(asked).await);
    let offer = OfferBranchEntriesRequest { group_id: group_id.clone(), entry_ids };
    denied("OfferBranchEntries", calls.offer_branch_entries(offer).await);
    let upload = UploadBranchEntriesRequest { group_id: group_id.clone(), entries: Vec::new() };
    denied("UploadBranchEntries", calls.upload_branch_entries(upload).await);
    denied("GetHead", calls.get_head(GetHeadRequest { group_id, linearizable: false }).await);
}

#[tokio::test]
async fn who_is_no_member_is_kept_out_with_a_quorum_and_without() {
    let cluster = FakeCluster::start(3).await;
    let mut site = sites(&cluster, 1, |_, _| false).await.remove(0);
    site.guard().await;
    let (mut alice, mut bob) = (Member::new("alice"), Member::new("bob"));
    let (mut alices, mut bobs) = (site.client(b"alice"), site.client(b"bob"));
    let mut mallorys = site.client(b"mallory");
    let mut stolen = create_request(Member::new("alice").create(GROUP));
    stolen.kind = concordat_proto::log::v1::GroupKind::Demls.into();
    denied("CreateGroup", mallorys.create_group(stolen).await);
    let first = create(&mut alices, &mut alice).await;
    let second = add(&mut alices, &mut alice, &mut bob, &first).await;
    site.registered(&cluster).await;
    accepted(submit(&mut bobs, made_in(&second, bob.say("hello"))).await);

    for quorum in [true, false] {
        cluster.set(|state| state.no_quorum = !quorum);
        if !quorum {
            site.in_mode(group_log::fork::Mode::Forked).await;
        }
        denied("a message", mallorys.submit(made_in(&second, bob.say("stolen"))).await);
        denied("another's commit", mallorys.submit(made_in(&second, bob.update())).await);
        bob.abandon();
        is_kept_out(&mut mallorys, &second.to_bytes()).await;
        let group_id = Bytes::from_static(GROUP);
        let page = ReadEntriesRequest { group_id: group_id.clone(), ..ReadEntriesRequest::default() };
        denied("ReadEntries", mallorys.read_entries(page.clone()).await);
        let subscribe = SubscribeRequest { group_id, ..SubscribeRequest::default() };
        denied("Subscribe", mallorys.subscribe(subscribe).await);
        assert!(bobs.read_entries(page).await.unwrap().into_inner().entries.len() >= 3);
    }
}

#[tokio::test]
async fn who_is_removed_on_a_branch_is_cut_off_from_what_follows_there() {
    let cluster = FakeCluster::start(3).await;
    let mut site = sites(&cluster, 1, |_, _| false).await.remove(0);
    site.guard().await;
    let (mut alice, mut bob) = (Member::new("alice"), Member::new("bob"));
    let (mut alices, mut bobs) = (site.client(b"alice"), site.client(b"bob"));
    let first = create(&mut alices, &mut alice).await;
    let second = add(&mut alices, &mut alice, &mut bob, &first).await;
    site.registered(&cluster).await;
    let mut listening = Events::open(&mut bobs, GROUP, None).await;
    listening.caught_up().await;

    cluster.set(|state| state.no_quorum = true);
    let late = made_in(&second, bob.say("too late"));
    let remove = made_in(&second, alice.commit(&[], &[1]));
    let third = after(&second, &remove);
    provisional(submit(&mut alices, remove).await);
    alice.merge();
    let secret = provisional(submit(&mut alices, made_in(&third, alice.say("after"))).await).entry_id;
    // He sees the commit that removes him, and does nothing more on this branch.
    assert_eq!(branch_entry(&mut listening).await, third.to_bytes());
    denied("Submit", bobs.submit(late.clone()).await);
    is_kept_out(&mut bobs, &secret).await;

    // A gateway that has started anew without a quorum judges by the branch on its disk.
    drop(listening);
    site.kill().await;
    site.restart().await;
    let (mut alices, mut bobs) = (site.client(b"alice"), site.client(b"bob"));
    denied("Submit", bobs.submit(late.clone()).await);
    is_kept_out(&mut bobs, &secret).await;
    let asked = ReadBranchEntriesRequest { group_id: GROUP.into(), entry_ids: vec![secret.clone()] };
    assert_eq!(alices.read_branch_entries(asked).await.unwrap().into_inner().entries.len(), 1);
    let at = cluster.get(|state| *state.forks.groups[GROUP].fork.current().unwrap());
    let cursor = Some((at.seq, at.chain.to_bytes()));
    let mut listening = Events::open(&mut bobs, GROUP, cursor).await;
    assert_eq!(branch_entry(&mut listening).await, third.to_bytes());

    // The branch becomes the log: now it is certain, and his subscription ends.
    cluster.set(|state| state.no_quorum = false);
    let mut shown = Vec::new();
    let ended = loop {
        match listening.next().await {
            Ok(Event::Entry(entry)) => shown.push(entry),
            Ok(Event::BranchEntry(event)) => assert_ne!(event.entry_id, secret),
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_refused(&ended, Code::PermissionDenied, "PERMISSION_DENIED");
    let last = shown.last().unwrap();
    assert_eq!(last.state_id, third.to_bytes(), "the commit that removes him");
    assert!(matches!(last.content.clone().unwrap().content, Some(Content::Commit(_))));
    denied("Submit", bobs.submit(late).await);
    is_kept_out(&mut bobs, &secret).await;
    accepted(submit(&mut alices, made_in(&third, alice.say("we go on"))).await);
}
