//! Reading a group's log from the cursor on, and applying it.

use std::time::Duration;

use concordat_proto::{
    gateway::v1::{CloseGroupRequest, ReadEntriesRequest, SetPolicyRequest},
    log::v1::{self as pb, Reason},
};
use group_log::{ChainError, ClientId, Entry, GroupId, Policy, Turns};

use super::Client;
use crate::{
    error::Error,
    event::{Event, EventKind},
    group::{self, GroupView},
    limits::{FOLLOW_BATCH_ENTRIES, READ_PAGE_ENTRIES},
    store::Status,
    wire,
};

impl Client {
    /// Applies everything that was accepted before the call, and returns the group as it is then. In a DeMLS group without a quorum:
    /// everything that the gateway knows, branches included; and it is brought what it lacks.
    pub async fn sync(&self, group: &GroupId) -> Result<GroupView, Error> {
        if self.has_branches(group) {
            self.refresh(group).await?;
            return self.group(group);
        }
        self.catch_up_or_come_back(group).await?;
        self.group(group)
    }

    /// Reads and applies what was accepted before the call; from the newest state on, if what comes next is gone.
    pub(super) async fn catch_up_or_come_back(&self, group: &GroupId) -> Result<(), Error> {
        match self.catch_up(group, 0).await {
            Err(error) if error.is_pruned() => self.come_back(group).await,
            caught_up => caught_up,
        }
    }

    /// Ends a group for good, for all members.
    pub async fn close_group(&self, group: &GroupId) -> Result<(), Error> {
        let view = self.sync(group).await?;
        let request = CloseGroupRequest { group_id: group.to_bytes(), epoch: view.epoch };
        let accepted = self.persist(|| self.transport().close_group(request.clone())).await?;
        self.catch_up(group, accepted.seq).await
    }

    /// Changes a group's policy. Whether its members take turns stays as it is.
    pub async fn set_policy(&self, group: &GroupId, policy: Policy) -> Result<(), Error> {
        self.sync(group).await?;
        let turns = self.record(group)?.turns()?;
        self.submit_policy(group, policy, turns).await
    }

    /// From now on the members of a group commit in turn, each for `turn` at most (10 ms to a day); nothing: anybody at any time.
    /// Adding and removing members needs no turn, and whoever does that with this library writes the new order into the log.
    pub async fn take_turns(&self, group: &GroupId, turn: Option<Duration>) -> Result<(), Error> {
        let view = self.sync(group).await?;
        let turns = match turn {
            None => None,
            Some(turn) => {
                let order = view.members.into_iter().map(ClientId::new).collect::<Result<_, _>>()?;
                let turn_ms = u32::try_from(turn.as_millis()).unwrap_or(u32::MAX);
                Some(Turns { turn_ms, order })
            }
        };
        self.submit_policy(group, view.policy, turns).await
    }

    /// Puts the members of now into the order, if the group takes turns and others stand there.
    pub(super) async fn renew_turns(&self, group: &GroupId) -> Result<(), Error> {
        let Some(turns) = self.record(group)?.turns()? else { return Ok(()) };
        let mut listed: Vec<&[u8]> = turns.order.iter().map(ClientId::as_bytes).collect();
        listed.sort_unstable();
        if listed == self.group(group)?.members {
            return Ok(());
        }
        self.take_turns(group, Some(Duration::from_millis(turns.turn_ms.into()))).await
    }

    async fn submit_policy(
        &self,
        group: &GroupId,
        policy: Policy,
        turns: Option<Turns>,
    ) -> Result<(), Error> {
        let epoch = self.record(group)?.epoch;
        let policy = pb::Policy { turns: turns.map(Into::into), ..policy.into() };
        let request = SetPolicyRequest { group_id: group.to_bytes(), epoch, policy: Some(policy) };
        let accepted = self.persist(|| self.transport().set_policy(request.clone())).await?;
        self.catch_up(group, accepted.seq).await
    }

    /// Reads and applies the log up to entry `seq`; 0: everything that was accepted before the call.
    pub(super) async fn catch_up(&self, group: &GroupId, seq: u64) -> Result<(), Error> {
        if self.has_branches(group) {
            return self.catch_up_branches(group, seq).await;
        }
        loop {
            let record = self.record(group)?;
            let follows = matches!(record.status, Status::Active | Status::Joining);
            if !follows || (seq > 0 && record.seq >= seq) {
                return Ok(());
            }
            let request = ReadEntriesRequest {
                group_id: group.to_bytes(),
                cursor: Some(wire::cursor(&record)),
                max_entries: READ_PAGE_ENTRIES,
                linearizable: true,
            };
            let page = match self.persist(|| self.transport().read_entries(request.clone())).await {
                Ok(page) => page,
                Err(error) if error.reason == Some(Reason::CursorMismatch) => {
                    self.reject_log(group, &error.message);
                    return Err(error.into());
                }
                Err(error) => return Err(error.into()),
            };
            let entries = page.entries.into_iter().map(wire::entry).collect::<Result<Vec<_>, _>>()?;
            if entries.is_empty() {
                return if seq == 0 {
                    Ok(())
                } else {
                    Err(Error::Protocol(format!(
                        "entry {seq} was accepted, but the log ends at {}",
                        record.seq
                    )))
                };
            }
            self.deliver(group, entries)?;
            let head = page.head.map_or(0, |head| head.seq);
            if seq == 0 && self.record(group)?.seq >= head {
                return Ok(());
            }
        }
    }

    /// Applies entries, a few in each transaction. What was applied in front of a bad one stays applied.
    pub(super) fn deliver(&self, group: &GroupId, entries: Vec<Entry>) -> Result<(), Error> {
        let me = self.id();
        for batch in entries.chunks(FOLLOW_BATCH_ENTRIES) {
            let outcome = self.with_group(group, |work| {
                Ok(batch.iter().try_for_each(|entry| group::apply(work, entry, me)))
            })?;
            match outcome {
                Ok(()) => {}
                // A gap is the reader's affair: it reads again from the cursor.
                Err(error @ Error::Log(ChainError::Seq { .. })) => return Err(error),
                Err(Error::Log(error)) => {
                    self.reject_log(group, &error.to_string());
                    return Err(error.into());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The log does not fit: says so, and leaves everything as it is.
    pub(super) fn reject_log(&self, group: &GroupId, reason: &str) {
        let kind = EventKind::LogRejected { reason: reason.to_owned() };
        self.publish(vec![Event { group: group.clone(), kind }]);
    }
}
