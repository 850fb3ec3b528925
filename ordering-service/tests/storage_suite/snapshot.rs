//! A snapshot brings a node to the same state, whole or not at all.

use bytes::Bytes;
use futures::StreamExt;
use openraft::storage::{RaftLogStorage, RaftSnapshotBuilder, RaftStateMachine};
use ordering_service::storage::{Shard, ShardReader, SnapshotHandle, SnapshotMeta, Storage, StorageError};

use crate::support::{
    SHARD, all, append_stored, apply, blank, commit, crash_copy, entry, history, log_id, open,
};

const GROUPS: u64 = 7;

/// Everything that a reader can see of the groups in [`history`].
fn seen(reader: &ShardReader) -> impl PartialEq + std::fmt::Debug + use<> {
    let groups = (0..GROUPS).map(|group| {
        let name = format!("group {group}");
        let entries = reader.entries(name.as_bytes(), 0, 1000, usize::MAX).unwrap();
        (reader.head(name.as_bytes()).unwrap(), reader.group_info(name.as_bytes()).unwrap(), entries)
    });
    (groups.collect::<Vec<_>>(), reader.inbox(b"bob", 0, 5000).unwrap(), reader.last_applied())
}

async fn node(path: &std::path::Path, entries: &[ordering_service::storage::LogEntry]) -> (Storage, Shard) {
    let storage = open(path);
    let mut shard = storage.shard(SHARD).unwrap();
    append_stored(&mut shard.log, entries.to_vec()).await;
    apply(&mut shard.state_machine, entries.to_vec()).await;
    (storage, shard)
}

async fn chunks(handle: SnapshotHandle) -> Vec<Bytes> {
    handle.chunks().map(Result::unwrap).collect().await
}

async fn current(shard: &mut Shard) -> (SnapshotMeta, Vec<Bytes>) {
    let snapshot = shard.state_machine.get_current_snapshot().await.unwrap().unwrap();
    (snapshot.meta, chunks(snapshot.snapshot).await)
}

