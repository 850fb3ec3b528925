//! Zeroizing, from the side of an attacker who gets everything that is in the memory of a member's process.
#![allow(clippy::unwrap_used)] // A panic is the report.
#![cfg(target_os = "linux")]

mod demls_common;

use std::collections::BTreeSet;

use demls_common::{
    memory::Wanted,
    recorder::{MASK, Recorder},
    *,
};
use mls_client::demls::{
    BranchStates, DmlsGroup, DmlsMessage, Processed,
    states::{MemoryRecords, StateChange},
};
use openmls::prelude::*;
use zeroize::Zeroize;

const POLICY: WireFormatPolicy = PURE_CIPHERTEXT_WIRE_FORMAT_POLICY;

/// Secrets that DeMLS derives, masked.
type Masked = Vec<[u8; 32]>;

/// What was derived in a PPRF, from the root down. (The secret tree of MLS uses the same labels.)
fn in_pprf(recorder: &Recorder, root: &[u8; 32]) -> Masked {
    let mut known = BTreeSet::from([*root]);
    let derived = recorder.derived.lock().unwrap();
    let nodes = derived.iter().filter(|one| matches!(one.label.as_deref(), Some("tree" | "pprf")));
    for node in nodes {
        if node.from.is_some_and(|from| known.contains(&from)) {
            known.insert(node.masked);
        }
    }
    known.remove(root);
    known.into_iter().collect()
}

/// What was derived under this label, from the derivation with the number `from` on.
fn derived(recorder: &Recorder, label: &str, from: usize) -> Masked {
    let derived = recorder.derived.lock().unwrap();
    let wanted = derived[from..].iter().filter(|one| one.label.as_deref() == Some(label));
    wanted.map(|one| one.masked).collect()
}

fn count(recorder: &Recorder) -> usize {
    recorder.derived.lock().unwrap().len()
}

/// How many of these secrets are in the memory.
fn in_memory(secrets: &Masked) -> usize {
    Wanted::new(secrets).found().len()
}

fn process(
    recorder: &Recorder,
    group: &mut DmlsGroup,
    message: &[u8],
) -> mls_client::demls::StagedDmlsCommit {
    match group.process(recorder, DmlsMessage::decode(message).unwrap()).unwrap() {
        Processed::Commit(staged) => staged,
        _ => panic!("expected a commit"),
    }
}

/// Bob follows a commit of Alice, stores both states, reads them again and lets go of everything.
#[test]
fn no_secret_of_a_processed_commit_and_none_of_a_deleted_state_stays_in_memory() {
    let (alice, bob) = (Client::new("alice"), Client::new("bob"));
    let crypto = Recorder::default();
    let mut a = alice.create(POLICY);
    let bundle = bob.key_package();
    let own = alice.commit(&mut a, &[bundle.key_package().clone()]);
    let welcome = received_welcome(own.welcome.as_ref().unwrap());
    let mut b = DmlsGroup::join(&crypto, &bob.join_config(POLICY), welcome, &bundle, None).unwrap();
    let mut a = alice.settle(a, own).next;

    // Control: what is in use is found.
    let root = derived(&crypto, "parent_init", 0);
    assert_eq!((root.len(), in_memory(&root)), (1, 1));
    let before = count(&crypto);
    let own = alice.commit(&mut a, &[]);
    let staged = process(&crypto, &mut b, &own.message);
    // Only the path and the output are derived in order to evaluate.
    let path = in_pprf(&crypto, &root[0]);
    let confirmation = derived(&crypto, "conf", before);
    assert_eq!((path.len(), in_memory(&path)), (256 + 1, 0), "evaluated, and not kept");
    assert_eq!((confirmation.len(), in_memory(&confirmation)), (1, 0));

    let mut merged = b.merge(&crypto, staged).unwrap();
    let settled = alice.settle(a, own);
    let on_path: BTreeSet<_> = path.iter().copied().collect();
    let mut copath = in_pprf(&crypto, &root[0]);
    copath.retain(|secret| !on_path.contains(secret));
    assert_eq!((copath.len(), in_memory(&copath)), (256, 256), "control: it is kept for other commits");
    let punctured: Masked = path.iter().chain(&root).chain(&confirmation).copied().collect();
    assert_eq!(in_memory(&punctured), 0, "punctured");

    // The way to the storage and back.
    let mut records = MemoryRecords::default();
    let mut states = BranchStates::open(&records, GroupId::from_slice(GROUP_ID)).unwrap();
    let change = StateChange::new().put(state_id(0), None, &merged.parent).put(
        state_id(1),
        Some(state_id(0)),
        merged.next.state().unwrap(),
    );
    states.store(&mut records, change).unwrap();
    let next = derived(&crypto, "parent_init", before);
    assert_eq!((next.len(), in_memory(&next)), (1, 1));
    drop((merged, settled));
    let read = [0, 1].map(|number| states.read(&records, &state_id(number)).unwrap());
    assert_eq!((in_memory(&punctured), in_memory(&copath), in_memory(&next)), (0, 256, 1));
    drop(read);
    states.store(&mut records, StateChange::new().delete(state_id(0))).unwrap();
    assert_eq!(
        (in_memory(&copath), in_memory(&next)),
        (0, 1),
        "a deleted state is gone, the other one is there"
    );
    states.store(&mut records, StateChange::new().delete(state_id(1))).unwrap();
    assert_eq!(in_memory(&next), 0);

    // Control: what is freed as it is, is found.
    let mut plain: Vec<Vec<u8>> =
        copath.iter().map(|secret| secret.map(|byte| byte ^ MASK).to_vec()).collect();
    let last = plain.split_off(128);
    drop(plain);
    assert!(in_memory(&copath) > 128, "most of what was freed, and all that was not");
    last.into_iter().for_each(|mut secret| secret.zeroize());
}
