//! What a gateway owes the cluster for a group, whenever a quorum is reached: to be registered before it may fork, to report every branch
//! entry that the log lacks, and to acknowledge how far it has read with nothing unreported.

use std::{collections::BTreeSet, sync::Arc};

use concordat_proto::{
    convert::{DEPARTURES, GroupCommand},
    log::v1::{Reason, Refused},
    ordering::v1 as wire,
};
use group_log::{
    View,
    fork::{Command, ForkView, Mode},
};
use tokio::time::{Instant, sleep_until};

use super::{
    group::{Group, GroupError},
    leaving,
    path::Paths,
    store::{Seat, StoreError},
    times::Times,
};
use crate::{
    cluster::Final,
    error::GatewayError,
    limits::{DUTY_PAUSE, REPORT_PAUSE, SETTLING},
    metrics,
};

/// Runs for as long as the group is held.
pub(super) async fn attend(group: Arc<Group>, paths: Arc<Paths>, times: Times) {
    let (mut direct, mut reach, mut modes) = (paths.direct_changes(), paths.relay.changes(), group.modes());
    let mut live = group.live.subscribe();
    let mut pace = Pace::default();
    loop {
        let wake = group.wake.notified();
        tokio::pin!(wake);
        wake.as_mut().enable();
        direct.borrow_and_update();
        reach.borrow_and_update();
        let mode = *modes.borrow_and_update();
        live.borrow_and_update();
        if mode != Mode::Ordered {
            pace.settle();
        }
        let mut duties = Duties { group: &group, paths: &paths };
        let again = if mode != Mode::Forked && paths.reaches_quorum(group.shard) {
            match duties.attend(mode, &mut pace, &times).await {
                Ok(again) => again,
                Err(error) => {
                    tracing::debug!(%error, "a duty for a group is not done yet");
                    Some(Instant::now() + DUTY_PAUSE)
                }
            }
        } else {
            None
        };
        tokio::select! {
            () = wake => {}
            changed = direct.changed() => if changed.is_err() { return },
            changed = reach.changed() => if changed.is_err() { return },
            _ = modes.changed() => {}
            _ = live.changed() => {}
            () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
        }
    }
}

/// When a gateway may acknowledge again.
#[derive(Default)]
struct Pace {
    last_ack: Option<Instant>,
    settling_until: Option<Instant>,
}

impl Pace {
    /// There was a sign of a branch just now.
    fn settle(&mut self) {
        self.settling_until = Some(Instant::now() + SETTLING);
    }

    fn next(&self, times: &Times) -> Option<Instant> {
        let is_settling = self.settling_until.is_some_and(|until| Instant::now() < until);
        let pause = if is_settling { times.ack_pause_settling } else { times.ack_pause };
        self.last_ack.map(|last| last + pause)
    }
}

struct Duties<'g> {
    group: &'g Arc<Group>,
    paths: &'g Arc<Paths>,
}

