//! Changing a group: a commit is stored before it is sent, and pursued until the log has it or it has nothing left to do.

use std::collections::BTreeSet;

use concordat_proto::{
    gateway::v1::{CreateGroupRequest, submit_response::Outcome},
    log::v1::{self as pb, Reason},
};
use futures::FutureExt;
use group_log::{ClientId, GroupId, StateId};
use openmls_traits::OpenMlsProvider;
use tokio::time::Instant;

use super::{Change, Client, change::Add, counters::Tally};
use crate::{
    error::Error,
    group::{self, Intent, Invitee, MemberId},
    store::{LeftReason, PendingKind, Resolution, Status},
    wire,
};

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed {
    /// A commit of this client is in the log.
    Accepted {
        /// Number of its entry.
        seq: u64,
        /// The epoch after it.
        epoch: u64,
        /// How often it was built.
        attempts: u32,
    },
    /// A gateway without a quorum accepted a commit of this client. The log says later what became of it. DeMLS groups only.
    Provisional {
        /// The epoch after it.
        epoch: u64,
        /// How often it was built.
        attempts: u32,
    },
    /// Others had done everything already.
    NothingToDo,
}

impl Client {
    /// Invites clients.
    pub async fn invite(&self, group: &GroupId, clients: &[ClientId]) -> Result<Committed, Error> {
        self.commit(group, clients.iter().cloned().fold(Change::new(), Change::invite)).await
    }

    /// Removes members.
    pub async fn remove(&self, group: &GroupId, members: &[ClientId]) -> Result<Committed, Error> {
        self.commit(group, members.iter().cloned().fold(Change::new(), Change::remove)).await
    }

    /// Renews this client's keys.
    pub async fn update(&self, group: &GroupId) -> Result<Committed, Error> {
        self.commit(group, Change::new().update()).await
    }

    /// Makes a change by one commit. If another commit is first, the change is built again on it.
    ///
    /// If the gateway cannot answer in time the commit stays pending, and [`Client::resume`] or a running client goes on with it.
    pub async fn commit(&self, group: &GroupId, change: Change) -> Result<Committed, Error> {
        let turns = self.turns(group);
        let _turn = turns.commit.lock().await;
        match self.commit_in_turn(group, change.clone()).await {
            Err(error) if error.is_pruned() => {
                self.come_back_in_turn(group).await?;
                self.commit_in_turn(group, change).await
            }
            committed => committed,
        }
    }

    async fn commit_in_turn(&self, group: &GroupId, change: Change) -> Result<Committed, Error> {
        self.pursue_pending(group).await?;
        let intent = self.prepare(group, change).await?;
        if self.has_branches(group) {
            return self.pursue_on_branches(group, intent).await;
        }
        let committed = self.pursue(group, intent).await?;
        self.renew_turns(group).await?;
        Ok(committed)
    }

    /// Goes on with a commit of this client that is pending, if one is: learns what became of it, and builds it again if it lost. In a
    /// DeMLS group, does what is owed after a branch has lost, too.
    pub async fn resume(&self, group: &GroupId) -> Result<(), Error> {
        let turns = self.turns(group);
        let _turn = turns.commit.lock().await;
        match self.pursue_pending(group).await {
            Err(error) if error.is_pruned() => self.come_back_in_turn(group).await?,
            pursued => pursued?,
        }
        if self.has_branches(group) {
            self.repair_in_turn(group).await
        } else {
            self.renew_turns(group).await
        }
    }

