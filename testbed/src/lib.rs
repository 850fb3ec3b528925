//! A real Concordat cluster on loopback: real processes, real sockets, real disks, for tests, the demo and benchmarks.
//!
//! - [`Cluster`] starts ordering nodes and gateways, bootstraps them, and kills, freezes, restarts and adds them.
//! - [`ordering`] talks straight to the cluster; [`load`] keeps it busy and records everything that clients were told.
//! - [`check`] holds a [`history::History`] against the final logs: linearizability of every group's log, in O(n log n).
//! - [`disk_faults`] makes the disk of one process fail or fill up, without privileges.

mod binaries;
pub mod check;
pub mod cluster;
pub mod disk_faults;
pub mod history;
mod http;
pub mod junk;
pub mod limits;
pub mod load;
pub mod mls_bytes;
pub mod ordering;
mod ports;
mod process;
pub mod raw;
mod scrape;
mod scratch;
pub mod secrets;
pub mod seed;
pub mod wait;

pub use binaries::{BinaryError, find_binary};
pub use cluster::{Cluster, ClusterOptions, Placement};
pub use ports::Ports;
pub use process::{Service, ServiceError, Signal};
pub use scrape::Metrics;
