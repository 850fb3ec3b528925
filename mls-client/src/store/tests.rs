//! What the file promises: whole transactions, states side by side, one process, and that deleted means gone.

use std::{fs, path::Path, time::Duration};

use group_log::{ChainHash, GroupId, GroupKind, Policy, StateId};

use super::*;
use crate::provider::Values;

fn group() -> GroupId {
    GroupId::new("a group").unwrap()
}

fn state(n: u8) -> StateId {
    StateId([n; 32])
}

fn record(n: u8) -> GroupRecord {
    let at = Position { seq: n.into(), chain: ChainHash([n; 32]), epoch: n.into(), state: state(n) };
    GroupRecord::new(Status::Active, GroupKind::Mls, Policy::default(), at)
}

fn values(entries: &[(&str, &[u8])]) -> Values {
    let mut values = Values::default();
    entries.iter().for_each(|(key, value)| values.insert(key.as_bytes().to_vec(), value.to_vec()));
    values
}

fn save(store: &mut Store, record: &GroupRecord, values: &Values, outbox: &[OutboxItem]) {
    let old = store.load_group(&group()).unwrap();
    let update = GroupUpdate { old: old.as_ref(), record, values, outbox, messages: &[], identity: None };
    store.save_group(&group(), &update).unwrap();
}

/// Whether the bytes are in the file or in anything beside it.
fn on_disk(folder: &Path, bytes: &[u8]) -> bool {
    fs::read_dir(folder).unwrap().any(|file| {
        fs::read(file.unwrap().path()).unwrap().windows(bytes.len()).any(|window| window == bytes)
    })
}

#[test]
fn a_state_moves_on_and_keeps_what_did_not_change() {
    let mut store = Store::in_memory().unwrap();
    save(&mut store, &record(1), &values(&[("a", b"1"), ("b", b"2")]), &[]);
    save(&mut store, &record(2), &values(&[("b", b"2"), ("c", b"3")]), &[]);
    let loaded = store.load_group(&group()).unwrap().unwrap();
    assert_eq!(loaded.values, values(&[("b", b"2"), ("c", b"3")]));
    assert_eq!(loaded.record, record(2));
    assert_eq!(store.states(&group()).unwrap(), [state(2)]);
    let mut left = record(3);
    left.status = Status::Left(LeftReason::Left);
    save(&mut store, &left, &Values::default(), &[]);
    assert_eq!(store.states(&group()).unwrap(), []);
}

#[test]
fn states_stand_side_by_side_and_change_on_their_own() {
    let mut store = Store::in_memory().unwrap();
    save(&mut store, &record(1), &values(&[("a", b"1")]), &[]);
    let copy = store.copy_state(&group(), &state(1), &state(9)).unwrap();
    save(&mut store, &record(2), &values(&[("a", b"2")]), &[]);
    assert_eq!(store.values(copy).unwrap(), values(&[("a", b"1")]));
    let mut states = store.states(&group()).unwrap();
    states.sort();
    assert_eq!(states, [state(2), state(9)]);
    assert_eq!(store.namespace(&group(), &state(9)).unwrap(), Some(copy));
}

#[test]
fn the_outbox_keeps_its_order_and_forgets_what_was_sent() {
    let mut store = Store::in_memory().unwrap();
    let item = |id, text: &str| OutboxItem::new(id, OutboxKind::Message, text.as_bytes().to_vec());
    save(&mut store, &record(1), &values(&[("a", b"1")]), &[item(1, "one"), item(2, "two")]);
    assert_eq!(store.outbox_len(&group()).unwrap(), 2);
    let mut loaded = store.load_group(&group()).unwrap().unwrap().outbox;
    assert_eq!(loaded, [item(1, "one"), item(2, "two")]);
    loaded.remove(0);
    loaded[0].set_message(b"ciphertext".to_vec(), 1, state(1));
    save(&mut store, &record(1), &values(&[("a", b"1")]), &loaded);
    assert_eq!(store.load_group(&group()).unwrap().unwrap().outbox, loaded);
}

