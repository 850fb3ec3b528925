use std::sync::Arc;

use tempfile::TempDir;

use super::*;

fn open(dir: &TempDir) -> Result<Store, StoreError> {
    Store::open(dir.path(), &Randomness::from_os())
}

fn group(n: u8) -> GroupId {
    GroupId::new(vec![n; usize::from(n)]).unwrap()
}

#[test]
fn a_gateway_is_its_disk() {
    let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let id = open(&dir).unwrap().gateway_id();
    assert_eq!(open(&dir).unwrap().gateway_id(), id);
    assert_ne!(open(&other).unwrap().gateway_id(), id);
}

#[test]
fn data_of_another_cluster_is_refused() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).unwrap();
    assert_eq!(store.cluster(), None);
    store.bind("a").unwrap();
    store.bind("a").unwrap();
    assert!(matches!(store.bind("b"), Err(StoreError::ForeignCluster { .. })));
    drop(store);
    let store = open(&dir).unwrap();
    assert_eq!(store.cluster().as_deref(), Some("a"));
    assert!(matches!(store.bind("b"), Err(StoreError::ForeignCluster { .. })));
}

#[test]
fn a_database_of_something_else_is_refused() {
    let dir = TempDir::new().unwrap();
    let mut options = Options::default();
    options.create_if_missing(true);
    DB::open(&options, dir.path()).unwrap().put(b"theirs", b"1").unwrap();
    assert!(matches!(open(&dir), Err(StoreError::NoMarker)));
}

#[test]
fn promises_are_found_again_and_groups_do_not_mix() {
    let dir = TempDir::new().unwrap();
    let seats = [Seat::Out, Seat::In(7), Seat::Leaving(u64::MAX)];
    let promise = |n: u8| Promise { shard: n.into(), position: n.into(), seat: seats[usize::from(n) % 3] };
    {
        let store = Arc::new(open(&dir).unwrap());
        for n in 1..4 {
            GroupRows::new(Arc::clone(&store), group(n)).set_promise(&promise(n)).unwrap();
        }
        store.sync().unwrap();
    }
    let store = Arc::new(open(&dir).unwrap());
    assert_eq!(store.groups().unwrap(), [group(1), group(2), group(3)]);
    for n in 1..4 {
        assert_eq!(GroupRows::new(Arc::clone(&store), group(n)).promise().unwrap(), Some(promise(n)));
    }
}
