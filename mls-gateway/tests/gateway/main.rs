//! Gateways as their users meet them: real MLS groups, through real gateways, over real sockets.
#![allow(unreachable_pub, reason = "modules of one test program")]
#![allow(clippy::unwrap_used, reason = "a panic is the report")]

mod bad_input;
mod branches;
mod decoders;
mod dimls;
mod faults;
mod groups;
mod key_packages;
mod members;
mod quotas;
mod server;
mod subscribe;
mod support;
mod validation;
mod welcomes;