#[test]
fn work_that_fails_changes_nothing() {
    let mut store = Store::in_memory().unwrap();
    save(&mut store, &record(1), &values(&[("a", b"1")]), &[]);
    let failed = store.transaction(|tx| {
        tx.execute("DELETE FROM key_values", [])?;
        tx.execute("DELETE FROM groups", [])?;
        Err::<(), _>(StoreError::damaged("test", "fails"))
    });
    assert!(failed.is_err());
    assert_eq!(store.load_group(&group()).unwrap().unwrap().values, values(&[("a", b"1")]));
}

#[test]
fn a_crash_in_the_middle_of_writing_leaves_what_was_before() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("state"), folder.path().join("copy"));
    let old = vec![7; 50_000];
    let mut store = Store::open(&path).unwrap();
    save(&mut store, &record(1), &values(&[("a", &old), ("b", &old)]), &[]);
    // Pages go to the disk before the commit, as in a transaction that outgrows memory.
    store.db().pragma_update(None, "cache_size", 1).unwrap();
    store
        .transaction::<(), StoreError>(|tx| {
            tx.execute("UPDATE key_values SET value = zeroblob(60000)", [])?;
            tx.execute("DELETE FROM groups", [])?;
            // What a process that dies here leaves behind.
            fs::copy(&path, &copy).unwrap();
            fs::copy(path.with_file_name("state-journal"), copy.with_file_name("copy-journal")).unwrap();
            Ok(())
        })
        .unwrap();
    assert_ne!(fs::read(&path).unwrap(), fs::read(&copy).unwrap());
    let restarted = Store::open(&copy).unwrap();
    let loaded = restarted.load_group(&group()).unwrap().unwrap();
    assert_eq!(loaded.values, values(&[("a", &old), ("b", &old)]));
    assert_eq!(loaded.record, record(1));
    assert!(store.load_group(&group()).unwrap().is_none());
}

#[test]
fn what_was_deleted_is_not_in_any_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(&folder.path().join("state")).unwrap();
    let (short, long) = (b"a secret of one page".to_vec(), b"a long secret ".repeat(5000));
    let before = values(&[("short", &short), ("long", &long), ("kept", b"kept as it is")]);
    let said = OutboxItem::new(1, OutboxKind::Message, b"said in confidence".to_vec());
    save(&mut store, &record(1), &before, std::slice::from_ref(&said));
    let hex_said = hex::encode(&said.body);
    for written in [short.as_slice(), b"a long secret", b"kept as it is", hex_said.as_bytes()] {
        assert!(on_disk(folder.path(), written));
    }
    save(&mut store, &record(2), &values(&[("kept", b"kept as it is")]), &[]);
    for deleted in [short.as_slice(), b"a long secret", hex_said.as_bytes()] {
        assert!(!on_disk(folder.path(), deleted));
    }
    assert!(on_disk(folder.path(), b"kept as it is"));
    store.delete_group(&group()).unwrap();
    assert!(!on_disk(folder.path(), b"kept as it is"));
}

#[test]
fn two_processes_do_not_use_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let first = Store::open(&path).unwrap();
    match Store::open_within(&path, Duration::from_millis(10)) {
        Err(StoreError::InUse { path: named }) => assert_eq!(named, path),
        other => panic!("{other:?}"),
    }
    drop(first);
    Store::open(&path).unwrap();
}

#[cfg(unix)]
#[test]
fn only_its_owner_can_read_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new folder/state");
    drop(Store::open(&path).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn other_files_are_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    fs::write(&path, b"certainly not a database, but long enough to be looked at as one".repeat(20)).unwrap();
    assert!(matches!(Store::open(&path), Err(StoreError::Damaged { .. })));
    let other = folder.path().join("other");
    rusqlite::Connection::open(&other).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    assert!(matches!(Store::open(&other), Err(StoreError::Foreign { .. })));
    let newer = folder.path().join("newer");
    drop(Store::open(&newer).unwrap());
    rusqlite::Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(Store::open(&newer), Err(StoreError::NewerSchema { known: 2, got: 99 })));
}
