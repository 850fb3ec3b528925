//! The traps of putting the DeMLS key schedule under an unmodified OpenMLS, one test each.
#![allow(clippy::unwrap_used)] // A panic is the report.

mod demls_common;

use std::collections::HashSet;

use demls_common::{recorder::Recorder, *};
use mls_client::demls::{DemlsError, DmlsGroup, DmlsMessage, Processed};
use openmls::prelude::*;
use openmls_rust_crypto::OpenMlsRustCrypto;

fn decode(message: &[u8]) -> DmlsMessage {
    DmlsMessage::decode(message).unwrap()
}

fn pair(policy: WireFormatPolicy) -> (Client, Client, DmlsGroup, DmlsGroup) {
    let (alice, bob) = (Client::new("alice"), Client::new("bob"));
    let mut groups = group_of(policy, &[&alice, &bob]);
    let (b, a) = (groups.pop().unwrap(), groups.pop().unwrap());
    (alice, bob, a, b)
}

fn punctures(group: &mut DmlsGroup) -> usize {
    group.state().unwrap().keys().unwrap().pprf().punctures()
}

#[test]
fn a_commit_punctures_when_it_is_merged_and_not_when_it_is_staged() {
    for policy in POLICIES {
        let (alice, bob, mut a, mut b) = pair(policy);
        let own = alice.commit(&mut a, &[]);
        let Processed::Commit(staged) = b.process(&bob.crypto, decode(&own.message)).unwrap() else {
            panic!("expected a commit")
        };
        assert_eq!(punctures(&mut reopened(b.state().unwrap())), 0);
        // Looking at the state undid the staging; the staged commit is merged all the same.
        let merged = b.merge(&bob.crypto, staged).unwrap();
        assert_eq!(merged.parent.keys().unwrap().pprf().punctures(), 1);
        assert!(agree(&[&merged.next, &alice.settle(a, own).next]));
    }
}

#[test]
fn a_crash_between_staging_and_merging_burns_nothing() {
    for policy in POLICIES {
        let (alice, bob, mut a, mut b) = pair(policy);
        let stored = b.state().unwrap().clone();
        let own = alice.commit(&mut a, &[]);
        drop(b.process(&bob.crypto, decode(&own.message)).unwrap());
        // Whatever is stored after a staging without a merge, the commit can still be processed: before, now and in between.
        let now = b.state().unwrap().clone();
        let next = bob.follow(b, &own.message).next;
        assert!(agree(&[&next, &bob.follow(reopened(&stored), &own.message).next]));
        assert!(agree(&[&next, &bob.follow(reopened(&now), &own.message).next]));
        assert!(agree(&[&next, &alice.settle(a, own).next]));
    }
}

/// Flips a bit of the confirmation tag of a public commit and mends its membership tag, as an insider can.
fn with_bad_confirmation_tag(group: &DmlsGroup, backend: &Recorder, message: &[u8]) -> Vec<u8> {
    let epoch = group.epoch().unwrap().as_slice();
    // ... confirmation_tag<V> membership_tag<V> | dmls_epoch<V>, all of 32 bytes.
    let mut forged = message.to_vec();
    let end_of_mls = message.len() - 1 - epoch.len();
    let (confirmation, membership) = (end_of_mls - 33 - 32, end_of_mls - 32);
    let hmacs = backend.hmacs.lock().unwrap();
    let (key, authenticated) = hmacs
        .iter()
        .find(|(_, content)| content.ends_with(&message[confirmation..confirmation + 32]))
        .expect("the membership tag was computed over the confirmation tag");
    forged[confirmation] ^= 1;
    let mut authenticated = authenticated.clone();
    let tag = authenticated.len() - 32;
    authenticated[tag] ^= 1;
    let mended = backend.inner.hmac(HashType::Sha2_256, key, &authenticated).unwrap();
    forged[membership..membership + 32].copy_from_slice(mended.as_slice());
    forged
}

#[test]
fn a_bad_confirmation_tag_burns_nothing() {
    let (alice, bob, mut a, mut b) = pair(PURE_PLAINTEXT_WIRE_FORMAT_POLICY);
    let insider = Recorder::default();
    let own = a.commit(&insider, &alice.signer, |builder| builder).unwrap();
    let forged = with_bad_confirmation_tag(&a, &insider, &own.message);
    // The forged commit has the same content, and so the same PPRF input, as the valid one.
    let error = b.process(&bob.crypto, decode(&forged)).err().unwrap();
    let DemlsError::Mls { source, .. } = &error else { panic!("{error}") };
    assert!(source.to_string().to_lowercase().contains("confirmation tag"), "{source}");
    assert_eq!(punctures(&mut b), 0);
    let next = bob.follow(b, &own.message).next;
    assert!(agree(&[&next, &alice.settle(a, own).next]));
}

