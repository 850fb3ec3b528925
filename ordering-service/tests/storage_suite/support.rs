//! What the tests of the storage share.

use std::{ops::Range, path::Path, sync::Arc};

use bytes::Bytes;
use concordat_proto::{
    log::v1::{Commit, Content, Create, GroupKind, WelcomeRecipient, content::Content as Kind},
    ordering::v1::{Command, GroupSubmission, command},
};
use openraft::{
    EntryPayload,
    impls::leader_id_adv::LeaderId,
    storage::{IOFlushed, RaftLogReader, RaftLogStorage, RaftStateMachine},
    type_config::{TypeConfigExt, alias::OneshotReceiverOf},
};
use ordering_service::{
    raft::types::{Proposed, TypeConfig},
    storage::{LogEntry, LogId, LogStore, StateMachine, Storage, StorageError, StorageOptions},
};
use parking_lot::Mutex;
use prost::Message;

/// Tells when entries are stored.
pub(crate) type Stored = OneshotReceiverOf<TypeConfig, Result<(), std::io::Error>>;

/// The data shard that most tests use.
pub(crate) const SHARD: u32 = 1;

/// Failures that would have ended the process.
pub(crate) type Fatal = Arc<Mutex<Vec<StorageError>>>;

pub(crate) fn options() -> (StorageOptions, Fatal) {
    let fatal = Fatal::default();
    let seen = fatal.clone();
    let mut options = StorageOptions::new(1, [7; 16]);
    options.on_fatal = Arc::new(move |error| seen.lock().push(error.clone()));
    options.disk_reserve_bytes = 0;
    (options, fatal)
}

pub(crate) fn open(path: &Path) -> Storage {
    try_open(path).unwrap()
}

pub(crate) fn try_open(path: &Path) -> Result<Storage, StorageError> {
    Storage::open(path, options().0)
}

pub(crate) fn log_id(index: u64) -> LogId {
    LogId::new(LeaderId { term: 1, node_id: 1 }, index)
}

pub(crate) fn blank(index: u64) -> LogEntry {
    LogEntry { log_id: log_id(index), payload: EntryPayload::Blank }
}

pub(crate) fn entry(index: u64, command: Bytes) -> LogEntry {
    let payload = EntryPayload::Normal(Proposed { at_ms: 1000 + index, command });
    LogEntry { log_id: log_id(index), payload }
}

/// Entries that carry `size` bytes each.
pub(crate) fn entries(range: Range<u64>, size: usize) -> Vec<LogEntry> {
    range.map(|index| entry(index, vec![index as u8; size].into())).collect()
}

/// Appends entries, and gives what reports that they are stored.
pub(crate) async fn append(log: &mut LogStore, entries: Vec<LogEntry>) -> Stored {
    let (callback, done) = callback();
    log.append(entries, callback).await.unwrap();
    done
}

pub(crate) fn callback() -> (IOFlushed<TypeConfig>, Stored) {
    let (sender, receiver) = TypeConfig::oneshot();
    (IOFlushed::signal(sender), receiver)
}

pub(crate) async fn append_stored(log: &mut LogStore, entries: Vec<LogEntry>) {
    append(log, entries).await.await.unwrap().unwrap();
}

/// Applies entries as a follower does.
pub(crate) async fn apply(machine: &mut StateMachine, entries: Vec<LogEntry>) {
    let committed = futures::stream::iter(entries.into_iter().map(|entry| Ok((entry, None))));
    machine.apply(committed).await.unwrap();
}

/// Copies a data directory as it is at this moment, which is what a crash would leave.
pub(crate) fn crash_copy(from: &Path) -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        for file in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
            let to = to.join(file.file_name());
            if file.file_type().unwrap().is_dir() {
                std::fs::create_dir(&to).unwrap();
                copy(&file.path(), &to);
            } else if file.file_name() != "LOCK" {
                std::fs::copy(file.path(), to).unwrap();
            }
        }
    }
    let directory = tempfile::tempdir().unwrap();
    copy(from, directory.path());
    directory
}

/// All entries that the log holds.
pub(crate) async fn all(log: &mut LogStore) -> Vec<LogEntry> {
    log.try_get_log_entries(0..u64::MAX).await.unwrap()
}

fn group_command(group: &str, epoch: u64, content: Kind) -> Bytes {
    let submission = GroupSubmission {
        group_id: Bytes::copy_from_slice(group.as_bytes()),
        author: Bytes::from_static(b"alice"),
        epoch,
        parent_state_id: Bytes::new(),
        facts: None,
        content: Some(Content { content: Some(content) }),
        members_only: false,
    };
    Command { command: Some(command::Command::Group(submission)) }.encode_to_vec().into()
}

pub(crate) fn create(group: &str) -> Bytes {
    let group_info = Bytes::from_static(b"group info of the first state");
    let create = Create { kind: GroupKind::Mls.into(), policy: None, group_info };
    group_command(group, 0, Kind::Create(create))
}

/// A commit of `epoch` that adds bob.
pub(crate) fn commit(group: &str, epoch: u64, size: usize) -> Bytes {
    let bob = WelcomeRecipient {
        client_id: Bytes::from_static(b"bob"),
        key_package_ref: Bytes::from_static(b"bob's"),
    };
    let commit = Commit {
        message: format!("commit {epoch} {}", "x".repeat(size)).into(),
        welcome: format!("welcome to {}", epoch + 1).into(),
        group_info: format!("group info of {}", epoch + 1).into(),
        recipients: vec![bob],
    };
    group_command(group, epoch, Kind::Commit(commit))
}

/// Creates `groups` groups and makes `commits` commits in each, with a blank entry first. Returns all entries.
pub(crate) fn history(groups: u64, commits: u64, size: usize) -> Vec<LogEntry> {
    let name = |group: u64| format!("group {group}");
    let mut commands: Vec<Bytes> = (0..groups).map(|group| create(&name(group))).collect();
    for epoch in 0..commits {
        commands.extend((0..groups).map(|group| commit(&name(group), epoch, size)));
    }
    let commands = commands.into_iter().zip(1..).map(|(command, index)| entry(index, command));
    std::iter::once(blank(0)).chain(commands).collect()
}
