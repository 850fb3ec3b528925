//! The state machine against its promises.

mod against_memory;
mod batching;
mod directory;
mod forks;
mod gap;
mod groups;
mod heads;
mod inbox;
mod key_packages;
mod pruning;
mod turns;

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use concordat_proto::{
    log::v1::{
        Application, Commit, Content, Create, GroupKind, Policy, PolicyChange, Proposal, Reason, Refused,
        WelcomeRecipient, content::Content as Kind,
    },
    ordering::v1::{Command, GroupSubmission, Outcome, command::Command as Cmd, outcome::Outcome as Answer},
};
use futures::{StreamExt, executor::block_on};
use openraft::{EntryPayload, impls::leader_id_adv::LeaderId};
use parking_lot::Mutex;
use prost::Message;
use tempfile::TempDir;

use super::{
    apply::{Committed, apply},
    observer::{Advanced, ApplyObserver},
    reader::ShardReader,
    shard::ShardState,
};
use crate::{
    raft::types::{Proposed, ShardId},
    storage::{LogEntry, LogId, SnapshotHandle, Storage, StorageOptions, log::medium::Change},
};

/// What an observer was told: up to which index, and what moved.
type Told = Arc<Mutex<Vec<(u64, Vec<Advanced>)>>>;

struct Recorder(Told);

impl ApplyObserver for Recorder {
    fn applied(&self, _shard: ShardId, last_applied: u64, advanced: &[Advanced]) {
        self.0.lock().push((last_applied, advanced.to_vec()));
    }

    fn installed(&self, _shard: ShardId, _last_applied: u64) {}
}

/// A shard whose committed commands come from the test.
struct Machine {
    state: Arc<ShardState>,
    reader: ShardReader,
    storage: Storage,
    told: Told,
    next: u64,
    /// The leader's wall clock.
    at_ms: u64,
    directory: Option<TempDir>,
}

impl Machine {
    fn new(shard: ShardId) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let machine = Machine::open(shard, directory.path());
        Machine { directory: Some(directory), ..machine }
    }

    fn open(shard: ShardId, path: &Path) -> Self {
        let told = Told::default();
        let mut options = StorageOptions::new(1, [1; 16]);
        options.observer = Arc::new(Recorder(told.clone()));
        let storage = Storage::open(path, options).unwrap();
        let state = storage.0.state(shard).unwrap();
        let reader = storage.shard(shard).unwrap().reader;
        let next = state.position().next_index();
        Machine { state, reader, storage, told, next, at_ms: 7, directory: None }
    }

    /// Closes the storage and opens it again.
    fn restart(mut self) -> Self {
        let directory = self.directory.take().unwrap();
        let shard = self.state.shard;
        drop(self);
        let machine = Machine::open(shard, directory.path());
        Machine { directory: Some(directory), ..machine }
    }

    /// Applies commands in one batch. Their payloads are rows of the log, as they are in a node.
    fn apply(&mut self, commands: impl IntoIterator<Item = Bytes>) -> Vec<Answer> {
        let at_ms = self.at_ms;
        let entries: Vec<LogEntry> = commands
            .into_iter()
            .map(|command| {
                let log_id = LogId::new(LeaderId { term: 1, node_id: 1 }, self.next);
                self.next += 1;
                LogEntry { log_id, payload: EntryPayload::Normal(Proposed { at_ms, command }) }
            })
            .collect();
        // Written and not synced: these tests do not crash.
        let stored = (self.state.shard, Change::Append(entries.clone()));
        self.storage.0.medium.write(&[stored]).unwrap();
        let committed: Vec<_> = entries.into_iter().map(|entry| Committed { entry, wanted: true }).collect();
        let outcomes = apply(&self.state, &committed).unwrap();
        outcomes.into_iter().map(|Outcome { outcome }| outcome.unwrap()).collect()
    }

    fn apply_one(&mut self, command: Bytes) -> Answer {
        self.apply([command]).remove(0)
    }

    /// Another machine that gets this one's snapshot.
    fn copy_by_snapshot(&self) -> Copied {
        let handle = SnapshotHandle::of_state(self.state.clone(), self.storage.0.clone());
        let chunks: Vec<Bytes> = block_on(handle.chunks().map(Result::unwrap).collect());
        let copy = Machine::new(self.state.shard);
        let mut receiver = copy.storage.receive_snapshot(self.state.shard).unwrap();
        chunks.iter().for_each(|chunk| receiver.write(chunk.clone()).unwrap());
        let (meta, received) = receiver.finish().unwrap();
        block_on(received.install(&meta, &copy.state)).unwrap();
        let bytes = chunks.iter().map(Bytes::len).sum();
        Copied { machine: Machine { next: self.next, ..copy }, bytes }
    }

    /// All rows of the state.
    fn dump(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let rows = self.state.rows().unwrap();
        let mut all = Vec::new();
        rows.scan(&[], vec![0xff; 8], usize::MAX, |key, value| {
            all.push((key.to_vec(), value.to_vec()));
            Ok(true)
        })
        .unwrap();
        all
    }
}

/// What a snapshot made, and how long it was.
struct Copied {
    machine: Machine,
    bytes: usize,
}

fn encode(command: Cmd) -> Bytes {
    Command { command: Some(command) }.encode_to_vec().into()
}

fn submission(group: &str, epoch: u64, content: Kind) -> Bytes {
    encode(Cmd::Group(GroupSubmission {
        group_id: Bytes::copy_from_slice(group.as_bytes()),
        author: Bytes::from_static(b"alice"),
        epoch,
        parent_state_id: Bytes::new(),
        facts: None,
        content: Some(Content { content: Some(content) }),
        members_only: false,
    }))
}

fn create(group: &str) -> Bytes {
    let group_info = Bytes::from_static(b"first group info");
    submission(group, 0, Kind::Create(Create { kind: GroupKind::Mls.into(), policy: None, group_info }))
}

fn commit(group: &str, epoch: u64, text: &str, added: &[&str]) -> Bytes {
    let recipients = added.iter().map(|client| WelcomeRecipient {
        client_id: Bytes::copy_from_slice(client.as_bytes()),
        key_package_ref: Bytes::from(format!("package of {client}")),
    });
    let commit = Commit {
        message: Bytes::copy_from_slice(text.as_bytes()),
        welcome: Bytes::from(format!("welcome of {text}")),
        group_info: Bytes::from(format!("group info of {text}")),
        recipients: recipients.collect(),
    };
    submission(group, epoch, Kind::Commit(commit))
}

fn message(group: &str, epoch: u64, text: &str) -> Bytes {
    submission(
        group,
        epoch,
        Kind::Application(Application { message: Bytes::copy_from_slice(text.as_bytes()) }),
    )
}

fn proposal(group: &str, epoch: u64, text: &str) -> Bytes {
    submission(group, epoch, Kind::Proposal(Proposal { message: Bytes::copy_from_slice(text.as_bytes()) }))
}

fn policy(group: &str, epoch: u64, past_epochs: u32) -> Bytes {
    let policy = Some(Policy { past_epochs: Some(past_epochs), ..Policy::default() });
    submission(group, epoch, Kind::PolicyChange(PolicyChange { policy }))
}

fn reason(answer: &Answer) -> Option<Reason> {
    match answer {
        Answer::Refused(Refused { reason, .. }) => Some(Reason::try_from(*reason).unwrap()),
        _ => None,
    }
}