#[test]
fn exporter_labels_of_the_key_schedule_are_the_applications_own() {
    let (alice, bob, mut a, b) = pair(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY);
    let plain = OpenMlsRustCrypto::default();
    let mut secrets = HashSet::new();
    for label in ["init", "external", "epoch", "path", "joiner", "parent_init", "conf"] {
        let secret = a.export_secret(&alice.crypto, label, b"context", 32).unwrap();
        assert_eq!(secret, b.export_secret(&bob.crypto, label, b"context", 32).unwrap());
        assert_eq!(secret, a.mls().export_secret(plain.crypto(), label, b"context", 32).unwrap());
        assert!(secrets.insert(secret), "each label has its own secret");
    }
    let own = alice.commit(&mut a, &[]);
    let next = bob.follow(b, &own.message).next;
    assert!(agree(&[&next, &alice.settle(a, own).next]));
}

#[test]
fn external_joiners_get_in_and_commit() {
    for policy in [PURE_PLAINTEXT_WIRE_FORMAT_POLICY, MIXED_CIPHERTEXT_WIRE_FORMAT_POLICY] {
        let (alice, bob, mut a, b) = pair(policy);
        let carol = Client::new("carol");
        let join = external_join(&alice, &mut a, &carol, policy);
        let a = alice.follow(a, &join.message);
        // An external commit brings its own init secret: there is nothing to puncture.
        assert_eq!(a.parent.keys().unwrap().pprf().punctures(), 0);
        let (mut c, a) = (join.next, a.next);
        let b = bob.follow(b, &join.message).next;
        assert!(agree(&[&a, &b, &c]));

        let own = carol.commit(&mut c, &[]);
        let merged = alice.follow(a, &own.message);
        assert_eq!(merged.parent.keys().unwrap().pprf().punctures(), 1);
        let b = bob.follow(b, &own.message).next;
        assert!(agree(&[&merged.next, &b, &carol.settle(c, own).next]));
    }
}

fn external_join(
    member: &Client,
    group: &mut DmlsGroup,
    joiner: &Client,
    policy: WireFormatPolicy,
) -> mls_client::demls::ExternalJoin {
    let info = group.group_info(&member.crypto, &member.signer, true).unwrap();
    let info = received_group_info(&info);
    DmlsGroup::join_external(
        &joiner.crypto,
        &joiner.signer,
        &joiner.join_config(policy),
        info,
        None,
        group.epoch().unwrap(),
        joiner.credential.clone(),
        LeafNodeParameters::default(),
    )
    .unwrap()
}

#[test]
fn the_group_info_of_a_commit_admits_external_joiners_to_the_new_state() {
    let policy = PURE_PLAINTEXT_WIRE_FORMAT_POLICY;
    let (alice, bob, mut a, b) = pair(policy);
    let carol = Client::new("carol");
    let own = alice.commit(&mut a, &[]);
    let info = received_group_info(&own.group_info.clone().unwrap().into());
    let b = bob.follow(b, &own.message).next;
    let join = DmlsGroup::join_external(
        &carol.crypto,
        &carol.signer,
        &carol.join_config(policy),
        info,
        None,
        own.next.epoch().unwrap(),
        carol.credential.clone(),
        LeafNodeParameters::default(),
    )
    .unwrap();
    let a = alice.settle(a, own).next;
    let (a, b) = (alice.follow(a, &join.message).next, bob.follow(b, &join.message).next);
    assert!(agree(&[&a, &b, &join.next]));
}

#[test]
fn nobody_joins_externally_at_a_state_that_is_only_retained() {
    let policy = PURE_PLAINTEXT_WIRE_FORMAT_POLICY;
    let (alice, bob, mut a, b) = pair(policy);
    let carol = Client::new("carol");
    let late = external_join(&alice, &mut a, &carol, policy);
    let own = alice.commit(&mut a, &[]);
    let mut retained = reopened(&bob.follow(b, &own.message).parent);
    assert!(!retained.state().unwrap().keys().unwrap().accepts_external_commits());
    let error = retained.process(&bob.crypto, decode(&late.message)).err().unwrap();
    assert!(matches!(error, DemlsError::NoExternalCommits), "{error}");
    let error = retained.group_info(&bob.crypto, &bob.signer, true).err().unwrap();
    assert!(matches!(error, DemlsError::NoExternalCommits), "{error}");
}