    pub(super) async fn pursue_pending(&self, group: &GroupId) -> Result<(), Error> {
        if self.has_branches(group) {
            return self.pursue_pending_on_branches(group).await;
        }
        let Some(pending) = self.record(group)?.pending else { return Ok(()) };
        match self.settle(group, pending.state_id()).await? {
            Some(Resolution::Superseded { .. }) if pending.kind == PendingKind::Commit => {
                self.pursue(group, pending.intent).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Gets a KeyPackage for everybody who is to be added and is not a member yet.
    pub(super) async fn prepare(&self, group: &GroupId, change: Change) -> Result<Intent, Error> {
        let members: BTreeSet<_> = self.group(group)?.members.into_iter().collect();
        let mut add = Vec::new();
        for Add { client, key_package } in change.add {
            if members.contains(client.as_bytes()) {
                continue;
            }
            let key_package = match key_package {
                Some(key_package) => key_package,
                None => self.claim_key_package(&client).await?,
            };
            let client_id = MemberId(client.as_bytes().to_vec());
            add.push(Invitee { client_id, key_package: key_package.to_vec() });
        }
        let remove = change.remove.iter().map(|client| MemberId(client.as_bytes().to_vec())).collect();
        Ok(Intent { add, remove, update: change.update, proposals: change.proposals })
    }

    /// Builds and submits until the intent is fulfilled.
    async fn pursue(&self, group: &GroupId, intent: Intent) -> Result<Committed, Error> {
        let mut backoff = self.backoff();
        for attempts in 1..=self.options().max_commit_attempts {
            let built = self.with_group(group, |work| group::build_commit(work, &intent, self.me()))?;
            let Some(state) = built else { return Ok(Committed::NothingToDo) };
            match self.settle(group, state).await? {
                Some(Resolution::Merged { seq, epoch }) => {
                    return Ok(Committed::Accepted { seq, epoch, attempts });
                }
                Some(Resolution::Superseded { .. }) => {
                    Tally::count(&self.tally().rebased);
                    if attempts > 1 {
                        // Lost again: whoever is several commits behind must not walk through them one by one.
                        self.catch_up(group, 0).await?;
                    }
                    self.pause(&mut backoff, None).await;
                }
                Some(Resolution::Provisional { .. } | Resolution::SetAside) | None => {
                    return Err(Error::Protocol("a commit was answered, but is in no log".into()));
                }
            }
        }
        Err(Error::Contention { attempts: self.options().max_commit_attempts })
    }

    /// Submits the pending commit that leads to `state` until it has an answer, and applies that answer. Returns what became of it.
    /// Whoever follows the log meanwhile may be first to see that.
    pub(super) async fn settle(&self, group: &GroupId, state: StateId) -> Result<Option<Resolution>, Error> {
        let record = self.record(group)?;
        let Some(pending) = record.pending.as_ref().filter(|pending| pending.state_id() == state) else {
            return Ok(record.resolution_of(state));
        };
        let started = Instant::now();
        let answer = if pending.kind == PendingKind::Create {
            let request = CreateGroupRequest {
                group_info: pending.group_info.clone().into(),
                kind: pb::GroupKind::from(record.kind()).into(),
                policy: Some(record.policy().into()),
            };
            let create = || self.transport().create_group(request.clone());
            self.persist(|| create().map(|answer| answer.map(Outcome::Accepted)).boxed()).await
        } else {
            let request = wire::submit_pending(pending);
            match self.submit_in_turn(group, state, &request).await? {
                Some(answer) => answer,
                None => return Ok(self.record(group)?.resolution_of(state)),
            }
        };
        match answer {
            Ok(Outcome::Accepted(accepted)) => {
                self.tally().latency(started.elapsed());
                Tally::count(&self.tally().accepted);
                let accepted = accepted.try_into()?;
                let me = self.id();
                if !self.with_group(group, |work| group::apply_own(work, &accepted, me))? {
                    self.catch_up(group, accepted.seq).await?;
                }
            }
            Ok(Outcome::Superseded(superseded)) => {
                self.tally().latency(started.elapsed());
                match superseded.winner {
                    Some(winner) if winner.seq == self.record(group)?.seq + 1 => {
                        self.deliver(group, vec![wire::entry(winner)?])?;
                    }
                    Some(winner) => self.catch_up(group, winner.seq).await?,
                    // The winner was given up since: so was what comes after this client's place.
                    None => self.catch_up(group, 0).await?,
                }
            }
            Ok(Outcome::AcceptedProvisional(_) | Outcome::OnSide(_) | Outcome::RemoveFirst(_)) => {
                return Err(Error::Protocol("an answer that only DeMLS groups get".into()));
            }
            // Whether it is in the log nobody knows: it stays pending.
            Err(error) if error.is_temporary() => return Err(error.into()),
            Err(error) => {
                // Perhaps the log has moved on, and tells more than the refusal.
                if error.reason == Some(Reason::WrongState) {
                    self.catch_up(group, 0).await?;
                }
                if self.abandon(group, state)? {
                    Tally::count(&self.tally().refused);
                    return Err(error.into());
                }
            }
        }
        Ok(self.record(group)?.resolution_of(state))
    }

    /// The pending commit that leads to `state` was refused for good. Returns false if it is pending no more.
    fn abandon(&self, group: &GroupId, state: StateId) -> Result<bool, Error> {
        self.with_group(group, |work| {
            if work.record.pending.as_ref().is_none_or(|pending| pending.state_id() != state) {
                return Ok(false);
            }
            work.record.pending = None;
            if work.record.status == Status::Joining {
                work.forget_state(Status::Left(LeftReason::NeverJoined));
            } else if let Some(mls) = work.mls.as_mut() {
                mls.clear_pending_commit(work.provider.storage())
                    .map_err(|e| Error::mls("dropping a commit", e))?;
            }
            Ok(true)
        })
    }
}
