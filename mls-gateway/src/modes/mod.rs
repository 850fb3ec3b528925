//! How each shard can be served right now, and who wants to know.

mod rule;

use std::{collections::BTreeMap, sync::Arc};

use concordat_proto::gateway::v1 as pb;
use group_log::fork;
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

pub use rule::{Mode, next};

use crate::{cluster::QuorumBoard, limits::MODE_TICK, metrics};

impl Mode {
    /// As subscribers see it. The wire has no word for "unavailable": it is a suspicion that lasts.
    pub fn to_wire(self) -> pb::Mode {
        match self {
            Mode::Ordered => pb::Mode::Ordered,
            Mode::Suspect { .. } | Mode::Unavailable => pb::Mode::Suspect,
        }
    }

    fn number_and_name(self) -> (u8, &'static str) {
        match self {
            Mode::Ordered => (1, "ordered"),
            Mode::Suspect { .. } => (2, "suspect"),
            Mode::Unavailable => (3, "unavailable"),
        }
    }
}

/// The name of a DeMLS group's mode, for messages and metrics.
pub fn mode_name(mode: fork::Mode) -> &'static str {
    match mode {
        fork::Mode::Ordered => "ordered",
        fork::Mode::Suspect => "suspect",
        fork::Mode::Forked => "forked",
        fork::Mode::Reconciling => "reconciling",
    }
}

/// A DeMLS group's mode as subscribers see it.
pub fn mode_to_wire(mode: fork::Mode) -> pb::Mode {
    match mode {
        fork::Mode::Ordered => pb::Mode::Ordered,
        fork::Mode::Suspect => pb::Mode::Suspect,
        fork::Mode::Forked => pb::Mode::Forked,
        fork::Mode::Reconciling => pb::Mode::Reconciling,
    }
}

/// The mode of every shard.
pub struct Modes {
    started: Instant,
    shards: Mutex<BTreeMap<u32, watch::Sender<Mode>>>,
}

impl Modes {
    /// No quorum has been heard of yet: every shard is suspect from now on.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { started: Instant::now(), shards: Mutex::default() })
    }

    /// The mode of a shard.
    pub fn of(&self, shard: u32) -> Mode {
        *self.watch(shard).borrow()
    }

    /// The mode of a shard, now and whenever it changes.
    pub fn watch(&self, shard: u32) -> watch::Receiver<Mode> {
        let mut shards = self.shards.lock();
        let since = self.started;
        shards.entry(shard).or_insert_with(|| watch::Sender::new(Mode::Suspect { since })).subscribe()
    }

    /// Keeps the modes in step with what the nodes say about their quorum, for good.
    pub async fn run(self: Arc<Self>, board: Arc<QuorumBoard>) {
        let mut ticks = interval(MODE_TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = ticks.tick().await;
            for shard in board.shards() {
                let _ = self.watch(shard);
            }
            for (&shard, mode) in self.shards.lock().iter() {
                let has_quorum = board.has_quorum(shard, now);
                mode.send_if_modified(|mode| {
                    let new = next(*mode, has_quorum, now);
                    let changed = new != *mode;
                    if changed {
                        let (number, name) = new.number_and_name();
                        tracing::info!(shard, mode = name, "the mode of a shard has changed");
                        metrics::mode(shard, number, name);
                        *mode = new;
                    }
                    changed
                });
            }
        }
    }
}
