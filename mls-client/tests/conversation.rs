//! Whole groups over a gateway in memory: the ways of a commit, of a message and of a member.

#![allow(clippy::unwrap_used)] // A panic is the report.

mod support;

use std::time::Duration;

use concordat_proto::log::v1::Reason;
use group_log::Content;
use mls_client::{Change, Committed, Error, EventKind, LeftReason, NewGroup, Policy, Status};
use support::{FakeGateway, QUIET, assert_agreement, client, group_of, id, texts};

#[tokio::test]
async fn invited_members_talk() {
    let gateway = FakeGateway::default();
    let (clients, group) = group_of(&gateway, &["ann", "bob", "cy"]).await;
    let [ann, bob, cy] = &clients[..] else { unreachable!() };
    ann.send(&group, "hello").await.unwrap();
    bob.sync(&group).await.unwrap();
    bob.send(&group, "hi").await.unwrap();
    cy.update(&group).await.unwrap();
    cy.send(&group, "hey").await.unwrap();
    let view = assert_agreement(&[ann, bob, cy], &group).await;
    assert_eq!(view.members, [b"ann".to_vec(), b"bob".to_vec(), b"cy".to_vec()]);
    for client in &clients {
        assert_eq!(texts(client, &group), ["hello", "hi", "hey"]);
    }
    assert_eq!(ann.counters().messages_received, 2);
    assert_eq!(ann.counters().messages_sent, 1);
}

#[tokio::test]
async fn a_commit_that_lost_is_built_again_on_the_winner() {
    let gateway = FakeGateway::default();
    let (clients, group) = group_of(&gateway, &["ann", "bob", "cy"]).await;
    let [ann, bob, cy] = &clients[..] else { unreachable!() };
    let dan = client(&gateway, "dan");
    dan.publish_key_packages().await.unwrap();
    // Nobody has heard of the others' commits yet.
    bob.update(&group).await.unwrap();
    let added = ann.invite(&group, &[id("dan")]).await.unwrap();
    assert!(matches!(added, Committed::Accepted { attempts: 2, .. }), "{added:?}");
    let removed = cy.remove(&group, &[id("bob")]).await.unwrap();
    // Cy is two commits behind: it loses to the first, then to the second.
    assert!(matches!(removed, Committed::Accepted { attempts: 3, .. }), "{removed:?}");
    assert_eq!(ann.counters().commits_superseded, 1);
    dan.join_waiting(QUIET).await.unwrap();
    let view = assert_agreement(&[ann, cy, &dan], &group).await;
    assert_eq!(view.members, [b"ann".to_vec(), b"cy".to_vec(), b"dan".to_vec()]);
}

#[tokio::test]
async fn what_others_have_done_meanwhile_is_not_done_again() {
    let gateway = FakeGateway::default();
    let (clients, group) = group_of(&gateway, &["ann", "bob", "cy"]).await;
    let [ann, bob, _] = &clients[..] else { unreachable!() };
    let dan = client(&gateway, "dan");
    dan.publish_key_packages().await.unwrap();
    let change = || Change::new().invite(id("dan")).remove(id("cy"));
    assert!(matches!(ann.commit(&group, change()).await.unwrap(), Committed::Accepted { .. }));
    assert_eq!(bob.commit(&group, change()).await.unwrap(), Committed::NothingToDo);
    assert_eq!(bob.counters().commits_superseded, 1);
    assert_agreement(&[ann, bob], &group).await;
}