fn receive(storage: &Storage, chunks: &[Bytes]) -> Result<(SnapshotMeta, SnapshotHandle), StorageError> {
    let mut receiver = storage.receive_snapshot(SHARD)?;
    chunks.iter().try_for_each(|chunk| receiver.write(chunk.clone()))?;
    receiver.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_after_a_purge_gives_the_same_groups_and_a_log_that_goes_on() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let history = history(GROUPS, 30, 20_000);
    let last = history.len() as u64 - 1;
    let (sender, mut source) = node(from.path(), &history).await;
    source.state_machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    source.log.purge(log_id(last)).await.unwrap();
    sender.wait_swept();
    let (meta, chunks) = current(&mut source).await;
    assert!(chunks.len() > 3, "it takes several chunks");

    // The receiver has a log of its own, part of which never became what was committed.
    let (receiver, mut target) = node(to.path(), &history[..10]).await;
    append_stored(&mut target.log, vec![blank(10), blank(11)]).await;
    let (received, handle) = receive(&receiver, &chunks).unwrap();
    assert_eq!(received, meta);
    target.log.truncate_after(Some(log_id(9))).await.unwrap();
    target.state_machine.install_snapshot(&received, handle).await.unwrap();
    target.log.purge(log_id(last)).await.unwrap();
    receiver.wait_swept();
    assert_eq!(seen(&target.reader), seen(&source.reader));

    let next: Vec<_> =
        (0..GROUPS).map(|group| entry(last + 1 + group, commit(&format!("group {group}"), 30, 5))).collect();
    append_stored(&mut target.log, next.clone()).await;
    apply(&mut target.state_machine, next.clone()).await;
    append_stored(&mut source.log, next.clone()).await;
    apply(&mut source.state_machine, next.clone()).await;
    assert_eq!(seen(&target.reader), seen(&source.reader));
    let expected = seen(&source.reader);

    // It survives a restart, and can be sent on.
    drop((target, receiver));
    let receiver = open(to.path());
    let mut target = receiver.shard(SHARD).unwrap();
    assert_eq!(seen(&target.reader), expected);
    assert_eq!(all(&mut target.log).await, next);
    let third = tempfile::tempdir().unwrap();
    let (meta, chunks) = current(&mut target).await;
    let third_node = open(third.path());
    let (received, handle) = receive(&third_node, &chunks).unwrap();
    let mut shard = third_node.shard(SHARD).unwrap();
    shard.state_machine.install_snapshot(&meta, handle).await.unwrap();
    assert_eq!(received, meta);
    assert_eq!(seen(&shard.reader), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_snapshot_changes_nothing() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let history = history(GROUPS, 20, 1000);
    let (_sender, mut source) = node(from.path(), &history).await;
    let (_, chunks) = current(&mut source).await;
    let (receiver, target) = node(to.path(), &history[..12]).await;
    let before = seen(&target.reader);

    let mut cut = chunks.clone();
    let short = cut.pop().unwrap();
    assert!(matches!(receive(&receiver, &cut), Err(StorageError::BadSnapshot(_))));
    cut.push(short.slice(..short.len() - 1));
    assert!(matches!(receive(&receiver, &cut), Err(StorageError::BadSnapshot(_))));
    let mut flipped = chunks[0].to_vec();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    cut = chunks.clone();
    cut[0] = flipped.into();
    assert!(receive(&receiver, &cut).is_err());
    assert_eq!(seen(&target.reader), before);

    // Received whole, but the process ends before it is installed.
    std::mem::forget(receive(&receiver, &chunks).unwrap().1);
    assert_eq!(seen(&target.reader), before);
    drop(target);
    let left = families(to.path());
    assert!(left.iter().any(|name| name.starts_with("state.1.") && name != "state.1.0"), "{left:?}");
}

/// Names of the column families on the disk.
fn families(path: &std::path::Path) -> Vec<String> {
    rocksdb::DB::list_cf(&rocksdb::Options::default(), path.join("db")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_attempt_left_behind_is_dropped_at_the_next_start() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let history = history(GROUPS, 5, 100);
    let (_sender, mut source) = node(from.path(), &history).await;
    let (meta, chunks) = current(&mut source).await;
    let copy;
    {
        let (receiver, _target) = node(to.path(), &history[..12]).await;
        let _waiting = receive(&receiver, &chunks).unwrap();
        // What a crash at this moment would leave.
        copy = crash_copy(to.path());
    }
    let storage = open(copy.path());
    let names = families(copy.path());
    assert_eq!(names.iter().filter(|name| name.starts_with("state.")).count(), 1, "{names:?}");
    let mut shard = storage.shard(SHARD).unwrap();
    let replay = all(&mut shard.log).await;
    apply(&mut shard.state_machine, replay).await;
    let (_, handle) = receive(&storage, &chunks).unwrap();
    shard.state_machine.install_snapshot(&meta, handle).await.unwrap();
    assert_eq!(seen(&shard.reader), seen(&source.reader));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_see_whole_states_while_entries_are_applied_and_snapshots_installed() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let history = history(GROUPS, 40, 200);
    let (_sender, mut source) = node(from.path(), &history).await;
    let (meta, chunks) = current(&mut source).await;
    let (receiver, mut target) = node(to.path(), &history[..1]).await;
    let reader = target.reader.clone();
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stop = done.clone();
    let watching = tokio::task::spawn_blocking(move || {
        let mut newest = 0;
        while !stop.load(std::sync::atomic::Ordering::SeqCst) {
            let entries = reader.entries(b"group 3", 0, 1000, usize::MAX).unwrap();
            let seqs: Vec<_> = entries.iter().map(|entry| entry.seq).collect();
            assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "a gap");
            assert!(seqs.len() >= newest, "the log has become shorter");
            newest = seqs.len();
            reader.inbox(b"bob", 0, 10).unwrap();
        }
        newest
    });
    append_stored(&mut target.log, history[1..100].to_vec()).await;
    for batch in history[1..100].chunks(3) {
        apply(&mut target.state_machine, batch.to_vec()).await;
    }
    for _ in 0..5 {
        let (_, handle) = receive(&receiver, &chunks).unwrap();
        target.state_machine.install_snapshot(&meta, handle).await.unwrap();
        target.log.purge(meta.last_log_id.unwrap()).await.unwrap();
        receiver.wait_swept();
    }
    done.store(true, std::sync::atomic::Ordering::SeqCst);
    watching.await.unwrap();
    assert_eq!(seen(&target.reader), seen(&source.reader));
}
