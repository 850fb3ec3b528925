//! The state machine of a shard: heads and references of groups, inboxes, and in the directory shard the places of groups and
//! their members' KeyPackages.

mod apply;
mod batch;
mod branches;
mod branches_reader;
mod directory;
mod epochs;
mod forks;
mod groups;
mod heads;
mod inbox;
mod key_packages;
pub(crate) mod keys;
pub(crate) mod machine;
mod observer;
mod payload;
pub(crate) mod place;
mod prune;
mod pruned_reader;
mod reader;
pub(crate) mod rows;
pub(crate) mod shard;
#[cfg(test)]
mod tests;

pub use branches_reader::{KnownGateway, OpenCollection};
pub use machine::{SnapshotBuilder, StateMachine};
pub use observer::{Advanced, ApplyObserver, NoObserver};
pub use reader::{GroupInfo, KeyPackageStatus, ShardReader};
