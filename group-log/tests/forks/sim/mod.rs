//! A simulation of one group, its gateways, its clients, the network between them and the cluster, on the shipping rules.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]

pub mod acts;
pub mod client;
pub mod cluster;
pub mod entries;
pub mod explore;
pub mod gateways;
pub mod heal;
pub mod steps;
pub mod world;
