//! Sending messages, and leaving: what goes through the outbox.

use concordat_proto::{gateway::v1::submit_response::Outcome, log::v1::Reason};
use group_log::GroupId;

use super::{Change, Client, counters::Tally};
use crate::{branches, error::Error, event::EventKind, group, store::OutboxItem, transport::CallError, wire};

/// A message that is in the log or, in a DeMLS group without a quorum, on a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Its number among this client's messages of the group; where nothing forks, that of its entry.
    pub seq: u64,
    /// The epoch it was sent in.
    pub epoch: u64,
}

/// What to do for the first item of the outbox.
pub(super) enum Next {
    Done,
    /// Proposals have to be committed first (RFC 9420 section 12.4).
    Commit,
    Submit(OutboxItem),
}

impl Client {
    /// Sends an application message, after those that wait already. Returns when it is in the log.
    ///
    /// If the gateway cannot answer in time it stays in the outbox, and [`Client::flush`] or a running client goes on with it. A
    /// message whose epoch has become too old is encrypted again in the current one.
    pub async fn send(&self, group: &GroupId, body: impl Into<Vec<u8>>) -> Result<Sent, Error> {
        let body = body.into();
        let id = match self.has_branches(group) {
            true => self.with_branches(group, |work| branches::enqueue(work, body))?,
            false => self.with_group(group, |work| group::enqueue(work, body))?,
        };
        self.drain(group, Some(id)).await?;
        let sent = self.with_store(|store| store.sent_message(group, id))?;
        sent.map(|(seq, epoch)| Sent { seq, epoch })
            .ok_or_else(|| Error::NotMember("the message was not sent before membership ended".into()))
    }

    /// Sends everything that waits in the outbox of a group.
    pub async fn flush(&self, group: &GroupId) -> Result<(), Error> {
        self.drain(group, None).await
    }

    /// Asks the other members to remove this client (a member cannot commit its own removal), and returns when that is in the log. A
    /// running client asks again in each new epoch until it is gone. The only member of a group closes it.
    pub async fn leave(&self, group: &GroupId) -> Result<(), Error> {
        self.sync(group).await?;
        if self.group(group)?.members.len() == 1 {
            return self.close_group(group).await;
        }
        match self.has_branches(group) {
            true => self.with_branches(group, branches::enqueue_leave)?,
            false => self.with_group(group, group::enqueue_leave)?,
        }
        self.flush(group).await
    }

    /// Submits the outbox in order, up to the item `until`, or all of it.
    async fn drain(&self, group: &GroupId, until: Option<u64>) -> Result<(), Error> {
        let turns = self.turns(group);
        let _turn = turns.send.lock().await;
        if self.has_branches(group) {
            return self.drain_on_branches(group, until).await;
        }
        let mut attempts = 0;
        let mut caught_up = false;
        loop {
            let item = match self.with_group(group, |work| self.next_item(work, until))? {
                Next::Done => return Ok(()),
                Next::Commit => {
                    // The update makes sure that there is a commit, also if what was proposed is not to be committed.
                    self.commit(group, Change::new().update()).await?;
                    continue;
                }
                Next::Submit(item) => item,
            };
            // What waited before may be in the log already, beyond the window in which it would be recognised.
            if until != Some(item.id) && !caught_up {
                caught_up = true;
                self.catch_up_or_come_back(group).await?;
                continue;
            }
            let request = wire::submit_item(&item);
            match self.persist(|| self.transport().submit(request.clone())).await {
                Ok(Outcome::Accepted(accepted)) => {
                    let me = self.id().as_bytes();
                    self.with_group(group, |work| {
                        group::sent(work, item.id, accepted.seq, me);
                        Ok(())
                    })?;
                }
                Ok(Outcome::Superseded(_)) => {
                    return Err(Error::Protocol("a message was superseded; only commits can be".into()));
                }
                Ok(Outcome::AcceptedProvisional(_) | Outcome::OnSide(_) | Outcome::RemoveFirst(_)) => {
                    return Err(Error::Protocol("an answer that only DeMLS groups get".into()));
                }
                Err(error) if matches!(error.reason, Some(Reason::EpochTooOld | Reason::WrongState)) => {
                    attempts += 1;
                    if attempts > self.options().max_commit_attempts {
                        return Err(error.into());
                    }
                    self.catch_up_or_come_back(group).await?;
                    self.renew(group, &item)?;
                }
                Err(error) => {
                    if !error.is_temporary() {
                        self.give_up(group, item.id, &error)?;
                    }
                    return Err(error.into());
                }
            }
        }
    }

    fn next_item(&self, work: &mut group::GroupWork, until: Option<u64>) -> Result<Next, Error> {
        let Some(item) = work.outbox.first() else { return Ok(Next::Done) };
        if until.is_some_and(|until| item.id > until) {
            return Ok(Next::Done);
        }
        let (id, is_message, is_made) = (item.id, item.is_message(), !item.message.is_empty());
        let leaving = work.record.leaving;
        let mls = work.active()?;
        if !is_made {
            if is_message && mls.has_pending_proposals() {
                let leaving = leaving || group::is_to_be_removed(mls);
                return if leaving { Err(Error::Leaving) } else { Ok(Next::Commit) };
            }
            group::encrypt(work, id, self.me())?;
        }
        Ok(work.outbox.first().cloned().map_or(Next::Done, Next::Submit))
    }

    /// The log does not take the message any more, and does not have it: it is made again in the current epoch.
    fn renew(&self, group: &GroupId, item: &OutboxItem) -> Result<(), Error> {
        let renewed = self.with_group(group, |work| {
            let same = work.outbox.iter_mut().find(|i| i.id == item.id && i.message == item.message);
            let found = same.map(OutboxItem::forget_message);
            Ok(found.is_some())
        })?;
        if renewed {
            Tally::count(&self.tally().renewed);
        }
        Ok(())
    }

    /// The item was refused for good: it must not be in the way of the next.
    fn give_up(&self, group: &GroupId, id: u64, error: &CallError) -> Result<(), Error> {
        self.with_group(group, |work| {
            let dropped =
                work.outbox.iter().position(|item| item.id == id).map(|index| work.outbox.remove(index));
            if let Some(item) = dropped.filter(OutboxItem::is_message) {
                let (body, reason) = (item.body.clone(), error.to_string());
                work.events.push(EventKind::MessageRefused { body, reason });
            }
            Ok(())
        })
    }
}
