//! DeMLS groups through forks, each rule of a client as a story: real MLS, the shipping fork rules, a network that is cut by hand.

#![allow(clippy::unwrap_used)] // A panic is the report.

mod support;

use std::{fs, path::Path, sync::Arc, sync::atomic::Ordering::SeqCst, time::Duration};

use mls_client::{
    Client, Committed, DEFAULT_CIPHERSUITE, Error, EventKind, GroupId, GroupKind, Identity, NewGroup,
    Options, Place, Randomness, Status, Store,
};
use support::{
    QUIET, id, impatient,
    net::{Net, NetTransport},
    texts,
};

/// A member and its way to a gateway.
struct Member {
    client: Client,
    transport: Arc<NetTransport>,
}

impl std::ops::Deref for Member {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Member {
    fn open(net: &Net, folder: &Path, name: &str, site: usize) -> Member {
        Member::with(net, folder, name, site, Options { patience: Duration::ZERO, ..impatient() })
    }

    fn with(net: &Net, folder: &Path, name: &str, site: usize, options: Options) -> Member {
        let mut store = Store::open(&folder.join(name)).unwrap();
        if Identity::load(&store).unwrap().is_none() {
            Identity::create(&mut store, id(name), DEFAULT_CIPHERSUITE).unwrap();
        }
        let transport = Arc::new(NetTransport::new(net, site, id(name)));
        let client = Client::new(store, transport.clone(), options, net.rng.fork()).unwrap();
        Member { client, transport }
    }

    fn move_to(&self, site: usize) {
        self.transport.site.store(site, SeqCst);
    }
}

struct Story {
    net: Net,
    folder: tempfile::TempDir,
    group: GroupId,
    members: Vec<Member>,
}

/// A group whose members are each at a site of their own, or share the last one.
async fn story(names: &[&str]) -> Story {
    story_with(names, &Options { patience: Duration::ZERO, ..impatient() }).await
}

async fn story_with(names: &[&str], options: &Options) -> Story {
    let (net, folder) = (Net::new(3, Randomness::from_seed(11)), tempfile::tempdir().unwrap());
    let members: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(site, name)| Member::with(&net, folder.path(), name, site.min(2), options.clone()))
        .collect();
    for member in &members {
        member.publish_key_packages().await.unwrap();
    }
    let new = NewGroup { kind: GroupKind::Demls, ..NewGroup::default() };
    let group = members[0].create_group(new).await.unwrap();
    let others: Vec<_> = names[1..].iter().map(|name| id(name)).collect();
    members[0].invite(&group, &others).await.unwrap();
    for member in &members[1..] {
        assert_eq!(member.join_waiting(QUIET).await.unwrap(), std::slice::from_ref(&group));
    }
    net.pass(8);
    Story { net, folder, group, members }
}

impl Story {
    /// The network heals, and everybody does what he owes, until all is quiet.
    async fn heal(&self) {
        for _ in 0..6 {
            self.net.heal();
            for member in &self.members {
                for outcome in [
                    member.sync(&self.group).await.map(drop),
                    member.join_waiting(QUIET).await.map(drop),
                    member.resume(&self.group).await,
                    member.flush(&self.group).await,
                ] {
                    assert!(
                        matches!(
                            outcome,
                            Ok(())
                                | Err(Error::Call(_)
                                    | Error::NotMember(_)
                                    | Error::RemovalsFirst
                                    | Error::UnknownGroup)
                        ),
                        "{outcome:?}"
                    );
                }
            }
        }
    }

    /// All members are in one state, keep nothing else, and have read everything they were entitled to exactly once.
    fn check(&self) {
        let members = self.net.check(&self.group);
        let active: Vec<_> = self
            .members
            .iter()
            .filter(|m| m.group(&self.group).is_ok_and(|view| view.status == Status::Active))
            .collect();
        let mut names: Vec<_> = active.iter().map(|member| member.id().as_bytes().to_vec()).collect();
        names.sort();
        assert_eq!(members, names);
        let first = active[0].group(&self.group).unwrap();
        for member in &active {
            let view = member.group(&self.group).unwrap();
            assert_eq!(view.epoch_authenticator, first.epoch_authenticator, "{:?}", member.id());
            assert_eq!((view.epoch, view.state_id), (first.epoch, first.state_id));
            assert!(!view.provisional && !view.commit_pending && !view.repairing, "{view:?}");
            assert_eq!(view.retained_states, 1, "{:?} keeps more than it needs", member.id());
            let messages = member.messages(&self.group, 0, usize::MAX).unwrap();
            for accepted in self.net.accepted_messages(&self.group) {
                if !accepted.entitled.contains(&member.id().as_bytes().to_vec()) {
                    continue;
                }
                let expected = match accepted.side {
                    true => Place::Side { entry: accepted.id, seq: accepted.seq },
                    false => Place::Canonical { seq: accepted.seq },
                };
                let read = messages.iter().filter(|message| message.place == expected).count();
                assert_eq!(read, 1, "{:?} has read {accepted:?} so many times", member.id());
            }
        }
    }
}

