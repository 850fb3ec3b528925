//! The gateway: what messengers talk to.
//!
//! A call is read and authenticated ([`api`], [`identity`]), metered ([`quota`]) and let in if the group is the caller's ([`access`]), a
//! public handshake is validated ([`mls`]), a submission is brought to the
//! leader of its group's shard ([`cluster`]), and what the cluster accepts is fanned out to every subscriber ([`fanout`]). Of `mls`
//! groups the gateway keeps nothing that it could not read again from the cluster; DeMLS groups it carries on without a quorum ([`demls`]),
//! together with other gateways ([`relay`]).

pub mod access;
pub mod api;
pub mod cli;
pub mod cluster;
pub mod demls;
pub mod dev;
pub mod error;
pub mod fanout;
pub mod identity;
pub mod limits;
pub mod mesh;
pub mod metrics;
pub mod mls;
pub mod modes;
pub mod quota;
pub mod relay;
pub mod secured;
pub mod server;
pub mod settings;
pub mod wire;
