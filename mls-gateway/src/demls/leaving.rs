//! Letting go of groups that nobody uses here: first the cluster is told not to wait for this gateway, then the group is forgotten. Whoever
//! asks for it again has it followed and registered anew.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use concordat_proto::{convert::GroupCommand, log::v1::Reason};
use group_log::fork::{Command, ForkView, Mode};
use tokio::time::{MissedTickBehavior, interval};

use super::{
    group::{Core, Group},
    path::Paths,
    registry::Registry,
    store::{Seat, StoreError},
    times::Times,
};
use crate::{
    cluster::Final,
    error::GatewayError,
    limits::{DEMLS_GROUPS_CROWDED, DEMLS_IDLE_CROWDED, DEMLS_SWEEP_MAX, DEMLS_SWEEP_MIN},
    metrics,
};

/// Looks for groups that nobody uses, for as long as there is a registry.
pub(super) async fn sweep(registry: Weak<Registry>, times: Times) {
    let mut ticks = interval((times.idle / 4).clamp(DEMLS_SWEEP_MIN, DEMLS_SWEEP_MAX));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(registry) = registry.upgrade() else { return };
        let groups = registry.all();
        let is_crowded = groups.len() >= DEMLS_GROUPS_CROWDED;
        let idle = if is_crowded { times.idle.min(DEMLS_IDLE_CROWDED) } else { times.idle };
        for group in groups.iter().filter(|group| group.usage.is_idle(idle)) {
            if let Err(error) = let_go(&registry, group, idle).await {
                tracing::debug!(%error, "a group that nobody uses is kept for now");
            }
        }
    }
}

/// A step towards letting go: the seat is given up, or, once the cluster has confirmed that, the group is forgotten.
async fn let_go(registry: &Registry, group: &Arc<Group>, idle: Duration) -> Result<(), StoreError> {
    let mut core = group.core.lock().await;
    if !group.has_nothing_left(&core)? {
        return Ok(());
    }
    match core.promise.seat {
        Seat::Out => {
            drop(core);
            registry.forget(group, idle)
        }
        Seat::In(number) if group.usage.give_up(idle) => {
            core.promise.seat = Seat::Leaving(number);
            group.rows.set_promise(&core.promise)?;
            // Held meanwhile: the group does not fork from here on, and the cluster hears of it only after that is durable.
            group.sync().await?;
            drop(core);
            group.wake.notify_waiters();
            Ok(())
        }
        // In use again; or its duties see to it.
        Seat::In(_) | Seat::Leaving(_) => Ok(()),
    }
}

impl Group {
    /// Neither this gateway nor a client of it has anything to do with the group: it is ordered, there is no branch, everything is
    /// acknowledged, no removal is owed.
    pub(super) fn has_nothing_left(&self, core: &Core) -> Result<bool, StoreError> {
        let is_quiet = self.mode() == Mode::Ordered
            && *self.live.borrow()
            && self.in_doubt.load(Ordering::Relaxed) == 0
            && core.tree.is_empty()
            && core.unrecorded.is_empty()
            && !core.gone;
        Ok(is_quiet && self.rows.fork()?.owed.is_empty())
    }
}

/// Tells the cluster that a registration ends. True once it has confirmed that; false if it is to be asked again.
pub(super) async fn release(group: &Group, paths: &Paths, registration: u64) -> Result<bool, GatewayError> {
    let gateway = group.rows.store().gateway_id();
    let command = Command::Release { gateway, registration };
    let command = GroupCommand { group_id: group.id.clone(), command };
    match paths.submit(group.shard, &command.into()).await? {
        Final::GatewayNoted(_) => {
            group.set_seat(Seat::Out).await?;
            metrics::group_released();
            Ok(true)
        }
        // Somebody else has gone on: that is acknowledged first, or brought together.
        Final::Reconciling(_) => Ok(false),
        Final::Refused(refused) if refused.reason() == Reason::NotRegistered => Ok(false),
        Final::Refused(refused) => Err(GatewayError::Refused(refused)),
        _ => Err(GatewayError::Protocol("an outcome that does not belong to the command")),
    }
}
