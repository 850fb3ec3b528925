//! Following the log and the branches, whatever becomes of them.

use std::sync::{Arc, atomic::Ordering::SeqCst};

use mls_client::{Committed, EventKind, Status};

use crate::{
    story::{Member, is_provisional, story},
    support::{QUIET, id, texts},
};

#[tokio::test]
async fn without_a_split_a_group_behaves_like_any() {
    let story = story(&["ann", "bob", "cy"]).await;
    let ([ann, bob, cy], group) = (&story.members[..], &story.group) else { unreachable!() };
    ann.send(group, "hello").await.unwrap();
    bob.sync(group).await.unwrap();
    bob.send(group, "hi").await.unwrap();
    // Nobody has heard of the other's commit.
    ann.update(group).await.unwrap();
    let again = bob.update(group).await.unwrap();
    assert!(matches!(again, Committed::Accepted { attempts: 2, .. }), "{again:?}");
    cy.sync(group).await.unwrap();
    cy.remove(group, &[id("bob")]).await.unwrap();
    cy.send(group, "just us").await.unwrap();
    assert!(matches!(bob.sync(group).await.unwrap().status, Status::Left(_)));
    cy.invite(group, &[id("bob")]).await.unwrap();
    bob.join_waiting(QUIET).await.unwrap();
    ann.sync(group).await.unwrap();
    assert!(ann.group(group).unwrap().retained_states > 1, "kept until the log says `Stable`");
    story.heal().await;
    story.check();
    assert_eq!(texts(ann, group), ["hello", "hi", "just us"]);
    assert_eq!(texts(bob, group), ["hello", "hi"]);
}

#[tokio::test]
async fn a_member_that_lost_its_place_rejoins_by_an_external_commit() {
    let story = story(&["ann", "bob", "cy"]).await;
    let ([ann, bob, _], group) = (&story.members[..], &story.group) else { unreachable!() };
    ann.send(group, "before").await.unwrap();
    bob.sync(group).await.unwrap();
    bob.rejoin(group).await.unwrap();
    bob.send(group, "back").await.unwrap();
    story.heal().await;
    story.check();
    assert_eq!(texts(ann, group), ["before", "back"]);
}

#[tokio::test]
async fn a_branch_that_has_no_rival_becomes_canonical_whole() {
    let story = story(&["ann", "bob", "cy"]).await;
    let ([ann, bob, cy], group) = (&story.members[..], &story.group) else { unreachable!() };
    story.net.split(&[0, 1, 2], None);
    let mut events = cy.events();
    assert!(is_provisional(&cy.update(group).await.unwrap()));
    cy.send(group, "anybody there?").await.unwrap();
    assert!(is_provisional(&cy.update(group).await.unwrap()));
    let view = cy.sync(group).await.unwrap();
    assert!(view.provisional && view.retained_states > 1);
    let advanced = std::iter::from_fn(|| events.try_recv().ok());
    assert_eq!(advanced.filter(|e| matches!(e.kind, EventKind::BranchAdvanced { .. })).count(), 2);
    story.heal().await;
    story.check();
    for member in [ann, bob, cy] {
        assert_eq!(texts(member, group), ["anybody there?"]);
    }
    assert_eq!(story.net.marks(group).0, 0, "nothing lost");
}

#[tokio::test]
async fn a_branch_that_loses_is_read_by_all_and_left_by_those_on_it() {
    let story = story(&["ann", "bob", "cy", "dan"]).await;
    let ([ann, bob, cy, dan], group) = (&story.members[..], &story.group) else { unreachable!() };
    ann.send(group, "together").await.unwrap();
    for member in &story.members {
        member.sync(group).await.unwrap();
    }
    story.net.split(&[0, 0, 1], Some(0));
    ann.update(group).await.unwrap();
    ann.send(group, "with a quorum").await.unwrap();
    assert!(is_provisional(&cy.update(group).await.unwrap()));
    dan.sync(group).await.unwrap();
    dan.send(group, "without one").await.unwrap();
    cy.sync(group).await.unwrap();
    assert_eq!(texts(cy, group), ["together", "without one"]);
    let mut events = dan.events();
    story.heal().await;
    story.check();
    let kinds: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).map(|event| event.kind).collect();
    assert!(kinds.iter().any(|kind| matches!(kind, EventKind::PutAside { entries: 2, late: false, .. })));
    assert!(kinds.iter().any(|kind| matches!(kind, EventKind::WentBack { to: Some(_), .. })));
    assert!(kinds.iter().any(|kind| matches!(kind, EventKind::StatesDeleted { .. })));
    for member in [ann, bob] {
        assert_eq!(texts(member, group), ["together", "with a quorum", "without one"]);
    }
}

