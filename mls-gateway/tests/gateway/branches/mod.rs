//! DeMLS groups without a quorum: gateways with disks and links, in front of a cluster that keeps the real rules.

mod healing;
mod lies;
mod members;
mod real_cluster;
mod relay;
mod site;
mod together;
