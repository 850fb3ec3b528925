//! After a branch has lost: removals first, then what was done there, once more.

use std::time::Duration;

use mls_client::{Error, Options, Status};

use crate::{
    story::{Member, is_provisional, story, story_with},
    support::{QUIET, id, impatient, texts},
};

#[tokio::test]
async fn a_removal_on_a_branch_that_loses_is_made_again_before_anything_else() {
    let story = story(&["ann", "bob", "cy", "mallory"]).await;
    let ([ann, bob, cy, mallory], group) = (&story.members[..], &story.group) else { unreachable!() };
    mallory.move_to(0);
    story.net.split(&[0, 0, 1], Some(0));
    assert!(is_provisional(&cy.remove(group, &[id("mallory")]).await.unwrap()));
    // Mallory provokes a commit on the other side.
    mallory.update(group).await.unwrap();
    story.net.heal();
    // Whatever bob wants, the removal comes first.
    bob.sync(group).await.unwrap();
    assert!(bob.group(group).unwrap().repairing);
    bob.send(group, "without mallory").await.unwrap();
    assert!(!bob.group(group).unwrap().members.contains(&b"mallory".to_vec()));
    story.heal().await;
    story.check();
    assert!(matches!(mallory.group(group).unwrap().status, Status::Left(_)));
    assert!(texts(mallory, group).is_empty());
    assert_eq!(texts(ann, group), ["without mallory"]);
}

#[tokio::test]
async fn with_private_handshakes_whoever_removed_somebody_does_it_again() {
    let options = Options { patience: Duration::ZERO, private_handshakes: true, ..impatient() };
    let story = story_with(&["ann", "bob", "cy"], &options).await;
    let ([ann, bob, cy], group) = (&story.members[..], &story.group) else { unreachable!() };
    story.net.split(&[0, 0, 1], Some(0));
    assert!(is_provisional(&cy.remove(group, &[id("bob")]).await.unwrap()));
    ann.update(group).await.unwrap();
    story.heal().await;
    assert!(matches!(bob.group(group).unwrap().status, Status::Left(_)));
    let (a, c) = (ann.group(group).unwrap(), cy.group(group).unwrap());
    assert_eq!((a.epoch_authenticator, a.members), (c.epoch_authenticator, c.members));
}

#[tokio::test]
async fn a_gateway_cannot_have_somebody_removed_whom_no_branch_removed() {
    let story = story(&["ann", "bob", "cy"]).await;
    let ([ann, bob, cy], group) = (&story.members[..], &story.group) else { unreachable!() };
    story.net.split(&[0, 0, 1], Some(0));
    cy.update(group).await.unwrap();
    ann.update(group).await.unwrap();
    story.net.claim_owed(&id("bob"));
    story.net.heal();
    ann.sync(group).await.unwrap();
    ann.resume(group).await.unwrap();
    assert!(ann.group(group).unwrap().members.contains(&b"bob".to_vec()));
    story.heal().await;
    story.check();
    assert_eq!(bob.group(group).unwrap().members.len(), 3);
}

#[tokio::test]
async fn whoever_added_somebody_on_a_branch_that_lost_adds_it_again() {
    let story = story(&["ann", "bob", "cy"]).await;
    let ([ann, _, cy], group) = (&story.members[..], &story.group) else { unreachable!() };
    let zoe = Member::open(&story.net, story.folder.path(), "zoe", 2);
    zoe.publish_key_packages().await.unwrap();
    story.net.welcome_on_branches();
    story.net.split(&[0, 0, 1], Some(0));
    cy.invite(group, &[id("zoe")]).await.unwrap();
    zoe.join_waiting(QUIET).await.unwrap();
    cy.send(group, "welcome, zoe").await.unwrap();
    zoe.sync(group).await.unwrap();
    assert_eq!(texts(&zoe, group), ["welcome, zoe"]);
    ann.update(group).await.unwrap();
    story.net.heal();
    assert_eq!(zoe.sync(group).await.unwrap().status, Status::Waiting);
    assert!(matches!(zoe.send(group, "x").await, Err(Error::NotMember(_))));
    let mut story = story;
    story.members.push(zoe);
    story.heal().await;
    story.check();
    assert_eq!(story.members[3].group(&story.group).unwrap().members.len(), 4);
}

#[tokio::test]
async fn what_a_removed_member_added_is_not_added_again() {
    let story = story(&["ann", "bob", "mallory"]).await;
    let ([ann, _, mallory], group) = (&story.members[..], &story.group) else { unreachable!() };
    let zoe = Member::open(&story.net, story.folder.path(), "zoe", 2);
    zoe.publish_key_packages().await.unwrap();
    story.net.split(&[0, 0, 1], Some(0));
    mallory.invite(group, &[id("zoe")]).await.unwrap();
    ann.remove(group, &[id("mallory")]).await.unwrap();
    let mut story = story;
    story.members.push(zoe);
    story.heal().await;
    story.check();
    assert_eq!(story.net.check(&story.group), [b"ann".to_vec(), b"bob".to_vec()]);
}

#[tokio::test]
async fn a_message_that_comes_too_late_is_sent_again_by_its_author() {
    let story = story(&["ann", "bob", "cy"]).await;
    let ([ann, bob, cy], group) = (&story.members[..], &story.group) else { unreachable!() };
    story.net.split(&[0, 0, 1], Some(0));
    cy.send(group, "better late").await.unwrap();
    // Its gateway does not come back, and is not waited for: the others delete what the message could be read with.
    story.net.lose(2);
    story.net.evict_lost();
    for member in [ann, bob] {
        member.sync(group).await.unwrap();
        member.update(group).await.unwrap();
        story.net.pass(8);
    }
    for member in [ann, bob] {
        member.sync(group).await.unwrap();
    }
    let (_, late, stable) = story.net.marks(group);
    assert!(late == 0 && stable > 0, "{late} {stable}");
    cy.move_to(0);
    story.heal().await;
    story.check();
    assert!(story.net.marks(group).1 > 0, "what cy brought is late, and in the log");
    for member in [ann, bob] {
        assert_eq!(texts(member, group), ["better late"]);
    }
}
