//! One gateway: the quorum goes, the group goes on, the quorum comes back.

use std::time::Instant;

use concordat_proto::{
    gateway::v1::{
        Mode, OfferBranchEntriesRequest, ReadBranchEntriesRequest, ReadEntriesRequest,
        UploadBranchEntriesRequest, submit_response::Outcome, subscribe_response::Event,
    },
    log::v1::{BranchEntry, CanonicalCursor, Cursor, content::Content, cursor::Chain},
};
use group_log::fork::{Item, LeafId, Mark};
use tonic::Code;

use super::site::{
    FORKED_WITHIN, GROUP, Site, add, after, branch_entry, create, made_in, provisional, sites, told_mode,
};
use crate::support::{
    Client, Events, accepted, assert_refused, create_request,
    fake::FakeCluster,
    member::{Member, tampered},
    outcome, submit, until,
};

async fn alone(cluster: &FakeCluster) -> (Site, Client) {
    let site = sites(cluster, 1, |_, _| false).await.remove(0);
    let calls = site.client(b"alice");
    (site, calls)
}

#[tokio::test]
async fn while_there_is_a_quorum_the_log_says_who_is_a_member_and_what_is_stable() {
    let cluster = FakeCluster::start(3).await;
    let (site, mut calls) = alone(&cluster).await;
    let (mut alice, mut bob) = (Member::new("alice"), Member::new("bob"));
    let first = create(&mut calls, &mut alice).await;
    let second = add(&mut calls, &mut alice, &mut bob, &first).await;
    let remove = made_in(&second, alice.commit(&[], &[1]));
    accepted(submit(&mut calls, remove).await);
    cluster.get(|state| {
        let [created, added, removed] = state.forks.groups[GROUP].facts().try_into().unwrap();
        assert_eq!(created.adds, [LeafId::new(&first, 0)]);
        assert_eq!(
            (added.author, &added.adds[..]),
            (Some(LeafId::new(&first, 0)), &[LeafId::new(&second, 1)][..])
        );
        assert_eq!(removed.removes, [LeafId::new(&second, 1)]);
    });
    site.registered(&cluster).await;
    until("it is stable", async || cluster.get(|state| state.forks.groups[GROUP].fork.state().stable >= 3))
        .await;
    let mut events = Events::open(&mut calls, GROUP, None).await;
    let (entries, _) = events.caught_up().await;
    assert!(entries.iter().map(|entry| entry.seq).eq(1..=entries.len() as u64) && entries.len() >= 4);
}

#[tokio::test]
async fn without_a_quorum_the_group_goes_on_and_its_branch_becomes_canonical() {
    let cluster = FakeCluster::start(3).await;
    let (site, mut calls) = alone(&cluster).await;
    let (mut alice, mut bob) = (Member::new("alice"), Member::new("bob"));
    let first = create(&mut calls, &mut alice).await;
    site.registered(&cluster).await;
    let mut events = Events::open(&mut calls, GROUP, None).await;
    events.caught_up().await;

    let lost = Instant::now();
    cluster.set(|state| state.no_quorum = true);
    let second = add(&mut calls, &mut alice, &mut bob, &first).await;
    assert!(lost.elapsed() < FORKED_WITHIN, "it took {:?}", lost.elapsed());
    told_mode(&mut events, Mode::Forked).await;
    assert_eq!(branch_entry(&mut events).await, second.to_bytes());
    let said = made_in(&second, bob.say("hello"));
    let answer = provisional(submit(&mut calls, said.clone()).await);
    assert_eq!((answer.state_id, answer.epoch, answer.copies), (second.to_bytes(), 1, 1));
    assert_eq!(answer.fork_state_id, first.to_bytes());
    assert_eq!(
        provisional(submit(&mut calls, said.clone()).await).entry_id,
        answer.entry_id,
        "the same again"
    );

    cluster.set(|state| state.no_quorum = false);
    let entries = events.entries(2).await;
    assert_eq!((entries[0].seq, &entries[0].state_id), (2, &second.to_bytes()));
    let Some(Content::Application(message)) = entries[1].content.clone().unwrap().content else {
        panic!("expected the message")
    };
    assert_eq!(alice.process_message(&message.message).as_deref(), Some("hello"));
    told_mode(&mut events, Mode::Ordered).await;
    assert_eq!(accepted(submit(&mut calls, said).await).seq, 3, "final, and the same");
    accepted(submit(&mut calls, made_in(&second, alice.update())).await);
}

