//! A process that is killed in the middle of its work comes back with everything it said was stored.

use std::{
    env,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use openraft::{
    EntryPayload,
    storage::{RaftLogReader, RaftLogStorage, RaftStateMachine},
};
use ordering_service::storage::Vote;

use crate::support::{SHARD, all, append, apply, blank, commit, create, entry, history, log_id, open};

const CHILD: &str = "CONCORDAT_STORAGE_CRASH_CHILD";
const GROUPS: u64 = 5;

/// What the child does until it is killed: appends and applies a history, and prints the index of each entry once it is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_works_until_it_is_killed() {
    let Some(path) = env::var_os(CHILD) else { return };
    let storage = open(&PathBuf::from(path));
    let shard = storage.shard(SHARD).unwrap();
    let (mut log, mut machine) = (shard.log, shard.state_machine);
    let next = log.get_log_state().await.unwrap().last_log_id.map_or(0, |last| last.index + 1);
    let applied = machine.applied_state().await.unwrap().0.map_or(0, |last| last.index + 1);
    // As openraft does after a restart.
    let again = log.try_get_log_entries(applied..next).await.unwrap();
    apply(&mut machine, again).await;
    log.save_vote(&Vote::new(next + 1, 1)).await.unwrap();
    println!("vote {}", next + 1);
    let mut index = next;
    loop {
        let batch: Vec<_> = (index..index + 7).map(history_entry).collect();
        index += 7;
        append(&mut log, batch.clone()).await.await.unwrap().unwrap();
        println!("stored {}", index - 1);
        log.save_committed(Some(log_id(index - 1))).await.unwrap();
        apply(&mut machine, batch).await;
        println!("applied {}", index - 1);
    }
}

/// The entry that the endless history has at an index.
fn history_entry(index: u64) -> ordering_service::storage::LogEntry {
    let Some(turn) = index.checked_sub(1) else { return blank(0) };
    let group = format!("group {}", turn % GROUPS);
    match turn / GROUPS {
        0 => entry(index, create(&group)),
        round => entry(index, commit(&group, round - 1, 200)),
    }
}

fn spawn(path: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "crash::child_that_works_until_it_is_killed", "--nocapture", "--test-threads=1"])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_stored_survives_a_kill_at_any_moment() {
    let directory = tempfile::tempdir().unwrap();
    let (mut stored, mut vote) = (0, 0);
    for round in 0..8u64 {
        let mut child = spawn(directory.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut left = 3 + round * 11;
        while left > 0 {
            let line = lines.next().expect("the child goes on until it is killed").unwrap();
            // The test harness prints a line of its own in front of the first.
            let words: Vec<_> = line.split_whitespace().rev().take(2).collect();
            let [number, what] = words[..] else { continue };
            match (what, number.parse::<u64>()) {
                ("stored", Ok(index)) => stored = index,
                ("vote", Ok(term)) => vote = term,
                ("applied", Ok(_)) => {}
                _ => continue,
            }
            left -= 1;
        }
        child.kill().unwrap();
        child.wait().unwrap();

        let storage = open(directory.path());
        let shard = storage.shard(SHARD).unwrap();
        let (mut log, mut machine, reader) = (shard.log, shard.state_machine, shard.reader);
        let entries = all(&mut log).await;
        assert!(entries.len() as u64 > stored, "{} entries, but {stored} was stored", entries.len());
        for (index, found) in (0..).zip(&entries) {
            assert_eq!(*found, history_entry(index));
        }
        assert!(log.read_vote().await.unwrap().unwrap().leader_id.term >= vote);
        let committed = log.read_committed().await.unwrap().map_or(0, |committed| committed.index);
        assert!(committed < entries.len() as u64);

        // The state is one that the log leads to, and applying the rest leads where it must.
        let applied = machine.applied_state().await.unwrap().0;
        let next = applied.map_or(0, |last| last.index + 1);
        assert!(next <= entries.len() as u64);
        let last = entries.len() as u64 - 1;
        apply(&mut machine, entries[next as usize..].to_vec()).await;
        for group in 0..GROUPS.min(last) {
            let name = format!("group {group}");
            let expected =
                (0..=last).filter(|index| index.checked_sub(1).is_some_and(|turn| turn % GROUPS == group));
            let seqs = reader.entries(name.as_bytes(), 0, 1000, usize::MAX).unwrap();
            assert_eq!(seqs.len(), expected.count().min(1000));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orderly_stop_needs_no_replay() {
    let directory = tempfile::tempdir().unwrap();
    let entries = history(3, 4, 10);
    let last = entries.len() as u64 - 1;
    {
        let storage = open(directory.path());
        let shard = storage.shard(SHARD).unwrap();
        let (mut log, mut machine) = (shard.log, shard.state_machine);
        append(&mut log, entries.clone()).await.await.unwrap().unwrap();
        log.save_committed(Some(log_id(last))).await.unwrap();
        apply(&mut machine, entries.clone()).await;
    }
    let storage = open(directory.path());
    assert_eq!(storage.shards(), vec![SHARD]);
    let shard = storage.shard(SHARD).unwrap();
    let (mut log, mut machine) = (shard.log, shard.state_machine);
    assert_eq!(machine.applied_state().await.unwrap().0, Some(log_id(last)));
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(last)));
    assert_eq!(all(&mut log).await, entries);
    assert!(matches!(all(&mut log).await[0].payload, EntryPayload::Blank));
}