impl Duties<'_> {
    /// Does what is due. Returns when to look again if nothing happens.
    async fn attend(
        &mut self,
        mode: Mode,
        pace: &mut Pace,
        times: &Times,
    ) -> Result<Option<Instant>, GatewayError> {
        let (promise, acknowledged, unrecorded, reported) = {
            let core = self.group.core.lock().await;
            if !core.tree.is_empty() {
                pace.settle();
            }
            (core.promise, core.acknowledged, core.unrecorded.clone(), core.reported)
        };
        if !unrecorded.is_empty() || (promise.seat != Seat::Out && !reported) {
            self.report(&unrecorded).await?;
            if !unrecorded.is_empty() {
                return Ok(Some(Instant::now() + REPORT_PAUSE));
            }
        }
        if !*self.group.live.borrow() {
            return Ok(None);
        }
        let Some(registration) = promise.seat.registration() else {
            if self.group.usage.is_wanted() {
                self.register().await?;
            }
            return Ok(None);
        };
        if mode != Mode::Ordered {
            return Ok(None);
        }
        if self.has_something_to_acknowledge(promise.position, acknowledged)? {
            if !self.group.rows.fork()?.pending_marks.is_empty() {
                pace.settle();
            }
            if let Some(next) = pace.next(times).filter(|next| Instant::now() < *next) {
                return Ok(Some(next));
            }
            pace.last_ack = Some(Instant::now());
            self.acknowledge(registration).await?;
        }
        if let Seat::Leaving(registration) = promise.seat
            && !leaving::release(self.group, self.paths, registration).await?
        {
            return Ok(Some(Instant::now() + DUTY_PAUSE));
        }
        Ok(None)
    }

    /// A commit, a Side or a Late has been read since: only then can anything become stable.
    fn has_something_to_acknowledge(&self, promised: u64, acknowledged: u64) -> Result<bool, StoreError> {
        let rows = &self.group.rows;
        let (Some(head), fork) = (rows.head()?, rows.fork()?) else { return Ok(false) };
        let marks = fork.pending_marks.range(promised + 1..).next().is_some();
        let epoch = rows.record(promised)?.map(|record| record.epoch_after);
        // What was promised may not have reached the cluster.
        Ok(acknowledged < promised || marks || epoch.is_some_and(|epoch| epoch < head.epoch))
    }

    async fn register(&self) -> Result<(), GatewayError> {
        let Some(promise) = self.group.promise().await? else { return Ok(()) };
        let (gateway, position) = (self.group.rows.store().gateway_id(), promise.position);
        // It is told how many registrations have ended if that is not so.
        let mut departures = 0;
        loop {
            match self.submit(Command::Register { gateway, position, departures }).await? {
                Final::GatewayNoted(noted) => {
                    return Ok(self.group.set_seat(Seat::In(noted.registration)).await?);
                }
                Final::Refused(refused) => match departures_in(&refused).filter(|now| *now > departures) {
                    Some(now) => departures = now,
                    None => return Err(GatewayError::Refused(refused)),
                },
                other => return unexpected(other),
            }
        }
    }

    async fn acknowledge(&self, registration: u64) -> Result<(), GatewayError> {
        let Some(promise) = self.group.promise().await? else { return Ok(()) };
        let (gateway, position) = (self.group.rows.store().gateway_id(), promise.position);
        match self.submit(Command::Ack { gateway, registration, position }).await {
            Ok(Final::GatewayNoted(_)) => {
                self.group.core.lock().await.acknowledged = position;
                Ok(())
            }
            Ok(Final::Refused(refused)) if refused.reason() == Reason::NotRegistered => {
                tracing::warn!("this gateway was evicted from a group; it registers again when it is asked");
                Ok(self.group.set_seat(Seat::Out).await?)
            }
            Ok(other) => unexpected(other),
            Err(error) => Err(error),
        }
    }

    async fn report(&self, unrecorded: &BTreeSet<group_log::EntryId>) -> Result<(), GatewayError> {
        let gateway = self.group.rows.store().gateway_id();
        let reports = {
            let core = self.group.core.lock().await;
            core.tree.reports(&self.group.rows, gateway).map_err(StoreError::from)?
        };
        for report in reports {
            match self.submit(Command::Report(report)).await? {
                Final::BranchesReported(wire::BranchesReported { new_entries, .. }) => {
                    metrics::reported(new_entries)
                }
                Final::Refused(refused) => {
                    tracing::warn!(
                        words = refused.message,
                        "the cluster does not take in a branch; the group waits, and it is reported again"
                    );
                    return Err(GatewayError::Refused(refused));
                }
                other => return unexpected(other),
            }
        }
        let mut core = self.group.core.lock().await;
        // Unless more came in meanwhile.
        core.reported = core.unrecorded.is_subset(unrecorded);
        Ok(())
    }

    async fn submit(&self, command: Command) -> Result<Final, GatewayError> {
        let command = GroupCommand { group_id: self.group.id.clone(), command };
        self.paths.submit(self.group.shard, &command.into()).await
    }
}

/// How many registrations of the group have ended, if a registration was refused because of that.
fn departures_in(refused: &Refused) -> Option<u64> {
    refused.metadata.get(DEPARTURES)?.parse().ok()
}

fn unexpected(outcome: Final) -> Result<(), GatewayError> {
    match outcome {
        Final::Refused(refused) => Err(GatewayError::Refused(refused)),
        _ => Err(GatewayError::Protocol("an outcome that does not belong to the command")),
    }
}

impl Group {
    /// Branches are being brought together, and the cluster may wait for this gateway: it says again that it has nothing to tell.
    pub async fn report_again(&self) {
        self.core.lock().await.reported = false;
        self.wake.notify_waiters();
    }
}

impl From<GroupError> for GatewayError {
    fn from(error: GroupError) -> Self {
        use concordat_proto::relay::v1::sequence_response::Outcome;
        match error {
            GroupError::Branch(refusal) => match Outcome::from(&refusal) {
                Outcome::Refused(refused) => GatewayError::Refused(refused),
                _ => GatewayError::Protocol("a removal that is owed is no refusal"),
            },
            GroupError::Look(error) => error.into(),
            GroupError::NotForked => GatewayError::NoQuorum,
            GroupError::Gone => GatewayError::Unreachable("the group was let go in this moment".into()),
            GroupError::Store(error) => error.into(),
        }
    }
}

impl From<super::states::LookError> for GatewayError {
    fn from(error: super::states::LookError) -> Self {
        use super::states::LookError;
        match error {
            LookError::Invalid(error) => error.into(),
            LookError::Parse(error) => error.into(),
            LookError::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for GatewayError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Follow(error) => GatewayError::LogMismatch(error.to_string()),
            error => GatewayError::Storage(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn acknowledgements_are_rare_but_for_half_a_minute_after_a_branch() {
        let (times, mut pace) = (Times::default(), Pace::default());
        assert_eq!(pace.next(&times), None, "the first may come at once");
        let began = Instant::now();
        pace.last_ack = Some(began);
        assert_eq!(pace.next(&times), Some(began + times.ack_pause));
        pace.settle();
        assert_eq!(pace.next(&times), Some(began + times.ack_pause_settling));
        assert!(times.ack_pause_settling < times.ack_pause);
        tokio::time::advance(SETTLING).await;
        assert_eq!(pace.next(&times), Some(began + times.ack_pause));
    }
}
