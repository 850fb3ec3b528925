//! The cluster that agrees on the order of every group's log: Raft over RocksDB.
//!
//! A process is one [`server::Running`] node. [`raft`] replicates, [`storage`] keeps, [`api`] serves gateways, operators and peers,
//! [`cluster`] forms clusters and changes them, [`placement`] moves leaders to where commits come from, [`quorum`] tells whether a
//! quorum answers. [`dev`] runs several nodes in one process.

pub mod api;
pub mod backup;
pub mod branches;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod dev;
pub mod error;
pub mod hub;
pub mod limits;
pub mod metrics;
pub mod node;
pub mod placement;
pub mod quorum;
pub mod raft;
pub mod retention;
pub mod server;
pub mod settings;
pub mod storage;
