//! Forward secrecy, from the side of an attacker who gets everything that a member keeps on disk and has recorded the traffic.
#![allow(clippy::unwrap_used)] // A panic is the report.

mod demls_common;

use std::path::PathBuf;

use demls_common::{
    independent,
    recorder::{MASK, Recorder},
    *,
};
use mls_client::demls::{
    BranchStates, DemlsError, DmlsGroup, DmlsMessage, ExternalJoin, Processed,
    states::{RecordChange, RecordName, Records, SqliteRecords, StateChange},
};
use openmls::prelude::*;
use rusqlite::Connection;

/// Handshakes in the clear: the ratchets of encrypted ones would stop the attacker too, and it is the puncture that must.
const POLICY: WireFormatPolicy = PURE_PLAINTEXT_WIRE_FORMAT_POLICY;

/// A member's disk.
struct Disk {
    path: PathBuf,
    db: Connection,
    _folder: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("states.sqlite");
        let db = Connection::open(&path).unwrap();
        db.pragma_update(None, "journal_mode", "TRUNCATE").unwrap();
        db.pragma_update(None, "secure_delete", "ON").unwrap();
        SqliteRecords::create_table(&db).unwrap();
        Disk { path, db, _folder: folder }
    }

    fn records(&self) -> SqliteRecords<'_> {
        SqliteRecords::new(&self.db)
    }

    fn states(&self) -> BranchStates {
        BranchStates::open(&self.records(), GroupId::from_slice(GROUP_ID)).unwrap()
    }

    fn open(&self, number: u8) -> DmlsGroup {
        DmlsGroup::open(self.states().read(&self.records(), &state_id(number)).unwrap()).unwrap()
    }

    fn keys(&self, number: u8) -> Vec<u8> {
        self.records().get(GROUP_ID, RecordName::Keys(state_id(number))).unwrap().unwrap().to_vec()
    }

    /// Every byte in every file of the database, and every record, because SQLite splits long ones.
    fn bytes(&self) -> Vec<u8> {
        let folder = self.path.parent().unwrap();
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut bytes: Vec<u8> = files.flat_map(|file| std::fs::read(file).unwrap()).collect();
        bytes.extend(
            self.records().all(GROUP_ID).unwrap().into_iter().flat_map(|record| record.body.to_vec()),
        );
        bytes
    }

    fn holds(&self, secret: &[u8]) -> bool {
        self.bytes().windows(secret.len()).any(|window| window == secret)
    }
}

fn process(client: &Client, group: &mut DmlsGroup, message: &[u8]) -> Result<Vec<u8>, DemlsError> {
    match group.process(&client.crypto, DmlsMessage::decode(message).unwrap())? {
        Processed::Commit(staged) => Ok(staged.commit().epoch_authenticator().unwrap().as_slice().to_vec()),
        _ => panic!("expected a commit"),
    }
}

/// The root of a PPRF that was never punctured: version, nh, tag, root.
fn root(group: &mut DmlsGroup) -> Vec<u8> {
    let encoded = group.state().unwrap().keys().unwrap().pprf().encode();
    assert_eq!((encoded.len(), &encoded[..3]), (35, &[1, 32, 1][..]));
    encoded[3..].to_vec()
}

