//! What retention gives up leaves the disk, and no crash in between leaves a hole.

use std::path::Path;

use bytes::Bytes;
use concordat_proto::ordering::v1::{Command, PruneGroup, command};
use openraft::storage::{RaftLogStorage, RaftSnapshotBuilder, RaftStateMachine};
use ordering_service::storage::{LogEntry, Shard, Storage, StorageError};
use prost::Message;

use crate::support::{SHARD, append_stored, apply, crash_copy, entry, history, log_id, open};

const GROUP: &[u8] = b"group 0";

fn prune(index: u64, upto_seq: u64) -> LogEntry {
    let group_id = Bytes::from_static(GROUP);
    let prune = command::Command::PruneGroup(PruneGroup { group_id, upto_seq });
    entry(index, Command { command: Some(prune) }.encode_to_vec().into())
}

async fn add(shard: &mut Shard, entries: Vec<LogEntry>) {
    append_stored(&mut shard.log, entries.clone()).await;
    apply(&mut shard.state_machine, entries).await;
}

/// Bytes of the files in a folder and in those below it.
fn size(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).unwrap().filter_map(Result::ok);
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size(&entry.path()),
        Ok(metadata) => metadata.len(),
        // Files come and go while one looks.
        Err(_) => 0,
    };
    entries.map(of).sum()
}

fn rows_on_disk(path: &Path, family: &str) -> usize {
    let path = path.join("db");
    let options = rocksdb::Options::default();
    let families = rocksdb::DB::list_cf(&options, &path).unwrap();
    let database = rocksdb::DB::open_cf_for_read_only(&options, &path, families, false).unwrap();
    database.iterator_cf(database.cf_handle(family).unwrap(), rocksdb::IteratorMode::Start).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_given_up_leaves_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let history = history(1, 300, 300_000);
    let last = history.len() as u64 - 1;
    let storage = open(directory.path());
    let mut shard = storage.shard(SHARD).unwrap();
    for part in history.chunks(20) {
        add(&mut shard, part.to_vec()).await;
    }
    shard.log.purge(log_id(last)).await.unwrap();
    storage.wait_swept();
    let before = size(directory.path());
    assert!(before > 80_000_000, "{before} bytes");

    add(&mut shard, vec![prune(last + 1, 290)]).await;
    storage.sweep(SHARD).unwrap();
    storage.wait_swept();
    let after = size(directory.path());
    assert!(after < before / 4, "{before} bytes before, {after} after");
    assert_eq!(shard.reader.entries(GROUP, 290, 100, usize::MAX).unwrap().len(), 11);
    assert_eq!(storage.kept_rows(SHARD).unwrap().len(), 12, "eleven entries, and the command");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_with_a_snapshot_can_be_given_up_too() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let history = history(1, 30, 100);
    let last = history.len() as u64 - 1;
    let source = open(from.path());
    let mut sender = source.shard(SHARD).unwrap();
    add(&mut sender, history).await;
    let snapshot = sender.state_machine.get_current_snapshot().await.unwrap().unwrap();
    let target = open(to.path());
    let mut receiver = target.receive_snapshot(SHARD).unwrap();
    let mut chunks = snapshot.snapshot.chunks();
    while let Some(chunk) = futures::StreamExt::next(&mut chunks).await {
        receiver.write(chunk.unwrap()).unwrap();
    }
    let (meta, handle) = receiver.finish().unwrap();
    let mut shard = target.shard(SHARD).unwrap();
    shard.state_machine.install_snapshot(&meta, handle).await.unwrap();
    shard.log.purge(log_id(last)).await.unwrap();
    target.wait_swept();

    let tail = vec![prune(last + 1, 20)];
    append_stored(&mut shard.log, tail.clone()).await;
    apply(&mut shard.state_machine, tail).await;
    target.sweep(SHARD).unwrap();
    target.wait_swept();
    assert_eq!(shard.reader.entries(GROUP, 20, 100, usize::MAX).unwrap().len(), 11);
    drop((shard, target));
    assert_eq!(rows_on_disk(to.path(), &format!("base.{SHARD}.1")), 11);
}

fn readable(storage: &Storage) -> Result<usize, StorageError> {
    let reader = storage.shard(SHARD)?.reader;
    let after = reader.pruned(GROUP)?.seq;
    Ok(reader.entries(GROUP, after, 1000, usize::MAX)?.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_after_any_step_leaves_a_log_without_a_hole() {
    let directory = tempfile::tempdir().unwrap();
    let history = history(1, 50, 100);
    let last = history.len() as u64 - 1;
    let storage = open(directory.path());
    let mut shard = storage.shard(SHARD).unwrap();
    add(&mut shard, history).await;
    shard.state_machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    shard.log.purge(log_id(last)).await.unwrap();
    storage.wait_swept();
    let command = prune(last + 1, 40);
    append_stored(&mut shard.log, vec![command.clone()]).await;
    let stored = crash_copy(directory.path());
    apply(&mut shard.state_machine, vec![command.clone()]).await;
    let applied = crash_copy(directory.path());
    storage.sweep(SHARD).unwrap();
    storage.wait_swept();
    let swept = crash_copy(directory.path());

    for (crash, name) in [(stored, "stored"), (applied, "applied"), (swept, "swept")] {
        let storage = open(crash.path());
        let mut shard = storage.shard(SHARD).unwrap();
        let applied = shard.state_machine.applied_state().await.unwrap().0;
        assert_eq!(
            readable(&storage).unwrap(),
            if applied == Some(log_id(last)) { 51 } else { 11 },
            "{name}"
        );
        // What was not durable yet is applied again.
        if applied == Some(log_id(last)) {
            apply(&mut shard.state_machine, vec![command.clone()]).await;
        }
        storage.sweep(SHARD).unwrap();
        storage.wait_swept();
        assert_eq!(readable(&storage).unwrap(), 11, "{name}");
        assert_eq!(storage.kept_rows(SHARD).unwrap().len(), 12, "{name}");
    }
}
