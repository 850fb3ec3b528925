//! What the streams on disk promise.

use super::*;

const WIDE: Bounds = Bounds { stream_bytes: 1 << 30, total_bytes: 1 << 30 };

fn setup() -> Setup {
    let members = ["ann", "bob"].map(|name| ClientId::new(name).unwrap());
    Setup::new([1; 16], members, [1], 32).unwrap()
}

fn item(owner: &'static str, seq: u64, bytes: usize) -> (DgroupId, Item) {
    let owner = ClientId::new(owner).unwrap();
    (setup().id(), Item { owner, seq, message: vec![seq as u8; bytes].into(), welcome: Bytes::new() })
}

fn numbers(store: &MeshStore, owner: &'static str) -> Vec<u64> {
    let owner = ClientId::new(owner).unwrap();
    store.read(&setup().id(), &owner, 0, 1000, 1000).unwrap().iter().map(|item| item.seq).collect()
}

#[test]
fn items_come_in_any_order_and_are_contiguous_when_the_gap_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let store = MeshStore::open(dir.path(), WIDE, [1; 16]).unwrap();
    store.create(&setup()).unwrap();
    let insert = |seq| store.insert(&[item("ann", seq, 10)]).unwrap()[0];
    assert_eq!(insert(1), Stored::Kept { contiguous: 1 });
    assert_eq!(insert(4), Stored::Kept { contiguous: 1 });
    assert_eq!(insert(3), Stored::Kept { contiguous: 1 });
    assert_eq!(insert(2), Stored::Kept { contiguous: 4 });
    assert_eq!(insert(2), Stored::Kept { contiguous: 4 }, "the same again gets the same answer");
    assert_eq!(store.insert(&[item("ann", 2, 11)]).unwrap(), [Stored::Conflict]);
    assert_eq!(insert(5000), Stored::TooFar { contiguous: 4 });
    // Another process finds the same, and the same storage id.
    drop(store);
    let store = MeshStore::open(dir.path(), WIDE, [2; 16]).unwrap();
    assert_eq!(store.storage_id(), [1; 16]);
    assert_eq!(numbers(&store, "ann"), [1, 2, 3, 4]);
    assert_eq!(store.setup(&setup().id()).unwrap(), Some(setup()));
}

#[test]
fn at_the_bound_the_oldest_of_the_stream_go_and_the_newest_stay() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Bounds { stream_bytes: 4 * (100 + ITEM_OVERHEAD_BYTES), total_bytes: 1 << 30 };
    let store = MeshStore::open(dir.path(), bounds, [1; 16]).unwrap();
    store.create(&setup()).unwrap();
    for seq in 1..=10 {
        store.insert(&[item("ann", seq, 100)]).unwrap();
    }
    store.insert(&[item("bob", 1, 100)]).unwrap();
    assert_eq!(numbers(&store, "ann"), [7, 8, 9, 10]);
    assert_eq!(numbers(&store, "bob"), [1], "one member's talk does not cost another its items");
    let ann = ClientId::new("ann").unwrap();
    assert_eq!(store.stream(&setup().id(), &ann).unwrap(), Stream { first: 7, last: 10 });
    assert_eq!(store.insert(&[item("ann", 2, 100)]).unwrap(), [Stored::Dropped]);
    // One item that is larger than the bound stays all the same.
    store.insert(&[item("ann", 11, 100_000)]).unwrap();
    assert_eq!(numbers(&store, "ann"), [11]);
}

#[test]
fn at_the_bound_of_all_the_largest_stream_gives() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Bounds { stream_bytes: 1 << 30, total_bytes: 6 * (100 + ITEM_OVERHEAD_BYTES) };
    let store = MeshStore::open(dir.path(), bounds, [1; 16]).unwrap();
    store.create(&setup()).unwrap();
    store.insert(&[item("bob", 1, 100), item("bob", 2, 100)]).unwrap();
    for seq in 1..=20 {
        store.insert(&[item("ann", seq, 100)]).unwrap();
        assert!(store.bytes().unwrap() <= bounds.total_bytes);
    }
    assert_eq!(numbers(&store, "bob"), [1, 2]);
    assert_eq!(numbers(&store, "ann"), [17, 18, 19, 20]);
}

#[test]
fn changes_are_told_once_in_pages_and_only_if_there_are_any() {
    let dir = tempfile::tempdir().unwrap();
    let store = MeshStore::open(dir.path(), WIDE, [1; 16]).unwrap();
    store.create(&setup()).unwrap();
    store.create(&setup()).unwrap();
    store.insert(&[item("ann", 1, 1)]).unwrap();
    store.insert(&[item("bob", 1, 1)]).unwrap();
    store.insert(&[item("bob", 1, 1)]).unwrap();
    let first = store.changes(0, 1).unwrap();
    assert!(first.mark > 0 && first.mark < *store.marks().borrow());
    let all = store.changes(0, 100).unwrap();
    assert_eq!((all.setups.len(), all.streams.len(), all.mark), (1, 2, 3));
    let rest = store.changes(first.mark, 100).unwrap();
    assert_eq!(first.streams.len() + rest.streams.len(), 2);
    assert!(store.changes(3, 100).unwrap().streams.is_empty());
}

