//! Being invited, and coming back by oneself.

use std::{sync::Arc, time::Duration};

use concordat_proto::{
    gateway::v1::{AckWelcomesRequest, GetHeadRequest, WatchWelcomesRequest},
    log::v1::{PendingWelcome, Reason},
};
use futures::StreamExt;
use group_log::{ChainHash, GroupId, GroupKind, Policy, StateId};
use tokio::time::timeout;

use super::Client;
use crate::{
    error::Error,
    event::{Event, EventKind},
    group::{self, Coming, External, GroupWork, Invitation},
    provider::{Provider, Values},
    store::{IDENTITY, LeftReason, Resolution, Status},
    transport::CallStream,
    wire,
};

impl Client {
    /// Takes in the Welcomes that wait, until none has come for `quiet`. Returns the groups that were joined.
    pub async fn join_waiting(&self, quiet: Duration) -> Result<Vec<GroupId>, Error> {
        let mut welcomes = self.watch_welcomes().await?;
        let mut joined = Vec::new();
        while let Ok(Some(welcome)) = timeout(quiet, welcomes.next()).await {
            joined.extend(self.take_in(welcome?).await?);
        }
        if !joined.is_empty() {
            self.publish_key_packages().await?;
        }
        Ok(joined)
    }

    /// Joins a group by an external commit: for a member that cannot follow any more, or for whoever was told the group's id. What can
    /// still be read is read first.
    pub async fn rejoin(&self, group: &GroupId) -> Result<(), Error> {
        let turns = self.turns(group);
        let _turn = turns.commit.lock().await;
        self.rejoin_in_turn(group, Coming::AsAnybody).await
    }

    /// The log has moved on so far that what comes after this client's place is gone: it comes back by an external commit, unless it
    /// was removed meanwhile.
    pub(super) async fn come_back(&self, group: &GroupId) -> Result<(), Error> {
        let turns = self.turns(group);
        let _turn = turns.commit.lock().await;
        // Somebody else may have done it while this waited for its turn.
        match self.catch_up(group, 0).await {
            Err(error) if error.is_pruned() => self.come_back_in_turn(group).await,
            caught_up => caught_up,
        }
    }

    pub(super) async fn come_back_in_turn(&self, group: &GroupId) -> Result<(), Error> {
        let read = self.record(group)?.seq;
        let came = self.rejoin_in_turn(group, Coming::AsMember).await;
        match &came {
            Ok(()) => {
                let next = self.record(group)?.seq;
                let kind = EventKind::EntriesMissed { first: read + 1, last: next.saturating_sub(1) };
                self.publish(vec![Event { group: group.clone(), kind }]);
            }
            Err(Error::NotMember(_)) => self.find_removed(group)?,
            Err(_) => {}
        }
        came
    }

    /// The newest state has no leaf of this client: somebody has removed it, and the commit is gone.
    fn find_removed(&self, group: &GroupId) -> Result<(), Error> {
        self.with_group(group, |work| {
            work.forget_state(Status::Left(LeftReason::RemovedUnseen));
            work.events.push(EventKind::Left { reason: LeftReason::RemovedUnseen });
            Ok(())
        })
    }

    async fn rejoin_in_turn(&self, group: &GroupId, coming: Coming) -> Result<(), Error> {
        if self.record(group).is_ok_and(|record| record.status == Status::Active) {
            match self.catch_up(group, 0).await {
                // What is gone can not be read first.
                Err(error) if error.is_pruned() => {}
                caught_up => caught_up?,
            }
        }
        let request = GetHeadRequest { group_id: group.to_bytes(), linearizable: false };
        let head = self.persist(|| self.transport().get_head(request.clone())).await?;
        if wire::kind(head.kind)? == GroupKind::Demls {
            return self.rejoin_with_branches(group).await;
        }
        let mut backoff = self.backoff();
        for _ in 0..self.options().max_commit_attempts {
            let group_id = group.to_bytes();
            let answer = self.persist(|| self.transport().get_group_info(group_id.clone())).await?;
            let head = answer.head.ok_or_else(|| Error::Protocol("a GroupInfo without a head".into()))?;
            let broken = |e: group_log::HashLengthError| Error::Protocol(e.to_string());
            let external = External {
                group: group.clone(),
                kind: wire::kind(head.kind)?,
                policy: wire::policy(head.policy),
                group_info: answer.group_info.to_vec(),
                seq: head.seq,
                chain: ChainHash::from_slice(&head.chain_hash).map_err(broken)?,
                epoch: head.epoch,
                state: StateId::from_slice(&head.state_id).map_err(broken)?,
            };
            let private = self.options().private_handshakes;
            let (state, events) = self.with_store(|store| {
                let old = GroupWork::load(store, &self.inner.crypto, group)?;
                let provider = Provider::new(Arc::clone(&self.inner.crypto), Values::default());
                let (state, work) =
                    group::join_external(provider, self.me(), external, old, private, coming)?;
                Ok::<_, Error>((state, work.save(store)?))
            })?;
            self.publish(events);
            if let Some(Resolution::Merged { .. }) = self.settle(group, state).await? {
                return Ok(());
            }
            self.pause(&mut backoff, None).await;
        }
        Err(Error::Contention { attempts: self.options().max_commit_attempts })
    }

