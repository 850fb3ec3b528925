//! Keeps the mode of one group: looks at what is known whenever that changes, and at the moments at which time alone decides.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use group_log::{
    GroupKind,
    fork::{Mode, ModeMachine, Signals},
};
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    group::{Core, Group},
    path::Paths,
    registry::Registry,
    store::{Promise, Seat},
    times::Times,
};
use crate::{metrics, modes::mode_name};

impl Group {
    /// The cluster counts on this gateway, and its log reaches what it promised: then it may fork.
    pub async fn may_fork(&self) -> bool {
        let core = self.core.lock().await;
        self.may_fork_now(&core)
    }

    /// Waits until that is so, for `patience` at most. Returns whether it is.
    pub async fn wait_until_it_may_fork(&self, patience: Duration) -> bool {
        let mut changes = self.changes();
        let counted_on = async {
            loop {
                changes.borrow_and_update();
                if self.may_fork().await {
                    return true;
                }
                if changes.changed().await.is_err() {
                    return false;
                }
            }
        };
        timeout(patience, counted_on).await.unwrap_or(false)
    }

    fn may_fork_now(&self, core: &Core) -> bool {
        let Promise { position, seat, .. } = core.promise;
        matches!(seat, Seat::In(_)) && self.log_seq().is_ok_and(|seq| seq > 0 && seq >= position)
    }
}

/// Takes the group away from those in its mode when it is held no more.
struct Counted<'g>(&'g Group);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        metrics::group_gone(mode_name(self.0.mode()));
    }
}

/// Runs for as long as the group is held.
pub(super) async fn keep(
    group: Arc<Group>,
    paths: Arc<Paths>,
    registry: std::sync::Weak<Registry>,
    times: Times,
) {
    let started = Instant::now();
    // Until something is heard of the quorum, its silence begins now.
    let mut machine = ModeMachine::new(GroupKind::Demls, times.quorum_ttl.as_millis() as u64);
    let _counted = Counted(&group);
    metrics::group_mode(None, mode_name(machine.mode()));
    let (mut direct, mut reach) = (paths.direct_changes(), paths.relay.changes());
    let mut forked_since = None;
    loop {
        let wake = group.wake.notified();
        tokio::pin!(wake);
        wake.as_mut().enable();
        direct.borrow_and_update();
        reach.borrow_and_update();
        let now = Instant::now();
        observe(&group, &paths, &mut machine, &times, now - started, &mut forked_since).await;
        let Some(registry) = registry.upgrade() else { return };
        let unsettled = machine.mode() != Mode::Ordered || !group.core.lock().await.unrecorded.is_empty();
        registry.note(&group, unsettled);
        drop(registry);
        let next = machine.next_ms(&times.modes).map(|ms| started + Duration::from_millis(ms));
        tokio::select! {
            () = wake => {}
            changed = direct.changed() => if changed.is_err() { return },
            changed = reach.changed() => if changed.is_err() { return },
            () = sleep_until(next.unwrap_or(now)), if next.is_some() => {}
        }
    }
}

async fn observe(
    group: &Group,
    paths: &Paths,
    machine: &mut ModeMachine,
    times: &Times,
    now: Duration,
    forked_since: &mut Option<Instant>,
) {
    // Held while the mode changes: what is accepted, promised or let go is so in one mode.
    let mut core = group.core.lock().await;
    let may_fork = group.may_fork_now(&core);
    let signals = Signals {
        now_ms: now.as_millis() as u64,
        quorum: paths.reaches_quorum(group.shard),
        outcome_unknown: group.in_doubt.load(Ordering::Relaxed) > 0,
        view_covers_promise: may_fork,
        unrecorded: !core.unrecorded.is_empty(),
    };
    while let Some(change) = machine.observe(&signals, &times.modes) {
        tracing::info!(
            from = mode_name(change.from),
            to = mode_name(change.to),
            "the mode of a group has changed"
        );
        metrics::group_mode(Some(mode_name(change.from)), mode_name(change.to));
        match change.to {
            Mode::Forked => *forked_since = Some(Instant::now()),
            _ => {
                if let Some(since) = forked_since.take() {
                    metrics::forked_for(since.elapsed());
                }
            }
        }
        if change.from != Mode::Ordered {
            core.reported = false;
        }
        group.mode.send_replace(change.to);
    }
}
