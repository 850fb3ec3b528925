//! What a node serves: gateways, operators, and its peers.

pub mod admin;
pub mod find;
pub mod linearize;
pub mod ordering;
pub mod peers;
pub mod read;
pub mod submit;
pub mod subscribe;
pub mod watch;
