//! The cluster that agrees on the order of every group's log: Raft over RocksDB.
#![allow(missing_docs)]

pub mod raft;
pub mod storage;