#[test]
fn a_stream_goes_on_behind_what_is_gone_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let store = MeshStore::open(dir.path(), WIDE, [1; 16]).unwrap();
    store.create(&setup()).unwrap();
    let ann = ClientId::new("ann").unwrap();
    store.insert(&[item("ann", 1, 1), item("ann", 6, 1)]).unwrap();
    store.skip_to(&setup().id(), &ann, 5).unwrap();
    assert_eq!(store.stream(&setup().id(), &ann).unwrap(), Stream { first: 5, last: 4 });
    assert_eq!(store.insert(&[item("ann", 5, 1)]).unwrap(), [Stored::Kept { contiguous: 6 }]);
    assert_eq!(numbers(&store, "ann"), [5, 6]);
}

#[test]
fn what_waits_for_others_has_to_fit() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Bounds { stream_bytes: 4 * (100 + ITEM_OVERHEAD_BYTES), total_bytes: 1 << 30 };
    let store = MeshStore::open(dir.path(), bounds, [1; 16]).unwrap();
    store.create(&setup()).unwrap();
    let insert = |seq| store.insert(&[item("ann", seq, 100)]).unwrap()[0];
    for seq in 2..=5 {
        assert_eq!(insert(seq), Stored::Kept { contiguous: 0 });
    }
    assert_eq!(
        insert(6),
        Stored::TooFar { contiguous: 0 },
        "it would not fit, and nothing can be dropped for it"
    );
    assert!(store.bytes().unwrap() <= bounds.stream_bytes);
    assert_eq!(insert(1), Stored::Kept { contiguous: 5 }, "what is due has room");
    assert!(store.bytes().unwrap() <= bounds.stream_bytes);
    assert_eq!(insert(6), Stored::Kept { contiguous: 6 });
}

#[test]
fn with_nothing_to_drop_the_bound_of_all_is_kept_by_refusing() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Bounds { stream_bytes: 1 << 30, total_bytes: 2 * (100 + ITEM_OVERHEAD_BYTES) };
    let store = MeshStore::open(dir.path(), bounds, [1; 16]).unwrap();
    store.create(&setup()).unwrap();
    store.insert(&[item("ann", 1, 100), item("bob", 1, 100)]).unwrap();
    let error = store.insert(&[item("bob", 2, 1000)]).unwrap_err();
    assert!(matches!(error, StoreError::NoRoom(_)), "{error}");
    assert_eq!(numbers(&store, "bob"), [1], "nothing of it was stored");
    store.insert(&[item("bob", 2, 50)]).unwrap();
    assert_eq!(numbers(&store, "bob"), [2], "the newest one stays, the one before gives way");
}

#[test]
fn what_is_kept_is_counted_through_drops_skips_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Bounds { stream_bytes: 5 * (100 + ITEM_OVERHEAD_BYTES), total_bytes: 1 << 30 };
    let store = MeshStore::open(dir.path(), bounds, [1; 16]).unwrap();
    store.create(&setup()).unwrap();
    for seq in 1..=9 {
        store.insert(&[item("ann", seq, 100)]).unwrap();
    }
    store.insert(&[item("bob", 1, 100), item("bob", 4, 100), item("bob", 8, 100)]).unwrap();
    store.skip_to(&setup().id(), &ClientId::new("bob").unwrap(), 6).unwrap();
    let counted = || {
        let rows = ["ann", "bob"].map(|owner| {
            let owner = ClientId::new(owner).unwrap();
            let items = store.read(&setup().id(), &owner, 0, 1000, 1000).unwrap();
            items.iter().map(|item| item.bytes() as u64 + ITEM_OVERHEAD_BYTES).sum::<u64>()
        });
        rows[0] + rows[1]
    };
    assert_eq!(numbers(&store, "bob"), [8]);
    assert_eq!(store.bytes().unwrap(), counted());
    let before = store.bytes().unwrap();
    drop(store);
    assert_eq!(MeshStore::open(dir.path(), bounds, [2; 16]).unwrap().bytes().unwrap(), before);
}

#[test]
fn what_a_client_submits_goes_with_the_news_and_what_a_gateway_brings_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = MeshStore::open(dir.path(), WIDE, [1; 16]).unwrap();
    store.create(&setup()).unwrap();
    let submit = |seq| {
        let (dgroup, item) = item("ann", seq, 10);
        store.submit(dgroup, item).unwrap()
    };
    let before = *store.marks().borrow();
    assert_eq!(submit(1), Stored::Kept { contiguous: 1 });
    store.insert(&[item("bob", 1, 10)]).unwrap();
    // The same again is no news.
    assert_eq!(submit(1), Stored::Kept { contiguous: 1 });
    submit(2);
    let newest = *store.marks().borrow();
    let pushed: Vec<_> = store.recent(before, newest).into_iter().map(|(_, item)| item.seq).collect();
    assert_eq!(pushed, [1, 2]);
    assert!(store.recent(newest, u64::MAX).is_empty());
}

#[test]
fn a_reader_that_follows_is_told_of_the_streams_that_have_changed_since() {
    let dir = tempfile::tempdir().unwrap();
    let store = MeshStore::open(dir.path(), WIDE, [1; 16]).unwrap();
    store.create(&setup()).unwrap();
    store.insert(&[item("ann", 1, 10)]).unwrap();
    let mark = *store.marks().borrow();
    store.insert(&[item("bob", 1, 10)]).unwrap();
    let owners =
        |after| -> Vec<ClientId> { store.streams(&setup().id(), after).unwrap().into_keys().collect() };
    assert_eq!(owners(0), ["ann", "bob"].map(|name| ClientId::new(name).unwrap()));
    assert_eq!(owners(mark), [ClientId::new("bob").unwrap()]);
    assert!(owners(mark + 1).is_empty());
}