    pub(super) async fn watch_welcomes(&self) -> Result<CallStream<PendingWelcome>, Error> {
        let request = WatchWelcomesRequest { cursor: None };
        Ok(self.persist(|| self.transport().watch_welcomes(request.clone())).await?)
    }

    /// Takes in one Welcome, and acknowledges it once the group is stored. Returns the group if it was joined.
    pub(super) async fn take_in(&self, welcome: PendingWelcome) -> Result<Option<GroupId>, Error> {
        let group = GroupId::new(welcome.group_id.clone()).map_err(|e| Error::Protocol(e.to_string()))?;
        let cursor = welcome.cursor.clone();
        let joined = match self.accept(&group, welcome).await {
            Ok(joined) => joined,
            Err(error @ (Error::Mls { .. } | Error::Demls(_))) => {
                // It will never be of use, and must not be in the way of the next.
                let kind = EventKind::WelcomeUnusable { reason: error.to_string() };
                self.publish(vec![Event { group: group.clone(), kind }]);
                false
            }
            Err(error) => return Err(error),
        };
        let request = AckWelcomesRequest { cursor };
        self.persist(|| self.transport().ack_welcomes(request.clone())).await?;
        Ok(joined.then_some(group))
    }

    /// Returns false if the client is in that state, or beyond it, already.
    async fn accept(&self, group: &GroupId, welcome: PendingWelcome) -> Result<bool, Error> {
        let turns = self.turns(group);
        let _turn = turns.commit.lock().await;
        if wire::kind(welcome.kind)? == GroupKind::Demls {
            return self.accept_on_branches(group, welcome).await;
        }
        if self.record(group).is_ok_and(|record| record.pending.is_some()) {
            // Perhaps this client is coming back by itself already.
            self.pursue_pending(group).await?;
        }
        if self.record(group).is_ok_and(|record| record.seq >= welcome.seq) {
            return Ok(false);
        }
        if self.record(group).is_ok_and(|record| record.status == Status::Active) {
            // Perhaps it was removed meanwhile and then added again: the log tells, and is read up to there first.
            self.catch_up(group, welcome.seq).await?;
            if self.record(group)?.status == Status::Active {
                return Ok(false);
            }
        }
        let policy = self.policy_of(group).await?;
        let broken = |e: group_log::HashLengthError| Error::Protocol(e.to_string());
        let invitation = Invitation {
            group: group.clone(),
            kind: wire::kind(welcome.kind)?,
            welcome: welcome.welcome.to_vec(),
            seq: welcome.seq,
            chain: ChainHash::from_slice(&welcome.chain_hash).map_err(broken)?,
            epoch: welcome.epoch,
            state: StateId::from_slice(&welcome.state_id).map_err(broken)?,
        };
        let private = self.options().private_handshakes;
        let (used_up, events) = self.with_store(|store| {
            let old = GroupWork::load(store, &self.inner.crypto, group)?;
            let provider = Provider::new(Arc::clone(&self.inner.crypto), store.values(IDENTITY)?);
            let work = group::join_welcome(provider, invitation, old, policy, private)?;
            let used_up = work.identity.as_ref().is_some_and(|(before, after)| before != after);
            Ok::<_, Error>((used_up, work.save(store)?))
        })?;
        self.publish(events);
        if !used_up {
            // It was the one of last resort. The less often that one is used, the better.
            self.renew_last_resort().await?;
        }
        Ok(true)
    }

    /// The policy decides for how many epochs secrets are kept. Later changes of it are in the log.
    async fn policy_of(&self, group: &GroupId) -> Result<Policy, Error> {
        let request = GetHeadRequest { group_id: group.to_bytes(), linearizable: true };
        match self.persist(|| self.transport().get_head(request.clone())).await {
            Ok(head) => Ok(wire::policy(head.policy)),
            Err(error) if error.reason == Some(Reason::GroupNotFound) => Ok(Policy::default()),
            Err(error) => Err(error.into()),
        }
    }
}