#[test]
fn a_processed_commit_cannot_be_derived_again_from_what_is_retained() {
    let (alice, bob) = (Client::new("alice"), Client::new("bob"));
    let mut groups = group_of(POLICY, &[&alice, &bob]);
    let (mut b, mut a) = (groups.pop().unwrap(), groups.pop().unwrap());
    let disk = Disk::new();
    let mut states = disk.states();
    states.store(&mut disk.records(), StateChange::new().put(state_id(0), None, b.state().unwrap())).unwrap();

    let mut own = alice.commit(&mut a, &[]);
    let expected = own.next.mls().epoch_authenticator().as_slice().to_vec();
    let input = own.next.state().unwrap().keys().unwrap().pending_input().unwrap().as_slice().to_vec();
    let path = independent::path(&root(&mut b), &input);

    // Control: before the commit is processed, what is on disk leads to the next epoch.
    let keys_before = disk.keys(0);
    assert!(disk.holds(&path[0]));
    assert_eq!(process(&bob, &mut disk.open(0), &own.message).unwrap(), expected);

    let mut merged = bob.follow(b, &own.message);
    let change = StateChange::new().put(state_id(0), None, &merged.parent).put(
        state_id(1),
        Some(state_id(0)),
        merged.next.state().unwrap(),
    );
    states.store(&mut disk.records(), change).unwrap();
    states.store(&mut disk.records(), StateChange::new().delete(state_id(1))).unwrap();

    // The attack: the state that is retained, and the recorded commit.
    let error = process(&bob, &mut disk.open(0), &own.message).unwrap_err();
    assert!(matches!(error, DemlsError::AlreadyProcessed), "{error}");
    // Not only does this code refuse: nothing from which the next epoch follows is there for any other code.
    for secret in &path {
        assert!(!disk.holds(secret));
    }
    // What is there is the co-path, which serves every other commit. (Looked for in the record: SQLite splits long ones.)
    let kept = disk.keys(0);
    let holds = |secret: &[u8]| kept.windows(32).any(|window| window == secret);
    assert!(independent::copath(&path[0], &input).iter().all(|secret| holds(secret)));
    assert!(!path.iter().any(|secret| holds(secret)));

    // Control: it is the puncture alone that stops the attacker. With the keys as they were before, it works again.
    let undone = RecordChange::Put(RecordName::Keys(state_id(0)), keys_before.into());
    disk.records().apply(GROUP_ID, &[undone]).unwrap();
    assert_eq!(process(&bob, &mut disk.open(0), &own.message).unwrap(), expected);
}

#[test]
fn what_openmls_stores_are_handles_and_nothing_of_the_secrets_behind_them() {
    let (alice, bob) = (Client::new("alice"), Client::new("bob"));
    let mut a = alice.create(POLICY);
    let bundle = bob.key_package();
    let own = alice.commit(&mut a, &[bundle.key_package().clone()]);
    let welcome = received_welcome(own.welcome.as_ref().unwrap());
    let watched = Recorder::default();
    let mut b = DmlsGroup::join(&watched, &bob.join_config(POLICY), welcome, &bundle, None).unwrap();
    let derived = watched.derived.into_inner().unwrap();
    let secret = |label: &str| -> Vec<u8> {
        let found: Vec<_> = derived.iter().filter(|one| one.label.as_deref() == Some(label)).collect();
        assert_eq!(found.len(), 1, "{label}");
        found[0].masked.map(|byte| byte ^ MASK).to_vec()
    };
    assert!(derived.iter().all(|one| one.label.as_deref() != Some("init")), "it is never derived");

    let disk = Disk::new();
    disk.states()
        .store(&mut disk.records(), StateChange::new().put(state_id(0), None, b.state().unwrap()))
        .unwrap();
    let contains = |body: &[u8], part: &[u8]| body.windows(part.len()).any(|window| window == part);
    for secret in [secret("parent_init"), secret("external")] {
        assert!(contains(&disk.keys(0), &secret), "control: it is kept, but not by OpenMLS");
        let records = disk.records().all(GROUP_ID).unwrap();
        let by_openmls = records.iter().filter(|record| !matches!(record.name, RecordName::Keys(_)));
        // Half of it, because a value may be cut anywhere.
        assert!(
            by_openmls
                .flat_map(|record| secret.chunks(16).map(move |half| (record, half)))
                .all(|(record, half)| !contains(&record.body, half))
        );
    }
}

#[test]
fn the_committer_cannot_derive_its_own_commit_again_either() {
    let alice = Client::new("alice");
    let mut a = group_of(POLICY, &[&alice, &Client::new("bob")]).remove(0);
    let disk = Disk::new();
    let mut states = disk.states();
    let root = root(&mut a);
    let mut own = alice.commit(&mut a, &[]);
    let input = own.next.state().unwrap().keys().unwrap().pending_input().unwrap().as_slice().to_vec();
    let change = StateChange::new().put(state_id(0), None, a.state().unwrap()).put(
        state_id(1),
        Some(state_id(0)),
        own.next.state().unwrap(),
    );
    states.store(&mut disk.records(), change).unwrap();
    assert!(states.is_pending(&state_id(1)) && disk.holds(&root) && disk.holds(&input));

    let mut merged = alice.settle(a, own);
    let change = StateChange::new().put(state_id(0), None, &merged.parent).put(
        state_id(1),
        None,
        merged.next.state().unwrap(),
    );
    states.store(&mut disk.records(), change).unwrap();
    // The input itself stays: it is the punctured path in the encoding of the PPRF, and leads nowhere.
    assert!(!states.is_pending(&state_id(1)));
    states.store(&mut disk.records(), StateChange::new().delete(state_id(1))).unwrap();
    let kept = disk.keys(0);
    for secret in independent::path(&root, &input) {
        assert!(!disk.holds(&secret) && !kept.windows(32).any(|window| window == secret));
    }
}

