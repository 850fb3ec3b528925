//! Changing a DeMLS group: like any group, but a branch may accept a commit provisionally, and only the log decides.

use concordat_proto::{
    gateway::v1::{CreateGroupRequest, submit_response::Outcome},
    log::v1::{self as pb, Reason},
};
use futures::{FutureExt, future::BoxFuture};
use group_log::{GroupId, StateId};

use super::super::{Change, Client, Committed, counters::Tally};
use crate::{
    branches,
    error::Error,
    group::Intent,
    store::{LeftReason, Pending, PendingKind, Resolution, Status},
    transport::CallError,
    wire,
};

impl Client {
    /// Builds and submits until the intent is fulfilled. What the group owes comes first.
    pub(in crate::client) async fn pursue_on_branches(
        &self,
        group: &GroupId,
        intent: Intent,
    ) -> Result<Committed, Error> {
        self.pay_what_is_owed(group).await?;
        self.pursue_one(group, intent).await
    }

    /// The same without a look at what is owed.
    pub(super) fn pursue_one<'a>(
        &'a self,
        group: &'a GroupId,
        intent: Intent,
    ) -> BoxFuture<'a, Result<Committed, Error>> {
        self.pursue_again_and_again(group, intent).boxed()
    }

    async fn pursue_again_and_again(&self, group: &GroupId, mut intent: Intent) -> Result<Committed, Error> {
        let mut backoff = self.backoff_after_loss();
        let most = self.options().max_commit_attempts;
        for attempts in 1..=most {
            let built = self.with_branches(group, |work| branches::build_commit(work, &intent, self.me()))?;
            let Some(state) = built else { return Ok(Committed::NothingToDo) };
            match self.settle_until_known(group, state).await? {
                Resolution::Merged { seq, epoch } => {
                    return Ok(Committed::Accepted { seq, epoch, attempts });
                }
                Resolution::Provisional { epoch } => return Ok(Committed::Provisional { epoch, attempts }),
                Resolution::Superseded { .. } => {}
                Resolution::SetAside => intent = self.renew_key_packages(group, intent).await?,
            }
            Tally::count(&self.tally().rebased);
            if attempts > 1 {
                self.refresh(group).await?;
            }
            self.pay_what_is_owed_before(group, &intent).await?;
            self.rest(&mut backoff).await;
        }
        Err(Error::Contention { attempts: most })
    }

    /// A commit that was set aside may still be decided for, and a KeyPackage is used once.
    async fn renew_key_packages(&self, group: &GroupId, intent: Intent) -> Result<Intent, Error> {
        if intent.add.is_empty() {
            return Ok(intent);
        }
        let mut change = Change { update: intent.update, proposals: intent.proposals, ..Change::default() };
        for add in &intent.add {
            change = change.invite(super::repair::client_id(&add.client_id)?);
        }
        Ok(Intent { remove: intent.remove, ..self.prepare(group, change).await? })
    }

    pub(in crate::client) async fn pursue_pending_on_branches(&self, group: &GroupId) -> Result<(), Error> {
        let Some(pending) = self.record(group)?.pending else { return Ok(()) };
        let resolution = self.settle_until_known(group, pending.state_id()).await?;
        let lost = matches!(resolution, Resolution::Superseded { .. } | Resolution::SetAside);
        if lost && pending.kind == PendingKind::Commit {
            let intent = match resolution {
                Resolution::SetAside => self.renew_key_packages(group, pending.intent).await?,
                _ => pending.intent,
            };
            self.pursue_on_branches(group, intent).await?;
        }
        Ok(())
    }

    /// Submits the pending commit that leads to `state` until it is known what becomes of it.
    pub(in crate::client) async fn settle_until_known(
        &self,
        group: &GroupId,
        state: StateId,
    ) -> Result<Resolution, Error> {
        let mut backoff = self.backoff();
        for _ in 0..self.options().max_commit_attempts {
            let record = self.record(group)?;
            if let Some(resolution) = record.resolution_of(state) {
                return Ok(resolution);
            }
            let Some(pending) = record.pending.filter(|pending| pending.state_id() == state) else {
                return Err(Error::Protocol("a commit was answered, but is in no log".into()));
            };
            self.submit_pending(group, &pending).await?;
            if self.record(group)?.pending.is_some_and(|pending| pending.state_id() == state) {
                // The gateway lacked something that it has been brought meanwhile.
                self.rest(&mut backoff).await;
            }
        }
        let resolution = self.record(group)?.resolution_of(state);
        resolution.ok_or(Error::Contention { attempts: self.options().max_commit_attempts })
    }

    async fn submit_pending(&self, group: &GroupId, pending: &Pending) -> Result<(), Error> {
        let state = pending.state_id();
        let started = tokio::time::Instant::now();
        let answer = if pending.kind == PendingKind::Create {
            let record = self.record(group)?;
            let request = CreateGroupRequest {
                group_info: pending.group_info.clone().into(),
                kind: pb::GroupKind::from(record.kind()).into(),
                policy: Some(record.policy().into()),
            };
            let created = self.persist(|| self.transport().create_group(request.clone())).await;
            created.map(Outcome::Accepted)
        } else {
            let request = wire::submit_pending(pending);
            self.persist_on_branches(|| self.transport().submit(request.clone())).await
        };
        if answer.is_ok() {
            self.tally().latency(started.elapsed());
        }
        match answer {
            Ok(Outcome::Accepted(accepted)) => {
                Tally::count(&self.tally().accepted);
                self.catch_up_branches(group, accepted.seq).await
            }
            Ok(Outcome::Superseded(superseded)) => {
                let winner =
                    superseded.winner.ok_or_else(|| Error::Protocol("superseded without a winner".into()))?;
                self.catch_up_branches(group, winner.seq).await?;
                self.set_aside(group, state)
            }
            Ok(Outcome::AcceptedProvisional(_)) => {
                Tally::count(&self.tally().accepted);
                let encoded = self.pending_on_branch(pending)?;
                let me = self.id();
                self.with_branches(group, |work| branches::answered_provisionally(work, state, &encoded, me))
            }
            Ok(Outcome::OnSide(side)) => {
                self.catch_up_branches(group, side.seq).await?;
                self.set_aside(group, state)
            }
            Ok(Outcome::RemoveFirst(first)) => {
                self.catch_up_branches(group, 0).await?;
                self.with_branches(group, |work| branches::owe(work, &first.owed_leaf_indices))?;
                self.set_aside(group, state)
            }
            Err(error) => self.refused(group, pending, error).await,
        }
    }

    fn set_aside(&self, group: &GroupId, state: StateId) -> Result<(), Error> {
        self.with_branches(group, |work| {
            branches::set_aside(work, state);
            Ok(())
        })
    }

    async fn refused(&self, group: &GroupId, pending: &Pending, error: CallError) -> Result<(), Error> {
        let state = pending.state_id();
        match error.reason {
            // What this client stands on is not known there, or another state is further: both sides learn.
            Some(
                Reason::NotALeaf
                | Reason::WrongState
                | Reason::EpochTooOld
                | Reason::EpochAhead
                | Reason::DeadBranch
                | Reason::BelowPromise
                | Reason::BranchGap,
            ) => {
                self.refresh(group).await?;
                let record = self.record(group)?;
                let current = record.fork.as_ref().and_then(|fork| fork.current());
                if record.resolution_of(state).is_some() {
                    return Ok(());
                }
                if pending.kind == PendingKind::ExternalCommit || current != Some(pending.parent()) {
                    return self.set_aside(group, state);
                }
                let may_change =
                    matches!(error.reason, Some(Reason::BranchGap | Reason::EpochAhead | Reason::WrongState));
                // A state that the gateway has just been brought may become canonical soon.
                if may_change && current != Some(record.state_id()) { Ok(()) } else { Err(error.into()) }
            }
            // Whether it is accepted nobody knows: it stays pending.
            _ if error.is_temporary() => Err(error.into()),
            _ => {
                Tally::count(&self.tally().refused);
                self.with_branches(group, |work| {
                    if work.record.status == Status::Joining {
                        return work.forget_state(Status::Left(LeftReason::NeverJoined));
                    }
                    branches::set_aside(work, state);
                    Ok(())
                })?;
                Err(error.into())
            }
        }
    }
}