#[tokio::test]
async fn a_group_that_did_not_choose_it_never_forks() {
    let cluster = FakeCluster::start(3).await;
    let (_site, mut calls) = alone(&cluster).await;
    let mut alice = Member::new("alice");
    calls.create_group(create_request(alice.create(b"plain"))).await.unwrap();
    let commit = alice.update();
    cluster.set(|state| state.no_quorum = true);
    let mut refused = None;
    until("it is unavailable", async || {
        refused = outcome(calls.submit(commit.clone()).await).err();
        refused.as_ref().is_some_and(|status| {
            service_kit::status::StatusFacts::of(status).reason.as_deref() == Some("NO_QUORUM")
        })
    })
    .await;
    assert!(assert_refused(&refused.unwrap(), Code::Unavailable, "NO_QUORUM").retry_after.is_some());
}

#[tokio::test]
async fn a_gateway_that_is_killed_with_its_branch_brings_it_back() {
    let cluster = FakeCluster::start(3).await;
    let (mut site, mut calls) = alone(&cluster).await;
    let mut alice = Member::new("alice");
    let first = create(&mut calls, &mut alice).await;
    site.registered(&cluster).await;
    cluster.set(|state| state.no_quorum = true);
    let commit = made_in(&first, alice.update());
    let second = after(&first, &commit);
    provisional(submit(&mut calls, commit.clone()).await);
    site.kill().await;
    site.restart().await;
    let mut calls = site.client(b"alice");
    // Still without a quorum: it goes on where it was.
    alice.merge();
    let next = made_in(&second, alice.update());
    assert_eq!(provisional(submit(&mut calls, next.clone()).await).fork_state_id, first.to_bytes());
    cluster.set(|state| state.no_quorum = false);
    until("the branch is in the log", async || {
        cluster.get(|state| state.forks.groups[GROUP].fork.current().unwrap().epoch == 2)
    })
    .await;
    assert_eq!(accepted(submit(&mut calls, commit).await).seq, 2);
}

#[tokio::test]
async fn what_members_processed_outlives_the_gateway_that_accepted_it() {
    let cluster = FakeCluster::start(3).await;
    let sites = sites(&cluster, 2, |_, _| false).await;
    let (mut there, mut here) = (sites[0].client(b"alice"), sites[1].client(b"bob"));
    let mut alice = Member::new("alice");
    let first = create(&mut there, &mut alice).await;
    let mut events = Events::open(&mut here, GROUP, None).await;
    events.caught_up().await;
    for site in &sites {
        site.registered(&cluster).await;
    }
    sites[0].cut_from_cluster();
    let commit = made_in(&first, alice.update());
    let id = provisional(submit(&mut there, commit.clone()).await).entry_id;
    let asked = ReadBranchEntriesRequest { group_id: GROUP.into(), entry_ids: vec![id.clone()] };
    let mut entry =
        there.read_branch_entries(asked).await.unwrap().into_inner().entries.remove(0).entry.unwrap();
    // The gateway is never seen again. Its client goes to another one, and says what is not true about members.
    entry.facts = Some(concordat_proto::log::v1::CommitFacts {
        removes: vec![vec![1; 32].into()],
        ..Default::default()
    });
    let offer =
        OfferBranchEntriesRequest { group_id: GROUP.into(), entry_ids: vec![id.clone(), first.to_bytes()] };
    let missing = here.offer_branch_entries(offer).await.unwrap().into_inner().missing;
    assert_eq!(missing, std::slice::from_ref(&id));
    let orphan = BranchEntry { parent_state_id: vec![5; 32].into(), ..entry.clone() };
    let upload = |entries| UploadBranchEntriesRequest { group_id: GROUP.into(), entries };
    let refused = here.upload_branch_entries(upload(vec![orphan])).await.unwrap_err();
    assert_refused(&refused, Code::FailedPrecondition, "BRANCH_GAP");
    let answer = here.upload_branch_entries(upload(vec![entry.clone(), entry])).await.unwrap();
    assert_eq!(answer.into_inner().new_entries, 1);
    cluster.set(|state| state.forks.keep_open = false);
    until("the entry was reported", async || {
        cluster.get(|state| {
            let id = group_log::EntryId::from_slice(&id).unwrap();
            let reported = state.forks.groups[GROUP].fork.reported(&id);
            reported.is_some_and(|entry| {
                entry.facts.removes.is_empty() && entry.facts.author == Some(LeafId::new(&first, 0))
            })
        })
    })
    .await;
}

