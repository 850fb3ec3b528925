//! What a gateway owes the cluster for a group, whenever a quorum is reached: to be registered before it may fork, to report every branch
//! entry that the log lacks, and to acknowledge how far it has read with nothing unreported.

use std::{collections::BTreeSet, sync::Arc, sync::atomic::Ordering};

use concordat_proto::{convert::GroupCommand, log::v1::Reason, ordering::v1 as wire};
use group_log::{
    View,
    fork::{Command, ForkView, Mode},
};
use tokio::time::{Instant, sleep_until};

use super::{
    group::{Group, GroupError},
    path::Paths,
    store::StoreError,
    times::Times,
};
use crate::{
    cluster::Final,
    error::GatewayError,
    limits::{DUTY_PAUSE, REPORT_PAUSE},
    metrics,
};

/// Runs for as long as the group is held.
pub(super) async fn attend(group: Arc<Group>, paths: Arc<Paths>, times: Times) {
    let (mut direct, mut reach, mut modes) = (paths.direct_changes(), paths.relay.changes(), group.modes());
    let mut live = group.live.subscribe();
    let mut next_ack = Instant::now();
    loop {
        let wake = group.wake.notified();
        tokio::pin!(wake);
        wake.as_mut().enable();
        direct.borrow_and_update();
        reach.borrow_and_update();
        let mode = *modes.borrow_and_update();
        live.borrow_and_update();
        let mut duties = Duties { group: &group, paths: &paths };
        let again = if mode != Mode::Forked && paths.reaches_quorum(group.shard) {
            match duties.attend(mode, &mut next_ack, &times).await {
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

struct Duties<'g> {
    group: &'g Arc<Group>,
    paths: &'g Arc<Paths>,
}

impl Duties<'_> {
    /// Does what is due. Returns when to look again if nothing happens.
    async fn attend(
        &mut self,
        mode: Mode,
        next_ack: &mut Instant,
        times: &Times,
    ) -> Result<Option<Instant>, GatewayError> {
        let (promise, acknowledged, unrecorded, reported) = {
            let core = self.group.core.lock().await;
            (core.promise, core.acknowledged, core.unrecorded.clone(), core.reported)
        };
        if !unrecorded.is_empty() || (promise.registered && !reported) {
            self.report(&unrecorded).await?;
            if !unrecorded.is_empty() {
                return Ok(Some(Instant::now() + REPORT_PAUSE));
            }
        }
        if !*self.group.live.borrow() {
            return Ok(None);
        }
        if !promise.registered {
            if self.group.used.load(Ordering::Relaxed) {
                self.register().await?;
            }
            return Ok(None);
        }
        if mode != Mode::Ordered || !self.has_something_to_acknowledge(promise.position, acknowledged)? {
            return Ok(None);
        }
        if Instant::now() < *next_ack {
            return Ok(Some(*next_ack));
        }
        *next_ack = Instant::now() + times.ack_pause;
        self.acknowledge().await?;
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
        match self.submit(Command::Register { gateway, position }).await? {
            Final::GatewayNoted(_) => Ok(self.group.set_registered(true).await?),
            other => unexpected(other),
        }
    }

    async fn acknowledge(&self) -> Result<(), GatewayError> {
        let Some(promise) = self.group.promise().await? else { return Ok(()) };
        let (gateway, position) = (self.group.rows.store().gateway_id(), promise.position);
        match self.submit(Command::Ack { gateway, position }).await {
            Ok(Final::GatewayNoted(_)) => {
                self.group.core.lock().await.acknowledged = position;
                Ok(())
            }
            Ok(Final::Refused(refused)) if refused.reason() == Reason::NotRegistered => {
                tracing::warn!("this gateway was evicted from a group; it registers again");
                Ok(self.group.set_registered(false).await?)
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