#[tokio::test]
async fn a_removed_member_deletes_its_secrets_and_can_be_invited_again() {
    let gateway = FakeGateway::default();
    let (clients, group) = group_of(&gateway, &["ann", "bob"]).await;
    let [ann, bob] = &clients[..] else { unreachable!() };
    let mut events = bob.events();
    ann.send(&group, "before").await.unwrap();
    ann.remove(&group, &[id("bob")]).await.unwrap();
    ann.send(&group, "secret").await.unwrap();
    let view = bob.sync(&group).await.unwrap();
    assert_eq!(view.status, Status::Left(LeftReason::Removed { by: b"ann".to_vec() }));
    assert_eq!(texts(bob, &group), ["before"]);
    assert!(matches!(bob.send(&group, "x").await, Err(Error::NotMember(_))));
    while !matches!(events.recv().await.unwrap().kind, EventKind::Left { .. }) {}

    ann.invite(&group, &[id("bob")]).await.unwrap();
    assert_eq!(bob.join_waiting(QUIET).await.unwrap(), std::slice::from_ref(&group));
    ann.send(&group, "again").await.unwrap();
    assert_agreement(&[ann, bob], &group).await;
    assert_eq!(texts(bob, &group), ["before", "again"]);
}

#[tokio::test]
async fn removed_and_invited_again_while_away() {
    let gateway = FakeGateway::default();
    let (clients, group) = group_of(&gateway, &["ann", "bob"]).await;
    let [ann, bob] = &clients[..] else { unreachable!() };
    ann.send(&group, "before").await.unwrap();
    ann.remove(&group, &[id("bob")]).await.unwrap();
    ann.invite(&group, &[id("bob")]).await.unwrap();
    assert_eq!(bob.join_waiting(QUIET).await.unwrap(), std::slice::from_ref(&group));
    assert_agreement(&[ann, bob], &group).await;
    assert_eq!(texts(bob, &group), ["before"]);
}

#[tokio::test]
async fn leaving_is_proposed_and_committed_by_others() {
    let gateway = FakeGateway::default();
    let (clients, group) = group_of(&gateway, &["ann", "bob", "cy"]).await;
    let [ann, bob, cy] = &clients[..] else { unreachable!() };
    bob.leave(&group).await.unwrap();
    assert!(matches!(bob.send(&group, "x").await, Err(Error::Leaving)));
    assert!(matches!(bob.update(&group).await, Err(Error::Leaving)));
    // Whoever wants to say something commits what was proposed first.
    cy.sync(&group).await.unwrap();
    cy.send(&group, "bye").await.unwrap();
    assert_eq!(bob.sync(&group).await.unwrap().status, Status::Left(LeftReason::Left));
    let view = assert_agreement(&[ann, cy], &group).await;
    assert_eq!(view.members.len(), 2);
    assert_eq!(texts(ann, &group), ["bye"]);
    cy.leave(&group).await.unwrap();
    ann.sync(&group).await.unwrap();
    ann.commit(&group, Change::new()).await.unwrap();
    ann.leave(&group).await.unwrap();
    assert_eq!(ann.group(&group).unwrap().status, Status::Closed);
}

#[tokio::test]
async fn a_proposal_to_leave_is_made_again_in_the_next_epoch() {
    let gateway = FakeGateway::default();
    let (clients, group) = group_of(&gateway, &["ann", "bob"]).await;
    let [ann, bob] = &clients[..] else { unreachable!() };
    bob.leave(&group).await.unwrap();
    // Ann has not seen the proposal, so her commit leaves it out.
    ann.update(&group).await.unwrap();
    let view = bob.sync(&group).await.unwrap();
    assert!(view.leaving && view.outbox == 1);
    bob.flush(&group).await.unwrap();
    ann.sync(&group).await.unwrap();
    ann.commit(&group, Change::new()).await.unwrap();
    assert_eq!(bob.sync(&group).await.unwrap().status, Status::Left(LeftReason::Left));
}