#[test]
fn a_processed_external_commit_cannot_be_derived_again_either() {
    let (alice, bob, carol) = (Client::new("alice"), Client::new("bob"), Client::new("carol"));
    let mut groups = group_of(POLICY, &[&alice, &bob]);
    let (mut b, mut a) = (groups.pop().unwrap(), groups.pop().unwrap());
    let info = a.group_info(&alice.crypto, &alice.signer, true).unwrap();
    let ExternalJoin { message, next, .. } = DmlsGroup::join_external(
        &carol.crypto,
        &carol.signer,
        &carol.join_config(POLICY),
        received_group_info(&info),
        None,
        a.epoch().unwrap(),
        carol.credential.clone(),
        LeafNodeParameters::default(),
    )
    .unwrap();
    let expected = next.mls().epoch_authenticator().as_slice().to_vec();

    let disk = Disk::new();
    let mut states = disk.states();
    states.store(&mut disk.records(), StateChange::new().put(state_id(0), None, b.state().unwrap())).unwrap();
    let keys_before = disk.keys(0);
    assert_eq!(process(&bob, &mut disk.open(0), &message).unwrap(), expected);

    let merged = bob.follow(b, &message);
    states.store(&mut disk.records(), StateChange::new().put(state_id(0), None, &merged.parent)).unwrap();
    let error = process(&bob, &mut disk.open(0), &message).unwrap_err();
    assert!(matches!(error, DemlsError::NoExternalCommits), "{error}");

    let undone = RecordChange::Put(RecordName::Keys(state_id(0)), keys_before.into());
    disk.records().apply(GROUP_ID, &[undone]).unwrap();
    assert_eq!(process(&bob, &mut disk.open(0), &message).unwrap(), expected);
}

#[test]
fn nothing_of_a_deleted_state_is_found_in_any_file() {
    let (alice, bob) = (Client::new("alice"), Client::new("bob"));
    let mut groups = group_of(POLICY, &[&alice, &bob]);
    let (b, mut a) = (groups.pop().unwrap(), groups.pop().unwrap());
    let own = alice.commit(&mut a, &[]);
    let mut merged = bob.follow(b, &own.message);
    let disk = Disk::new();
    let mut states = disk.states();
    let change = StateChange::new().put(state_id(0), None, &merged.parent).put(
        state_id(1),
        Some(state_id(0)),
        merged.next.state().unwrap(),
    );
    states.store(&mut disk.records(), change).unwrap();

    let all = |disk: &Disk| -> Vec<Vec<u8>> {
        disk.records().all(GROUP_ID).unwrap().into_iter().map(|record| record.body.to_vec()).collect()
    };
    let before = all(&disk);
    states.store(&mut disk.records(), StateChange::new().delete(state_id(0))).unwrap();
    let kept = all(&disk);
    let gone: Vec<_> = before.iter().filter(|body| !kept.contains(body)).collect();
    assert!(gone.iter().map(|body| body.len()).sum::<usize>() > 8192, "the PPRF at least");

    let kept = kept.concat();
    let contains = |bytes: &[u8], piece: &[u8]| bytes.windows(piece.len()).any(|window| window == piece);
    let file = disk.bytes();
    let mut checked = 0;
    for piece in gone.iter().flat_map(|body| body.chunks_exact(16)) {
        if !contains(&kept, piece) {
            assert!(!contains(&file, piece));
            checked += 1;
        }
    }
    assert!(checked > 500, "only {checked} pieces were unique to the deleted state");
    // And what was kept is whole.
    assert!(agree(&[&disk.open(1), &alice.settle(a, own).next]));
}
