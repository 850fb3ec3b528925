//! DeMLS groups without a quorum: gateways with disks and links, in front of a cluster that keeps the real rules.

mod healing;
mod leaving;
mod lies;
mod members;
mod real_cluster;
mod registration;
mod relay;
mod sequencer;
mod site;
mod together;