#[tokio::test]
async fn a_branch_that_lost_is_on_the_side_and_its_removals_are_owed() {
    let cluster = FakeCluster::start(3).await;
    let sites = sites(&cluster, 2, |_, _| false).await;
    let (mut there, mut here) = (sites[0].client(b"alice"), sites[1].client(b"bob"));
    let (mut alice, mut bob, mut carol) = (Member::new("alice"), Member::new("bob"), Member::new("carol"));
    let first = create(&mut there, &mut alice).await;
    let second = add(&mut there, &mut alice, &mut bob, &first).await;
    let add_carol = made_in(&second, alice.commit(&[("carol", carol.key_package(false))], &[]));
    let third = after(&second, &add_carol);
    accepted(submit(&mut there, add_carol.clone()).await);
    alice.merge();
    bob.process_message(&add_carol.message);
    carol.join(&add_carol.welcome);
    let mut events = Events::open(&mut here, GROUP, None).await;
    events.caught_up().await;
    for site in &sites {
        site.registered(&cluster).await;
    }

    sites[0].cut_off();
    let remove = made_in(&third, alice.commit(&[], &[2]));
    provisional(submit(&mut there, remove.clone()).await);
    let other = made_in(&third, bob.update());
    let fourth = after(&third, &other);
    accepted(submit(&mut here, other.clone()).await);
    bob.merge();
    sites[0].mend();
    let owed = loop {
        let Event::Entry(entry) = events.next().await.unwrap() else { continue };
        if let Some(Content::Side(side)) = entry.content.unwrap().content {
            break side;
        }
    };
    assert_eq!(owed.ids, [after(&third, &remove).to_bytes()]);
    assert_eq!(owed.owed_leaf_indices, [2], "carol");
    let asked = ReadBranchEntriesRequest { group_id: GROUP.into(), entry_ids: owed.ids };
    let found = here.read_branch_entries(asked).await.unwrap().into_inner().entries.remove(0);
    assert_eq!((found.fork_state_id, found.epoch), (third.to_bytes(), 2));
    // Nothing before the removal; and the loser's answer is final.
    let Outcome::RemoveFirst(first) = submit(&mut here, made_in(&fourth, bob.say("hi"))).await else {
        panic!("a removal is owed")
    };
    assert_eq!(first.owed_leaf_indices, [2]);
    let Outcome::Superseded(lost) = submit(&mut there, remove).await else { panic!("it has lost") };
    assert_eq!(lost.winner.unwrap().state_id, fourth.to_bytes());
    let fifth = made_in(&fourth, bob.commit(&[], &[2]));
    accepted(submit(&mut here, fifth).await);
    bob.merge();
    cluster.get(|state| {
        let group = &state.forks.groups[GROUP];
        assert!(group.fork.state().owed.is_empty());
        assert!(group.items().iter().any(|item| matches!(item, Item::Mark(Mark::Side { .. }))));
    });
}

#[tokio::test]
async fn the_copy_of_a_log_is_cut_below_the_stable_entry_and_is_still_read_from_its_beginning() {
    let cluster = FakeCluster::start(3).await;
    let mut site = sites(&cluster, 1, |_, _| false).await.remove(0);
    site.keep(8).await;
    let mut calls = site.client(b"alice");
    let mut alice = Member::new("alice");
    let mut state = create(&mut calls, &mut alice).await;
    site.registered(&cluster).await;
    for _ in 0..40 {
        let commit = made_in(&state, alice.update());
        state = after(&state, &commit);
        accepted(submit(&mut calls, commit).await);
        alice.merge();
    }
    let group = site.group();
    until("the oldest entries are gone", async || group.rows.oldest().unwrap().is_some_and(|seq| seq > 16))
        .await;
    assert!(group.rows.entries(0, 10, 1 << 20).is_err(), "they are not silently left out");

    // A reader from the beginning, a page in the middle of what is gone, and a restart.
    let head = group.log_seq().unwrap();
    let (entries, _) = Events::open(&mut calls, GROUP, None).await.caught_up().await;
    assert!(entries.iter().map(|entry| entry.seq).eq(1..=entries.len() as u64));
    assert!(entries.len() as u64 >= head);
    let chain_hash = entries[3].chain_hash.clone();
    let cursor = Some(Cursor { chain: Some(Chain::Canonical(CanonicalCursor { seq: 4, chain_hash })) });
    let asked = ReadEntriesRequest { group_id: GROUP.into(), cursor, max_entries: 3, linearizable: false };
    let page = calls.read_entries(asked).await.unwrap().into_inner().entries;
    assert_eq!(page.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [5, 6, 7]);
    drop(group);
    site.kill().await;
    site.restart().await;
    let mut calls = site.client(b"alice");
    site.is_counted_on().await;
    // Who is a member is still seen: a commit that nobody could process is refused.
    let good = made_in(&state, alice.update());
    let mut forged = good.clone();
    let plain = good.message.slice(..good.message.len() - 33);
    forged.message = [&tampered(&plain)[..], &good.message[plain.len()..]].concat().into();
    let refused = outcome(calls.submit(forged).await).unwrap_err();
    assert_refused(&refused, Code::InvalidArgument, "INVALID_COMMIT");
    accepted(submit(&mut calls, good).await);
}