#[test]
fn members_who_join_by_welcome_start_with_the_same_keys_and_commit() {
    for policy in POLICIES {
        let (alice, bob, a, mut b) = pair(policy);
        let own = bob.commit(&mut b, &[]);
        let next = alice.follow(a, &own.message).next;
        assert!(agree(&[&next, &bob.settle(b, own).next]));
    }
}

#[test]
fn an_own_commit_is_kept_as_pending_and_cannot_be_processed() {
    for policy in POLICIES {
        let (alice, bob, mut a, b) = pair(policy);
        let mut own = alice.commit(&mut a, &[]);
        assert!(own.next.state().unwrap().keys().unwrap().is_pending());
        assert!(a.mls().pending_commit().is_none(), "secrets of the next epoch have no business in this one");
        assert_eq!(punctures(&mut a), 0);
        let error = a.process(&alice.crypto, decode(&own.message)).err().unwrap();
        assert!(matches!(error, DemlsError::OwnMessage), "{error}");

        let b = bob.follow(b, &own.message).next;
        let merged = alice.settle(a, own);
        let mut next = merged.next;
        assert_eq!(merged.parent.keys().unwrap().pprf().punctures(), 1);
        assert!(!next.state().unwrap().keys().unwrap().is_pending());
        assert!(agree(&[&next, &b]));
        // It cannot be settled twice.
        let mut parent = merged.parent;
        let error = parent.settle(&alice.crypto, next.state_mut().unwrap()).unwrap_err();
        assert!(matches!(error, DemlsError::NotPending), "{error}");
    }
}

#[test]
fn several_own_commits_are_pending_at_once_and_any_may_win() {
    for policy in POLICIES {
        let (alice, bob, mut a, b) = pair(policy);
        let b = b.into_state().unwrap();
        let first = alice.commit(&mut a, &[]);
        let second = alice.commit(&mut a, &[]);
        let state = a.state().unwrap().clone();
        for own in [first, second] {
            let on_it = bob.follow(reopened(&b), &own.message).next;
            assert!(agree(&[&on_it, &alice.settle(reopened(&state), own).next]));
        }
    }
}

#[test]
fn a_member_without_the_decorator_fails_closed() {
    let (alice, stock) = (Client::new("alice"), Client::new("stock"));
    let policy = PURE_PLAINTEXT_WIRE_FORMAT_POLICY;
    let (provider, mut without, mut a) = stock_member(&alice, &stock, policy);
    // It is in the same epoch, by the same Welcome.
    assert_eq!(a.mls().epoch_authenticator().as_slice(), without.epoch_authenticator().as_slice());
    let own = alice.commit(&mut a, &[]);
    let processed = without.process_message(&provider, decode(&own.message).into_message());
    assert!(matches!(
        processed,
        Err(ProcessMessageError::InvalidCommit(StageCommitError::ConfirmationTagMismatch))
    ));
    // And the other way round.
    let bundle = without.self_update(&provider, &stock.signer, LeafNodeParameters::default()).unwrap();
    let message = DmlsMessage::encode(bundle.commit(), a.epoch().unwrap()).unwrap();
    let error = a.process(&alice.crypto, decode(&message)).err().unwrap();
    assert!(matches!(error, DemlsError::Mls { .. }), "{error}");
    assert_eq!(punctures(&mut a), 0);
}

#[test]
fn a_commit_without_a_path_is_refused() {
    let (alice, stock, dave) = (Client::new("alice"), Client::new("stock"), Client::new("dave"));
    let policy = PURE_PLAINTEXT_WIRE_FORMAT_POLICY;
    let (provider, mut without, mut a) = stock_member(&alice, &stock, policy);
    let added = [dave.key_package().key_package().clone()];
    let (commit, ..) = without.add_members_without_update(&provider, &stock.signer, &added).unwrap();
    let message = DmlsMessage::encode(&commit, a.epoch().unwrap()).unwrap();
    let error = a.process(&alice.crypto, decode(&message)).err().unwrap();
    assert!(matches!(error, DemlsError::CommitWithoutPath), "{error}");
    // Our own always have one, whatever the caller asks for.
    let own = a
        .commit(&alice.crypto, &alice.signer, |builder| {
            builder.propose_adds(added.clone()).force_self_update(false)
        })
        .unwrap();
    assert_eq!(alice.settle(a, own).parent.keys().unwrap().pprf().punctures(), 1);
}

