//! Purging keeps what groups refer to, removes the rest, and never gets ahead of what is durable.

use openraft::{
    EntryPayload,
    storage::{RaftLogReader, RaftLogStorage, RaftSnapshotBuilder, RaftStateMachine},
};

use crate::support::{
    SHARD, all, append_stored, apply, blank, commit, crash_copy, create, entry, log_id, open,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purging_keeps_what_groups_refer_to_and_removes_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let history = vec![
        blank(0),
        entry(1, create("group")),
        entry(2, commit("group", 0, 10)),
        // Superseded, refused, not decodable: in the log, but in no group.
        entry(3, commit("group", 0, 20)),
        entry(4, commit("nowhere", 0, 10)),
        entry(5, b"\xff\xff\xff"[..].into()),
        entry(6, commit("group", 1, 10)),
        blank(7),
        entry(8, commit("group", 2, 10)),
    ];
    let before = {
        let storage = open(directory.path());
        let shard = storage.shard(SHARD).unwrap();
        let (mut log, mut machine) = (shard.log, shard.state_machine);
        append_stored(&mut log, history.clone()).await;
        apply(&mut machine, history.clone()).await;
        let before = shard.reader.entries(b"group", 0, 100, usize::MAX).unwrap();
        assert_eq!(before.len(), 4);
        machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
        log.purge(log_id(7)).await.unwrap();
        assert_eq!(all(&mut log).await, history[8..]);
        storage.wait_swept();
        assert_eq!(shard.reader.entries(b"group", 0, 100, usize::MAX).unwrap(), before);
        before
    };

    let storage = open(directory.path());
    let shard = storage.shard(SHARD).unwrap();
    let mut log = shard.log;
    let state = log.get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(7)), Some(log_id(8))));
    assert_eq!(all(&mut log).await, history[8..]);
    assert_eq!(shard.reader.entries(b"group", 0, 100, usize::MAX).unwrap(), before);
    assert_eq!(storage.kept_rows(SHARD).unwrap(), [1, 2, 6, 8]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_makes_the_state_durable_first() {
    let directory = tempfile::tempdir().unwrap();
    let history = crate::support::history(3, 5, 50);
    let last = history.len() as u64 - 1;
    let storage = open(directory.path());
    let shard = storage.shard(SHARD).unwrap();
    let (mut log, mut machine) = (shard.log, shard.state_machine);
    append_stored(&mut log, history.clone()).await;
    apply(&mut machine, history).await;
    log.purge(log_id(last)).await.unwrap();
    storage.wait_swept();

    // What a crash at this moment would leave.
    let copy = crash_copy(directory.path());
    let after = open(copy.path());
    let shard = after.shard(SHARD).unwrap();
    let (mut log, mut machine) = (shard.log, shard.state_machine);
    assert_eq!(log.get_log_state().await.unwrap().last_purged_log_id, Some(log_id(last)));
    assert_eq!(machine.applied_state().await.unwrap().0, Some(log_id(last)));
    assert_eq!(shard.reader.entries(b"group 1", 0, 100, usize::MAX).unwrap().len(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncated_entries_give_way_to_others_at_their_place() {
    let directory = tempfile::tempdir().unwrap();
    let other = |index| entry(index, format!("other {index}").into());
    {
        let storage = open(directory.path());
        let mut log = storage.shard(SHARD).unwrap().log;
        append_stored(&mut log, crate::support::entries(0..10, 20)).await;
        log.truncate_after(Some(log_id(3))).await.unwrap();
        assert_eq!(all(&mut log).await.len(), 4);
        append_stored(&mut log, vec![other(4), other(5)]).await;
        let found = all(&mut log).await;
        assert_eq!((found.len(), &found[4], &found[5]), (6, &other(4), &other(5)));
    }
    let storage = open(directory.path());
    let mut log = storage.shard(SHARD).unwrap().log;
    let found = all(&mut log).await;
    assert_eq!((found.len(), &found[4], &found[5]), (6, &other(4), &other(5)));
    assert!(matches!(found[0].payload, EntryPayload::Normal(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_cache_changes_nothing_but_where_entries_come_from() {
    let directory = tempfile::tempdir().unwrap();
    let (mut options, _) = crate::support::options();
    options.log_cache_bytes = 4000;
    let storage = ordering_service::storage::Storage::open(directory.path(), options).unwrap();
    let mut logs = [storage.shard(1).unwrap().log, storage.shard(2).unwrap().log];
    for begin in (0..200).step_by(10) {
        for log in &mut logs {
            append_stored(log, crate::support::entries(begin..begin + 10, 100)).await;
        }
    }
    for log in &mut logs {
        assert_eq!(all(log).await, crate::support::entries(0..200, 100));
        assert_eq!(log.try_get_log_entries(50..=60).await.unwrap(), crate::support::entries(50..61, 100));
        let page = log.limited_get_log_entries(0, 200).await.unwrap();
        assert_eq!(page, crate::support::entries(0..page.len() as u64, 100));
        assert!(!page.is_empty());
    }
}
