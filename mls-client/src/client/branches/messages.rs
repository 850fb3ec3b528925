//! Sending messages in DeMLS groups.

use concordat_proto::{gateway::v1::submit_response::Outcome, log::v1::Reason};
use group_log::GroupId;

use super::super::{Change, Client, counters::Tally, messages::Next};
use crate::{
    branches::{self, BranchWork},
    error::Error,
    group::is_to_be_removed,
    store::{OutboxItem, Verdict},
    transport::CallError,
    wire,
};

impl Client {
    /// Submits the outbox in order, up to the item `until`, or all of it.
    pub(in crate::client) async fn drain_on_branches(
        &self,
        group: &GroupId,
        until: Option<u64>,
    ) -> Result<(), Error> {
        let mut attempts = 0;
        loop {
            let item = match self.with_branches(group, |work| self.next_on_branch(work, until))? {
                Next::Done => return Ok(()),
                Next::Commit => {
                    self.commit(group, Change::new().update()).await?;
                    continue;
                }
                Next::Submit(item) => item,
            };
            let request = wire::submit_item(&item);
            let answer = self.persist_on_branches(|| self.transport().submit(request.clone())).await;
            attempts += 1;
            let too_often = attempts > self.options().max_commit_attempts;
            match answer {
                Ok(Outcome::RemoveFirst(_)) if too_often => return Err(Error::RemovalsFirst),
                Ok(outcome) => self.item_answered(group, &item, outcome).await?,
                Err(error) if !too_often && is_behind(&error) => {
                    self.refresh(group).await?;
                    self.renew_on_branch(group, &item, &error)?;
                }
                Err(error) => {
                    if !error.is_temporary() {
                        let reason = error.to_string();
                        self.with_branches(group, |work| {
                            branches::give_up(work, item.id, reason);
                            Ok(())
                        })?;
                    }
                    return Err(error.into());
                }
            }
        }
    }

    async fn item_answered(&self, group: &GroupId, item: &OutboxItem, outcome: Outcome) -> Result<(), Error> {
        let me = self.id();
        let verdict = match outcome {
            Outcome::Accepted(accepted) => Some(Verdict { seq: accepted.seq, dead: false }),
            Outcome::AcceptedProvisional(_) => None,
            Outcome::OnSide(side) => {
                return self.with_branches(group, |work| {
                    let verdict = Verdict { seq: side.seq, dead: true };
                    branches::answered(work, item, Some(verdict), None, me)?;
                    // The log will not tell again what was read already.
                    if side.late && side.seq <= work.record.seq && item.is_message() {
                        branches::enqueue(work, item.body.clone())?;
                    }
                    Ok(())
                });
            }
            Outcome::RemoveFirst(first) => {
                self.catch_up_branches(group, 0).await?;
                self.with_branches(group, |work| branches::owe(work, &first.owed_leaf_indices))?;
                return self.repair(group).await;
            }
            Outcome::Superseded(_) => {
                return Err(Error::Protocol("a message was superseded; only commits can be".into()));
            }
        };
        let encoded = verdict.is_none().then(|| self.item_on_branch(item));
        self.with_branches(group, |work| branches::answered(work, item, verdict, encoded.as_deref(), me))
    }

    fn next_on_branch(&self, work: &mut BranchWork<'_>, until: Option<u64>) -> Result<Next, Error> {
        let Some(item) = work.outbox.first() else { return Ok(Next::Done) };
        if until.is_some_and(|until| item.id > until) {
            return Ok(Next::Done);
        }
        let (id, is_message, is_made) = (item.id, item.is_message(), !item.message.is_empty());
        let waits = work.waits_for_commit()?;
        if !is_made {
            if is_message && waits {
                return if work.is_leaving()? { Err(Error::Leaving) } else { Ok(Next::Commit) };
            }
            branches::encrypt(work, id, self.me())?;
        }
        Ok(work.outbox.first().cloned().map_or(Next::Done, Next::Submit))
    }

    /// The state that the message was made in is not known there, or not open any more: it is made again where this client stands now.
    fn renew_on_branch(&self, group: &GroupId, item: &OutboxItem, error: &CallError) -> Result<(), Error> {
        let renewed = self.with_branches(group, |work| {
            let current = work.active()?;
            let waits = current == item.state_id()
                && current != work.record.state_id()
                && error.reason != Some(Reason::DeadBranch);
            if waits {
                // It was brought to the gateway, and becomes canonical, or not, soon.
                return Ok(false);
            }
            let same = work.outbox.iter_mut().find(|i| i.id == item.id && i.message == item.message);
            Ok(same.map(OutboxItem::forget_message).is_some())
        })?;
        if renewed {
            Tally::count(&self.tally().renewed);
        }
        Ok(())
    }
}

/// The gateway and this client know different states.
fn is_behind(error: &CallError) -> bool {
    matches!(
        error.reason,
        Some(
            Reason::EpochTooOld
                | Reason::WrongState
                | Reason::EpochAhead
                | Reason::DeadBranch
                | Reason::BelowPromise
                | Reason::BranchGap
        )
    )
}

impl BranchWork<'_> {
    /// Something that was proposed has to be committed before anything is said (RFC 9420 section 12.4).
    fn waits_for_commit(&self) -> Result<bool, Error> {
        self.look(|mls| mls.has_pending_proposals())
    }

    fn is_leaving(&self) -> Result<bool, Error> {
        Ok(self.record.leaving || self.look(is_to_be_removed)?)
    }
}
