//! Clusters of real nodes in this process: real sockets, real disks.
// A panic is the report of a test, also in the helpers that tests share.
#![allow(clippy::unwrap_used)]

mod backup;
mod bad_input;
mod branches;
mod joining;
mod membership;
mod reads;
mod retention;
mod services;
mod submit;
mod subscribe;
mod support;
