//! DeMLS groups through forks, each rule of a client as a story: real MLS, the shipping fork rules, a network that is cut by hand.

#![allow(clippy::unwrap_used)] // A panic is the report.

mod deletion;
mod following;
mod repairs;
mod running;
mod story;
#[path = "../support/mod.rs"]
mod support;