#[tokio::test]
async fn a_message_of_a_past_epoch_is_read_and_one_too_old_is_sent_again() {
    let gateway = FakeGateway::default();
    let ann = client(&gateway, "ann");
    let bob = client(&gateway, "bob");
    bob.publish_key_packages().await.unwrap();
    let policy = Policy { past_epochs: 2, ..Policy::default() };
    let group = ann.create_group(NewGroup { policy, ..NewGroup::default() }).await.unwrap();
    ann.invite(&group, &[id("bob")]).await.unwrap();
    bob.join_waiting(QUIET).await.unwrap();
    for _ in 0..2 {
        ann.update(&group).await.unwrap();
    }
    let sent = bob.send(&group, "late").await.unwrap();
    assert_eq!(sent.epoch, 1);
    for _ in 0..3 {
        ann.update(&group).await.unwrap();
    }
    let sent = bob.send(&group, "very late").await.unwrap();
    assert_eq!(sent.epoch, 6);
    assert_eq!(bob.counters().messages_renewed, 1);
    assert_agreement(&[&ann, &bob], &group).await;
    assert_eq!(texts(&ann, &group), ["late", "very late"]);
    assert_eq!(texts(&bob, &group), ["late", "very late"]);
}

#[tokio::test]
async fn a_commit_that_cannot_be_processed_stops_the_client_with_the_reason() {
    let gateway = FakeGateway::default();
    let (clients, group) = group_of(&gateway, &["ann", "bob"]).await;
    let [ann, bob] = &clients[..] else { unreachable!() };
    ann.send(&group, "before").await.unwrap();
    // A commit that no member can process: bytes of an earlier epoch, as a gateway without validation would let them in.
    let old = gateway.log(&group).into_iter().find_map(|entry| match entry.content {
        Content::Commit(commit) => Some(commit),
        _ => None,
    });
    gateway.force(&group, &id("mallory"), Content::Commit(old.unwrap()));
    let view = bob.sync(&group).await.unwrap();
    assert!(matches!(view.status, Status::Stuck { .. }), "{view:?}");
    assert_eq!(texts(bob, &group), ["before"]);
    assert!(matches!(bob.send(&group, "x").await, Err(Error::Stuck { .. })));
}

#[tokio::test]
async fn a_member_that_lost_its_place_rejoins_by_an_external_commit() {
    let gateway = FakeGateway::default();
    let (clients, group) = group_of(&gateway, &["ann", "bob", "cy"]).await;
    let [ann, bob, cy] = &clients[..] else { unreachable!() };
    ann.send(&group, "before").await.unwrap();
    bob.rejoin(&group).await.unwrap();
    cy.sync(&group).await.unwrap();
    cy.send(&group, "after").await.unwrap();
    let view = assert_agreement(&[ann, bob, cy], &group).await;
    assert_eq!(view.members.len(), 3, "the old leaf is replaced");
    assert_eq!(texts(bob, &group), ["before", "after"]);
    bob.send(&group, "back").await.unwrap();
    ann.sync(&group).await.unwrap();
    assert_eq!(texts(ann, &group), ["before", "after", "back"]);
}