fn is_provisional(committed: &Committed) -> bool {
    matches!(committed, Committed::Provisional { .. })
}

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_clients_go_through_a_split_and_heal_by_themselves() {
    let pauses = (Duration::from_millis(1), Duration::from_millis(20));
    let options = Options { first_pause: pauses.0, longest_pause: pauses.1, ..Options::default() };
    let story = story_with(&["ann", "bob", "cy", "dan"], &options).await;
    let ([ann, bob, cy, dan], group) = (&story.members[..], &story.group) else { unreachable!() };
    let running: Vec<_> = story.members.iter().map(|member| member.client.start()).collect();
    story.net.split(&[0, 0, 1], Some(0));
    bob.update(group).await.unwrap();
    bob.send(group, "with a quorum").await.unwrap();
    cy.remove(group, &[id("ann")]).await.unwrap();
    cy.send(group, "without one").await.unwrap();
    until("dan reads the branch", || texts(dan, group).len() == 1).await;
    story.net.heal();
    let net = story.net.clone();
    let clock = tokio::spawn(async move {
        loop {
            net.pass(1);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    until("ann is gone, and the others are in one settled state", || {
        let views: Vec<_> = [bob, cy, dan].iter().map(|member| member.group(group).unwrap()).collect();
        let agree = views.iter().all(|view| view.epoch_authenticator == views[0].epoch_authenticator);
        let quiet = views.iter().all(|v| !v.provisional && !v.repairing && v.retained_states == 1);
        matches!(ann.group(group).unwrap().status, Status::Left(_)) && agree && quiet
    })
    .await;
    for member in [bob, cy, dan] {
        until("all is read", || texts(member, group).len() == 2).await;
    }
    clock.abort();
    for running in running {
        running.stop().await;
    }
}

/// Far beyond what a busy machine needs; a test that waits this long has failed.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(120), wait).await.is_ok(), "never happened: {what}");
}

/// What a client's file holds of its groups' states: bodies of records, keys (with their PPRF) first.
fn pieces(folder: &Path, name: &str) -> [Vec<Vec<u8>>; 2] {
    let copy = folder.join("copy");
    fs::copy(folder.join(name), &copy).unwrap();
    let db = rusqlite::Connection::open(&copy).unwrap();
    [2, 3].map(|kind| {
        let mut query = db.prepare("SELECT body FROM demls_records WHERE kind = ?1").unwrap();
        query.query_map([kind], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    })
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn what_is_deleted_at_stable_is_really_gone_from_the_file() {
    let story = story(&["ann", "bob", "cy"]).await;
    let ([ann, bob, cy], group) = (&story.members[..], &story.group) else { unreachable!() };
    story.net.split(&[0, 0, 1], Some(0));
    ann.update(group).await.unwrap();
    bob.sync(group).await.unwrap();
    cy.update(group).await.unwrap();
    // A pending commit whose outcome stays unknown is a state, too.
    cy.transport.lose_answers.store(1, SeqCst);
    cy.update(group).await.unwrap_err();
    assert!(cy.group(group).unwrap().retained_states >= 3);
    let [keys, chunks] = pieces(story.folder.path(), "cy");
    let file = |name| fs::read(story.folder.path().join(name)).unwrap();
    assert!(keys.iter().all(|keys| contains(&file("cy"), &keys[..64])));
    story.heal().await;
    story.check();
    let [_, kept] = pieces(story.folder.path(), "cy");
    let file = file("cy");
    // No epoch name, handle, init secret or punctured path of any of those states.
    assert!(keys.iter().flat_map(|keys| keys.chunks_exact(32).skip(1)).all(|part| !contains(&file, part)));
    // Nor anything of them that the state which is kept does not have in common.
    let gone: Vec<_> = chunks.iter().filter(|chunk| !kept.iter().any(|kept| contains(kept, chunk))).collect();
    assert!(gone.len() > 5);
    assert!(gone.iter().all(|chunk| !contains(&file, chunk)), "a deleted piece is in the file");
}
