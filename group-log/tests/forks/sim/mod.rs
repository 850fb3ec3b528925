//! A simulation of one group, its gateways, its clients, the network between them and the cluster, on the shipping rules.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]

pub mod acts;
pub mod client;
pub mod explore;
pub mod heal;
pub mod world;