#[tokio::test]
async fn members_commit_in_turn_and_whoever_changes_the_members_renews_the_order() {
    let gateway = FakeGateway::default();
    let (clients, group) = group_of(&gateway, &["ann", "bob", "cy"]).await;
    let [ann, bob, cy] = &clients[..] else { unreachable!() };
    let first = gateway.log(&group).iter().filter(|e| matches!(e.content, Content::Commit(_))).count();
    ann.take_turns(&group, Some(Duration::from_secs(60))).await.unwrap();
    // Bob's waits for ann's, and is built once more because ann's came first.
    let (anns, bobs) = tokio::join!(
        async {
            tokio::task::yield_now().await;
            ann.update(&group).await
        },
        bob.update(&group)
    );
    assert!(matches!(anns.unwrap(), Committed::Accepted { attempts: 1, .. }));
    assert!(matches!(bobs.unwrap(), Committed::Accepted { .. }));
    let authors = || {
        let commits = gateway.log(&group).into_iter().filter(|e| matches!(e.content, Content::Commit(_)));
        commits.map(|e| String::from_utf8(e.author.unwrap().as_bytes().to_vec()).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(authors()[first..], ["ann", "bob"]);
    // Bob watched the log while it waited, if it came before ann's: it was not sent again and again.
    assert!(bob.counters().calls_retried <= 1, "{:?}", bob.counters());
    assert_eq!(bob.counters().commits_rebased, 1);

    // It is cy's turn, who is absent: it expires.
    gateway.wait(60_000);
    ann.update(&group).await.unwrap();
    // Bob's turn, but removing cy needs none. The new order begins with ann.
    ann.remove(&group, &[id("cy")]).await.unwrap();
    assert!(matches!(cy.sync(&group).await.unwrap().status, Status::Left(_)));
    ann.update(&group).await.unwrap();
    assert_eq!(authors()[first + 2..], ["ann", "ann", "ann"]);
    let Some(Content::PolicyChange { turns: Some(turns), .. }) = gateway
        .log(&group)
        .into_iter()
        .map(|entry| entry.content)
        .rfind(|content| matches!(content, Content::PolicyChange { .. }))
    else {
        panic!("the order was not renewed")
    };
    assert_eq!(turns.order, [id("ann"), id("bob")]);
    ann.take_turns(&group, None).await.unwrap();
    ann.update(&group).await.unwrap();
    ann.update(&group).await.unwrap();
    assert_agreement(&[ann, bob], &group).await;
}

#[tokio::test]
async fn closing_ends_a_group_for_everybody() {
    let gateway = FakeGateway::default();
    let (clients, group) = group_of(&gateway, &["ann", "bob"]).await;
    let [ann, bob] = &clients[..] else { unreachable!() };
    ann.set_policy(&group, Policy { past_epochs: 9, ..Policy::default() }).await.unwrap();
    assert_eq!(bob.sync(&group).await.unwrap().policy.past_epochs, 9);
    bob.close_group(&group).await.unwrap();
    assert_eq!(ann.sync(&group).await.unwrap().status, Status::Closed);
    assert!(matches!(ann.send(&group, "x").await, Err(Error::NotMember(_))));
    ann.forget_group(&group).unwrap();
    assert!(matches!(ann.group(&group), Err(Error::UnknownGroup)));
}

#[tokio::test]
async fn a_welcome_that_comes_twice_is_taken_in_once_and_the_last_resort_is_renewed() {
    let gateway = FakeGateway::default();
    let (ann, bob) = (client(&gateway, "ann"), client(&gateway, "bob"));
    bob.renew_last_resort().await.unwrap();
    let group = ann.create_group(NewGroup::default()).await.unwrap();
    ann.invite(&group, &[id("bob")]).await.unwrap();
    let welcome = gateway.waiting(&id("bob")).remove(0);
    assert_eq!(bob.join_waiting(QUIET).await.unwrap(), std::slice::from_ref(&group));
    let second = ann.create_group(NewGroup::default()).await.unwrap();
    ann.invite(&second, &[id("bob")]).await.unwrap();
    let other = gateway.waiting(&id("bob")).remove(0);
    assert_ne!(welcome.key_package_refs, other.key_package_refs, "another KeyPackage than the first time");
    assert_eq!(bob.join_waiting(QUIET).await.unwrap(), [second]);

    // The acknowledgement of the first was lost, and bob was removed meanwhile.
    ann.remove(&group, &[id("bob")]).await.unwrap();
    bob.sync(&group).await.unwrap();
    gateway.deliver_again(&id("bob"), welcome);
    assert_eq!(bob.join_waiting(QUIET).await.unwrap(), []);
    assert!(matches!(bob.group(&group).unwrap().status, Status::Left(_)));
}

#[tokio::test]
async fn an_invitation_of_somebody_without_key_packages_is_refused_with_the_reason() {
    let gateway = FakeGateway::default();
    let (clients, group) = group_of(&gateway, &["ann", "bob"]).await;
    match clients[0].invite(&group, &[id("nobody")]).await {
        Err(Error::Call(error)) => assert_eq!(error.reason, Some(Reason::KeyPackagesExhausted)),
        other => panic!("{other:?}"),
    }
    assert!(matches!(clients[0].remove(&group, &[id("ann")]).await, Err(Error::CannotRemoveSelf)));
    assert_eq!(clients[0].remove(&group, &[id("nobody")]).await.unwrap(), Committed::NothingToDo);
}
