//! openraft's own tests for stores, on both media of the log.

use std::sync::Arc;

use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
};
use ordering_service::{
    raft::types::TypeConfig,
    storage::{
        LogStore, StateMachine, Storage,
        log::{memory::MemoryMedium, store::LogPipeline},
    },
};
use tempfile::TempDir;

use crate::support::{SHARD, open};

struct InSegments;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, (TempDir, Storage)> for InSegments {
    async fn build(&self) -> Result<((TempDir, Storage), LogStore, StateMachine), StorageError<TypeConfig>> {
        let directory = tempfile::tempdir().unwrap();
        let storage = open(directory.path());
        let shard = storage.shard(SHARD).unwrap();
        Ok(((directory, storage), shard.log, shard.state_machine))
    }
}

/// The log in memory; the state machine is on RocksDB all the same.
struct InMemory;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, (TempDir, Storage)> for InMemory {
    async fn build(&self) -> Result<((TempDir, Storage), LogStore, StateMachine), StorageError<TypeConfig>> {
        let directory = tempfile::tempdir().unwrap();
        let storage = open(directory.path());
        let pipeline = LogPipeline::start(
            Arc::new(MemoryMedium::new()),
            1024 * 1024,
            Arc::new(|error| panic!("{error}")),
        );
        let log = pipeline.unwrap().log(SHARD).unwrap();
        Ok(((directory, storage.clone()), log, storage.shard(SHARD).unwrap().state_machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openraft_accepts_the_store_in_segments() {
    Suite::test_all(InSegments).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openraft_accepts_the_store_in_memory() {
    Suite::test_all(InMemory).await.unwrap();
}
