//! The systems that can do the work, behind one interface.
//!
//! The work: a slot owns a group (a key, a subject) and appends to it what only fits if nobody else has appended since: the epoch in
//! Concordat, the key's modification revision in etcd, the subject's last sequence in JetStream.

mod concordat;
mod etcd;
mod floor;
mod gateway;
mod jetstream;
mod ordering;

use std::{fmt, path::PathBuf};

use bytes::Bytes;
use clap::ValueEnum;
use serde::Serialize;

pub(crate) use self::{
    concordat::Concordat,
    floor::{NodeOptions as FloorNodeOptions, run_node as run_floor_node},
    gateway::{GatewaySlot, Submissions, named},
    ordering::{OrderingSlot, Stream},
};
use self::{etcd::Etcd, floor::Floor, jetstream::JetStream};

/// A system, set up in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum System {
    /// Concordat, straight to the leaders of its shards.
    Concordat,
    /// Concordat, through one gateway.
    ConcordatGateway,
    /// etcd: one transaction an append.
    Etcd,
    /// JetStream, three replicas, synced before it acknowledges.
    Jetstream,
    /// JetStream as it comes: it acknowledges what is not synced. NOT DURABLE.
    JetstreamDefault,
    /// No service: three processes that pass an append on, sync it and answer over gRPC, without agreeing on anything.
    Floor,
}

impl System {
    /// Whether what it acknowledged survives the loss of power of all nodes.
    pub(crate) fn is_durable(self) -> bool {
        self != Self::JetstreamDefault
    }

    /// Whether it is what this repository builds.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Concordat | Self::ConcordatGateway)
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("?", |value| value.get_name()))
    }
}

/// What a system needs to start.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// Data and logs go below here; removed when the system ends.
    pub(crate) data: PathBuf,
    /// etcd's binary, if it is needed.
    pub(crate) etcd: Option<PathBuf>,
    /// The NATS server's binary, if it is needed.
    pub(crate) nats_server: Option<PathBuf>,
    /// Data shards of Concordat.
    pub(crate) data_shards: u32,
}

/// A running system of three nodes. It ends when this is dropped.
pub(crate) enum Running {
    Concordat(Box<Concordat>),
    Etcd(Etcd),
    JetStream(JetStream),
    Floor(Floor),
}

impl Running {
    /// Starts three nodes with empty disks, and returns when they have a leader.
    pub(crate) async fn start(system: System, setup: &Setup) -> anyhow::Result<Self> {
        Ok(match system {
            System::Concordat => Self::Concordat(Box::new(Concordat::start(setup, false).await?)),
            System::ConcordatGateway => Self::Concordat(Box::new(Concordat::start(setup, true).await?)),
            System::Etcd => Self::Etcd(Etcd::start(setup).await?),
            System::Jetstream => Self::JetStream(JetStream::start(setup, true).await?),
            System::JetstreamDefault => Self::JetStream(JetStream::start(setup, false).await?),
            System::Floor => Self::Floor(Floor::start(setup).await?),
        })
    }

    /// Clients, each with a group of its own that nobody has used.
    pub(crate) async fn slots(&self, count: usize) -> anyhow::Result<Vec<Slot>> {
        match self {
            Self::Concordat(it) => it.slots(count).await,
            Self::Etcd(it) => Ok(it.slots(count)),
            Self::JetStream(it) => it.slots(count).await,
            Self::Floor(it) => it.slots(count).await,
        }
    }

    /// The servers' processes.
    pub(crate) fn processes(&self) -> Vec<u32> {
        match self {
            Self::Concordat(it) => it.processes(),
            Self::Etcd(it) => it.processes(),
            Self::JetStream(it) => it.processes(),
            Self::Floor(it) => it.processes(),
        }
    }
}

/// One client with a group of its own.
pub(crate) enum Slot {
    Ordering(OrderingSlot),
    Gateway(GatewaySlot),
    Etcd(etcd::EtcdSlot),
    JetStream(jetstream::JetStreamSlot),
    Floor(floor::Stream),
}

/// What became of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Append {
    /// It is in the log.
    Done,
    /// It was correct, and refused nevertheless: to be tried again.
    Refused,
}

impl Slot {
    /// One attempt to append `payload`.
    pub(crate) async fn append(&mut self, payload: &Bytes) -> anyhow::Result<Append> {
        match self {
            Self::Ordering(slot) => slot.append(payload).await,
            Self::Gateway(slot) => slot.append(payload).await,
            Self::Etcd(slot) => slot.append(payload).await,
            Self::JetStream(slot) => slot.append(payload).await,
            Self::Floor(slot) => slot.append(payload).await,
        }
    }
}
