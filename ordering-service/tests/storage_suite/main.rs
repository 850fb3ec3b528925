//! The storage against its promises, on real files.
#![allow(clippy::unwrap_used)]

mod corruption;
mod crash;
mod durability;
mod openraft_suite;
mod purge;
mod retention;
mod snapshot;
mod support;