/// A group of `alice` and a member that runs plain OpenMLS.
fn stock_member(
    alice: &Client,
    stock: &Client,
    policy: WireFormatPolicy,
) -> (OpenMlsRustCrypto, MlsGroup, DmlsGroup) {
    let provider = OpenMlsRustCrypto::default();
    let bundle =
        KeyPackage::builder().build(stock.suite, &provider, &stock.signer, stock.credential.clone()).unwrap();
    let mut a = alice.create(policy);
    let own = alice.commit(&mut a, &[bundle.key_package().clone()]);
    let welcome = received_welcome(own.welcome.as_ref().unwrap());
    let without = StagedWelcome::new_from_welcome(&provider, &stock.join_config(policy), welcome, None)
        .unwrap()
        .into_group(&provider)
        .unwrap();
    let a = alice.settle(a, own).next;
    (provider, without, a)
}

#[test]
fn openmls_calls_the_decorator_from_other_threads() {
    let clients: Vec<_> = (0..9).map(|number| Client::new(&format!("member {number}"))).collect();
    let clients: Vec<_> = clients.iter().collect();
    let mut groups = group_of(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY, &clients);
    let watched = Recorder::default();
    let own = groups[0].commit(&watched, &clients[0].signer, |builder| builder).unwrap();
    let others = watched.threads.lock().unwrap();
    assert!(others.iter().any(|thread| *thread != std::thread::current().id()));
    let mut followers: Vec<_> = groups.drain(1..).zip(&clients[1..]).collect();
    let all: Vec<_> =
        followers.drain(..).map(|(group, client)| client.follow(group, &own.message).next).collect();
    assert!(agree(&all.iter().chain([&own.next]).collect::<Vec<_>>()));
}

#[test]
fn a_group_of_one_commits_too() {
    let (alice, bob) = (Client::new("alice"), Client::new("bob"));
    for policy in POLICIES {
        let mut a = alice.create(policy);
        let own = alice.commit(&mut a, &[]);
        let mut a = alice.settle(a, own).next;
        let bundle = bob.key_package();
        let own = alice.commit(&mut a, &[bundle.key_package().clone()]);
        let b = bob.join(policy, own.welcome.as_ref().unwrap(), &bundle);
        let mut a = alice.settle(a, own).next;
        assert!(agree(&[&a, &b]));
        // Alone again after a removal.
        let removed = b.mls().own_leaf_index();
        let own =
            a.commit(&alice.crypto, &alice.signer, |builder| builder.propose_removals([removed])).unwrap();
        let removed = bob.follow(b, &own.message).next;
        assert!(!removed.is_active());
        let mut a = alice.settle(a, own).next;
        let own = alice.commit(&mut a, &[]);
        assert_eq!(alice.settle(a, own).next.members().count(), 1);
    }
}

#[test]
fn a_message_of_another_state_is_refused_before_anything_is_decrypted() {
    let (alice, bob, mut a, mut b) = pair(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY);
    let own = alice.commit(&mut a, &[]);
    let mut next = alice.settle(a, own).next;
    let ahead = next.send(&alice.crypto, &alice.signer, b"ahead").unwrap();
    let watched = Recorder::default();
    let error = b.process(&watched, decode(&ahead)).err().unwrap();
    assert!(matches!(error, DemlsError::WrongEpoch { .. }), "{error}");
    assert!(watched.threads.lock().unwrap().is_empty(), "no crypto was used");
    drop(bob);
}

#[test]
fn only_public_and_private_messages_travel_as_dmls_messages() {
    let (alice, _, mut a, _) = pair(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY);
    let info = a.group_info(&alice.crypto, &alice.signer, false).unwrap();
    let wrapped = DmlsMessage::encode(&info, a.epoch().unwrap()).unwrap();
    assert!(DmlsMessage::decode(&wrapped).is_err());

    let good = a.send(&alice.crypto, &alice.signer, b"content").unwrap();
    assert_eq!(decode(&good).epoch(), a.epoch().unwrap());
    assert!(DmlsMessage::decode(&[&good[..], &[0]].concat()).is_err(), "trailing bytes");
    for end in 0..good.len() {
        assert!(DmlsMessage::decode(&good[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn openmls_is_the_published_one_without_its_drafts() {
    // With `virtual-clients-draft` its epoch path skips the label "epoch", and nothing would be decorated.
    let ours = [include_str!("../../Cargo.toml"), include_str!("../Cargo.toml")];
    for manifest in ours {
        assert!(!manifest.contains("virtual-clients-draft") && !manifest.contains("[patch"));
        let openmls = manifest.lines().filter(|line| line.starts_with("openmls"));
        assert!(openmls.clone().count() > 0 && openmls.clone().all(|line| !line.contains("features")));
        assert!(openmls.clone().all(|line| !line.contains("git") && !line.contains("path")));
    }
    let lock = include_str!("../../Cargo.lock");
    let package = lock.split("[[package]]").find(|package| package.contains("name = \"openmls\"\n")).unwrap();
    assert!(package.contains("source = \"registry+"), "{package}");
}
