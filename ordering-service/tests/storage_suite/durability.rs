//! "Stored" is said after the sync and never before; after a failed sync nothing is said to be stored any more; a full disk
//! refuses writes and keeps what is there readable.

use std::{
    io,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use openraft::storage::{RaftLogReader, RaftLogStorage};
use ordering_service::{
    raft::types::ShardId,
    storage::{
        LogEntry, Storage, StorageError, Vote,
        log::medium::{Change, LogHead, Medium, Pin, Reclaim},
        space::FreeSpace,
    },
};
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::support::{
    Fatal, SHARD, all, append, append_stored, apply, create, entries, entry, log_id, open, options,
};

/// How long something must not happen to count as not happening.
const QUIET: Duration = Duration::from_millis(50);

/// A medium whose syncs take place, or fail, when the test says so.
struct Gated {
    inner: Arc<dyn Medium>,
    syncs: Mutex<mpsc::Receiver<Result<(), StorageError>>>,
    synced: Arc<AtomicU64>,
}

impl Medium for Gated {
    fn open_log(&self, shard: ShardId) -> Result<LogHead, StorageError> {
        self.inner.open_log(shard)
    }

    fn write(&self, changes: &[(ShardId, Change)]) -> Result<(), StorageError> {
        self.inner.write(changes)
    }

    fn sync(&self) -> Result<(), StorageError> {
        // A closed gate stays open, so that the storage can be closed.
        if let Ok(result) = self.syncs.lock().recv() {
            result?;
        }
        self.inner.sync()?;
        self.synced.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn read(
        &self,
        shard: ShardId,
        range: Range<u64>,
        max_bytes: usize,
    ) -> Result<Vec<LogEntry>, StorageError> {
        self.inner.read(shard, range, max_bytes)
    }

    fn settle(&self) -> Result<(), StorageError> {
        self.inner.settle()
    }

    fn kept(&self, shard: ShardId) -> Result<Vec<u64>, StorageError> {
        self.inner.kept(shard)
    }

    fn forget(&self, shard: ShardId, indexes: &[u64]) -> Result<(), StorageError> {
        self.inner.forget(shard, indexes)
    }

    fn reclaim(&self) -> Result<Reclaim, StorageError> {
        self.inner.reclaim()
    }

    fn pin(&self) -> Pin {
        self.inner.pin()
    }
}

struct Rig {
    storage: Storage,
    gate: mpsc::Sender<Result<(), StorageError>>,
    synced: Arc<AtomicU64>,
    fatal: Fatal,
    _directory: TempDir,
}

fn rig() -> Rig {
    let directory = tempfile::tempdir().unwrap();
    let (mut options, fatal) = options();
    let (gate, syncs) = mpsc::channel();
    let synced = Arc::new(AtomicU64::new(0));
    let of_medium = synced.clone();
    options.wrap_medium =
        Box::new(move |inner| Arc::new(Gated { inner, syncs: Mutex::new(syncs), synced: of_medium }));
    let storage = Storage::open(directory.path(), options).unwrap();
    Rig { storage, gate, synced, fatal, _directory: directory }
}

fn broken() -> StorageError {
    StorageError::Io { what: "syncing the log".into(), detail: "the disk is gone".into() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_are_readable_at_once_and_reported_only_after_their_sync() {
    let rig = rig();
    let mut log = rig.storage.shard(SHARD).unwrap().log;
    let mut first = append(&mut log, entries(0..3, 10)).await;
    assert_eq!(all(&mut log).await, entries(0..3, 10));
    assert!(tokio::time::timeout(QUIET, &mut first).await.is_err(), "reported before the sync");

    // What comes during a sync goes with the next one, and is not reported by this one.
    let mut second = append(&mut log, entries(3..5, 10)).await;
    rig.gate.send(Ok(())).unwrap();
    first.await.unwrap().unwrap();
    assert_eq!(rig.synced.load(Ordering::SeqCst), 1);
    assert!(tokio::time::timeout(QUIET, &mut second).await.is_err(), "reported by the sync before its own");
    rig.gate.send(Ok(())).unwrap();
    second.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sync_serves_all_shards_that_wait() {
    let rig = rig();
    let mut logs: Vec<_> = (0..4).map(|shard| rig.storage.shard(shard).unwrap().log).collect();
    let mut opening = append(&mut logs[0], entries(0..1, 10)).await;
    assert!(tokio::time::timeout(QUIET, &mut opening).await.is_err());
    let mut waiting = Vec::new();
    for (shard, log) in logs.iter_mut().enumerate() {
        let begin = u64::from(shard == 0);
        waiting.push(append(log, entries(begin..begin + 5, 10)).await);
    }
    rig.gate.send(Ok(())).unwrap();
    opening.await.unwrap().unwrap();
    rig.gate.send(Ok(())).unwrap();
    for stored in waiting {
        stored.await.unwrap().unwrap();
    }
    assert_eq!(rig.synced.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vote_is_durable_when_saving_it_returns() {
    let rig = rig();
    let mut log = rig.storage.shard(SHARD).unwrap().log;
    let vote = Vote::new(3, 1);
    let mut saving = log.clone();
    let mut saved = tokio::spawn(async move { saving.save_vote(&vote).await });
    assert!(tokio::time::timeout(QUIET, &mut saved).await.is_err(), "saved before the sync");
    assert_eq!(log.read_vote().await.unwrap(), None);
    rig.gate.send(Ok(())).unwrap();
    saved.await.unwrap().unwrap();
    assert_eq!(log.read_vote().await.unwrap(), Some(vote));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_are_applied_only_once_they_are_stored() {
    let rig = rig();
    let shard = rig.storage.shard(SHARD).unwrap();
    let (mut log, mut machine, reader) = (shard.log, shard.state_machine, shard.reader);
    let entry = entry(0, create("group"));
    let stored = append(&mut log, vec![entry.clone()]).await;
    let mut applying = tokio::spawn(async move { apply(&mut machine, vec![entry]).await });
    assert!(tokio::time::timeout(QUIET, &mut applying).await.is_err(), "applied before the sync");
    assert_eq!(reader.head(b"group").unwrap(), None);
    rig.gate.send(Ok(())).unwrap();
    stored.await.unwrap().unwrap();
    applying.await.unwrap();
    assert_eq!(reader.head(b"group").unwrap().unwrap().seq, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_truncation_leaves_is_stored_with_it() {
    let rig = rig();
    let mut log = rig.storage.shard(SHARD).unwrap().log;
    let stored = append(&mut log, entries(0..8, 10)).await;
    log.truncate_after(Some(log_id(4))).await.unwrap();
    let waiter = log.clone();
    let mut waiting = tokio::spawn(async move { waiter.wait_stored(4).await.unwrap() });
    assert!(tokio::time::timeout(QUIET, &mut waiting).await.is_err(), "stored before the sync");
    // One of the two syncs may carry both changes.
    rig.gate.send(Ok(())).unwrap();
    rig.gate.send(Ok(())).unwrap();
    stored.await.unwrap().unwrap();
    waiting.await.unwrap();
    assert_eq!(all(&mut log).await, entries(0..5, 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_is_reported_to_everybody_and_nothing_is_stored_after_it() {
    let rig = rig();
    let mut log = rig.storage.shard(SHARD).unwrap().log;
    let mut other = rig.storage.shard(2).unwrap().log;
    let first = append(&mut log, entries(0..3, 10)).await;
    let second = append(&mut other, entries(0..3, 10)).await;
    rig.gate.send(Err(broken())).unwrap();
    // Were a second sync tried, it would succeed.
    rig.gate.send(Ok(())).unwrap();
    rig.gate.send(Ok(())).unwrap();
    assert!(first.await.unwrap().is_err());
    assert!(second.await.unwrap().is_err());
    assert_eq!(rig.synced.load(Ordering::SeqCst), 0);
    assert_eq!(*rig.fatal.lock(), vec![broken()]);
    assert_eq!(rig.storage.failure(), Some(broken()));
    assert!(matches!(rig.storage.writable(), Err(StorageError::Stopped(_))));
    assert!(log.save_vote(&Vote::new(9, 1)).await.is_err());
    let (callback, told) = crate::support::callback();
    assert!(log.append(entries(3..4, 10), callback).await.is_err());
    assert!(told.await.unwrap().is_err());
    assert_eq!(rig.synced.load(Ordering::SeqCst), 0);
}

struct Tank(Arc<AtomicU64>);

impl FreeSpace for Tank {
    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.0.load(Ordering::SeqCst))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_keeps_reads_and_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let free = Arc::new(AtomicU64::new(5000));
    let (mut options, fatal) = options();
    options.disk_reserve_bytes = 1000;
    options.free_space = Some(Box::new(Tank(free.clone())));
    let storage = Storage::open(directory.path(), options).unwrap();
    let mut log = storage.shard(SHARD).unwrap().log;
    append_stored(&mut log, entries(0..3, 10)).await;
    assert_eq!(storage.writable(), Ok(()));

    let until = |wanted: Result<(), StorageError>| {
        let storage = storage.clone();
        async move {
            while storage.writable() != wanted {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    };
    let deadline = Duration::from_secs(20);
    free.store(999, Ordering::SeqCst);
    let full = Err(StorageError::DiskFull { free: 999, reserve: 1000 });
    tokio::time::timeout(deadline, until(full)).await.expect("writes are refused");
    assert_eq!(all(&mut log).await.len(), 3);
    // What had begun is finished: that is what the reserve is for.
    append_stored(&mut log, entries(3..4, 10)).await;

    free.store(1000, Ordering::SeqCst);
    tokio::time::timeout(deadline, until(Ok(()))).await.expect("writes are accepted again");
    assert!(fatal.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_up_during_a_write_stops_writes_and_keeps_reads() {
    let rig = rig();
    let mut log = rig.storage.shard(SHARD).unwrap().log;
    let stored = append(&mut log, entries(0..3, 10)).await;
    rig.gate.send(Ok(())).unwrap();
    stored.await.unwrap().unwrap();
    let lost = append(&mut log, entries(3..4, 10)).await;
    rig.gate.send(Err(StorageError::DiskExhausted { detail: "No space left on device".into() })).unwrap();
    let error = lost.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("restart the node"), "{error}");
    assert!(rig.fatal.lock().is_empty(), "a full disk does not end the process");
    assert!(rig.storage.writable().is_err());
    assert_eq!(log.try_get_log_entries(0..3).await.unwrap(), entries(0..3, 10));
}

#[test]
fn another_nodes_disk_and_another_cluster_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let storage = open(directory.path());
    let marker = storage.marker();
    assert_eq!((marker.node_id, marker.disk_id, marker.cluster), (1, [7; 16], None));
    storage.set_cluster("one", 2).unwrap();
    storage.set_cluster("one", 2).unwrap();
    assert!(matches!(storage.set_cluster("two", 2), Err(StorageError::ForeignCluster { .. })));
    assert!(matches!(storage.set_cluster("one", 3), Err(StorageError::ForeignCluster { .. })));
    drop(storage);

    let (mut other, _) = options();
    other.node_id = 2;
    let error = Storage::open(directory.path(), other).err().unwrap();
    let text = error.to_string();
    assert!(matches!(error, StorageError::ForeignNode { found: 1, configured: 2, .. }), "{text}");
    assert!(text.contains("node 1") && text.contains("node 2") && text.contains("data directory"), "{text}");

    let (mut again, _) = options();
    again.new_disk_id = [9; 16];
    let marker = Storage::open(directory.path(), again).unwrap().marker();
    assert_eq!(marker.disk_id, [7; 16]);
    assert_eq!(marker.cluster.unwrap().cluster_id, "one");
}

#[test]
fn a_directory_is_used_by_one_process_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let _open = open(directory.path());
    let error = crate::support::try_open(directory.path()).err().unwrap();
    assert!(matches!(error, StorageError::Invalid(_)), "{error}");
    assert!(error.to_string().contains("another process"), "{error}");
}
