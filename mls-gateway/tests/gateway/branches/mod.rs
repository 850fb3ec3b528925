//! DeMLS groups without a quorum: gateways with disks and links, in front of a cluster that keeps the real rules.

mod healing;
mod relay;
mod site;
mod together;