#[tokio::test]
async fn whoever_was_away_through_it_all_learns_the_same() {
    let story = story(&["ann", "bob", "cy", "eve"]).await;
    let ([ann, bob, cy, eve], group) = (&story.members[..], &story.group) else { unreachable!() };
    story.net.split(&[0, 0, 1], Some(0));
    ann.update(group).await.unwrap();
    ann.send(group, "one").await.unwrap();
    cy.update(group).await.unwrap();
    cy.send(group, "two").await.unwrap();
    story.net.heal();
    for member in [ann, bob, cy] {
        member.sync(group).await.unwrap();
        member.resume(group).await.unwrap();
    }
    story.net.split(&[0, 1, 2], None);
    bob.sync(group).await.unwrap();
    bob.update(group).await.unwrap();
    bob.send(group, "three").await.unwrap();
    story.net.heal();
    // Eve has not even heard of the first split.
    eve.sync(group).await.unwrap();
    assert_eq!(texts(eve, group).len(), 3, "{:?}", texts(eve, group));
    story.heal().await;
    story.check();
}

#[tokio::test]
async fn a_commit_of_unknown_outcome_is_kept_whatever_a_branch_says_and_then_adopted() {
    let story = story(&["ann", "bob"]).await;
    let ([ann, bob], group) = (&story.members[..], &story.group) else { unreachable!() };
    // The quorum has it, the answer is lost, and so is the quorum.
    story.net.deafen(true);
    ann.transport.lose_answers.store(1, SeqCst);
    assert!(ann.update(group).await.unwrap_err().is_temporary());
    story.net.split(&[0, 0, 1], None);
    bob.sync(group).await.unwrap();
    assert!(is_provisional(&bob.update(group).await.unwrap()));
    bob.send(group, "on the branch").await.unwrap();
    ann.resume(group).await.unwrap();
    assert_eq!(texts(ann, group), ["on the branch"]);
    assert!(ann.group(group).unwrap().provisional, "ann goes on where the branch is");
    story.net.deafen(false);
    story.heal().await;
    story.check();
    let (sides, ..) = story.net.marks(group);
    assert!(sides > 0, "the log has decided for ann's first commit, and the branch has lost");
    assert_eq!(texts(ann, group), ["on the branch"]);
}

#[tokio::test]
async fn a_branch_survives_its_gateway_because_members_bring_it_elsewhere() {
    let story = story(&["ann", "bob", "cy", "dan"]).await;
    let ([ann, bob, cy, dan], group) = (&story.members[..], &story.group) else { unreachable!() };
    story.net.split(&[0, 1, 2], None);
    cy.update(group).await.unwrap();
    cy.send(group, "hold on to this").await.unwrap();
    dan.sync(group).await.unwrap();
    dan.update(group).await.unwrap();
    story.net.lose(2);
    // Cy is away for good; dan has what cy did.
    dan.move_to(1);
    dan.sync(group).await.unwrap();
    story.net.evict_lost();
    cy.move_to(0);
    story.net.heal();
    dan.sync(group).await.unwrap();
    story.heal().await;
    story.check();
    for member in [ann, bob, cy, dan] {
        assert_eq!(texts(member, group), ["hold on to this"]);
    }
}

#[tokio::test]
async fn two_branches_without_a_quorum_anywhere_end_in_one() {
    let story = story(&["ann", "bob", "cy", "dan"]).await;
    let ([ann, bob, cy, dan], group) = (&story.members[..], &story.group) else { unreachable!() };
    story.net.split(&[0, 1, 2], None);
    for (member, said) in [(ann, "a"), (bob, "b"), (cy, "c")] {
        member.update(group).await.unwrap();
        member.send(group, said).await.unwrap();
    }
    // The two smaller parts meet, and still have no quorum.
    story.net.split(&[0, 1, 1], None);
    story.net.pass(4);
    dan.sync(group).await.unwrap();
    assert_eq!(texts(dan, group).len(), 2, "dan reads both branches");
    dan.update(group).await.unwrap();
    dan.send(group, "d").await.unwrap();
    story.heal().await;
    story.check();
    for member in [ann, bob, cy, dan] {
        let mut all = texts(member, group);
        all.sort();
        assert_eq!(all, ["a", "b", "c", "d"]);
    }
}

#[tokio::test]
async fn a_crash_anywhere_while_branches_are_brought_together_changes_nothing() {
    for crash_in in 0..8 {
        let mut story = story(&["ann", "bob", "cy"]).await;
        let group = story.group.clone();
        story.net.split(&[0, 0, 1], Some(0));
        story.members[0].update(&group).await.unwrap();
        story.members[2].update(&group).await.unwrap();
        story.members[2].send(&group, "said before the crash").await.unwrap();
        story.net.heal();
        let cy = story.members.pop().unwrap();
        cy.transport.crash_in.store(crash_in, SeqCst);
        let crashed = Arc::clone(&cy.transport.crashed);
        tokio::select! {
            biased;
            outcome = async {
                cy.sync(&group).await?;
                cy.resume(&group).await
            } => outcome.unwrap(),
            () = crashed.notified() => {}
        }
        drop(cy);
        story.members.push(Member::open(&story.net, story.folder.path(), "cy", 2));
        story.heal().await;
        story.check();
        assert_eq!(texts(&story.members[0], &group), ["said before the crash"]);
    }
}
