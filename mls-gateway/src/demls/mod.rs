//! DeMLS groups, which a gateway carries on without a quorum.
//!
//! Of every DeMLS group that its clients use a gateway keeps its own copy of the log and its branches ([`store`]), knows what commits do
//! to the membership ([`states`]), and when it may decide what ([`keeper`]). It tells the cluster of everything that the log lacks.
//! The rules are `group_log::fork`.

pub mod branch;
pub mod group;
pub mod keeper;
pub mod leaves;
pub mod members;
pub mod path;
pub mod registry;
pub mod sequence;
pub mod states;
pub mod store;
pub mod subscription;
pub mod times;

mod duties;
mod leaving;
mod log;
mod usage;

pub use group::{Group, GroupError, Keeping};
pub use log::read;
pub use registry::Registry;
pub use times::Times;
pub use usage::Watching;
