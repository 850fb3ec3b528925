//! Getting into DeMLS groups: creating one, being invited, and coming back by oneself.

use std::sync::Arc;

use concordat_proto::{gateway::v1::GetHeadRequest, log::v1::PendingWelcome};
use group_log::{ChainHash, GroupId, HashLengthError, Policy, StateId};

use super::super::{Client, NewGroup};
use crate::{
    branches::{self, BranchWork},
    error::Error,
    group::{External, Invitation},
    provider::Provider,
    store::{IDENTITY, LeftReason, Resolution, Status, groups, namespace},
    wire,
};

fn broken(error: HashLengthError) -> Error {
    Error::Protocol(error.to_string())
}

impl Client {
    pub(in crate::client) async fn create_with_branches(
        &self,
        id: &GroupId,
        new: &NewGroup,
    ) -> Result<(), Error> {
        let private = self.options().private_handshakes;
        let known = self.with_store(|store| store.group_record(id))?;
        if known.is_some_and(|record| record.status != Status::Left(LeftReason::NeverJoined)) {
            return Err(Error::GroupExists);
        }
        let (state, (events, _)) = self.with_store(|store| {
            store.delete_group(id)?;
            store.transaction(|db| {
                let crypto = &self.inner.crypto;
                let (state, work) = branches::create(db, crypto, self.me(), id.clone(), new.policy, private)?;
                Ok::<_, Error>((state, work.save()?))
            })
        })?;
        self.publish(events);
        match self.settle_until_known(id, state).await? {
            Resolution::Merged { .. } => Ok(()),
            _ => Err(Error::Protocol("the create was answered with another commit".into())),
        }
    }

    /// Takes in a Welcome. Returns false if the client is in that state, or beyond it, already.
    pub(in crate::client) async fn accept_on_branches(
        &self,
        group: &GroupId,
        welcome: PendingWelcome,
    ) -> Result<bool, Error> {
        if self.record(group).is_ok_and(|record| record.pending.is_some()) {
            self.pursue_pending_on_branches(group).await?;
        }
        let state = StateId::from_slice(&welcome.state_id).map_err(broken)?;
        if self.record(group).is_ok_and(|record| record.status == Status::Active) {
            // Perhaps it was removed meanwhile and then added again: the log tells, and is read up to there first.
            self.catch_up_branches(group, welcome.seq).await?;
            if self.record(group)?.status == Status::Active {
                return Ok(false);
            }
        }
        let left = self.record(group).is_ok_and(|record| matches!(record.status, Status::Left(_)));
        if left && welcome.seq > 0 && self.record(group)?.seq >= welcome.seq {
            return Ok(false);
        }
        // It matters for nothing that could not be made good by the log.
        let request = GetHeadRequest { group_id: group.to_bytes(), linearizable: false };
        let head = self.transport().get_head(request).await;
        let policy = head.map_or_else(|_| Policy::default(), |head| wire::policy(head.policy));
        let provisional = welcome.seq == 0;
        let invitation = Invitation {
            group: group.clone(),
            kind: wire::kind(welcome.kind)?,
            welcome: welcome.welcome.to_vec(),
            seq: welcome.seq,
            chain: match provisional {
                true => ChainHash::START,
                false => ChainHash::from_slice(&welcome.chain_hash).map_err(broken)?,
            },
            epoch: welcome.epoch,
            state,
        };
        let private = self.options().private_handshakes;
        let (used_up, (events, _)) = self.with_store(|store| {
            let before = store.values(IDENTITY)?;
            let provider = Provider::new(Arc::clone(&self.inner.crypto), before.clone());
            store.transaction(|db| {
                let crypto = &self.inner.crypto;
                let old = groups::read_record(db, group)?
                    .is_some()
                    .then(|| BranchWork::load(db, crypto, group))
                    .transpose()?
                    .flatten();
                let work = branches::join_welcome(db, crypto, &provider, invitation, old, policy, private)?;
                let after = provider.values();
                namespace::write(db, IDENTITY, &before, &after)?;
                Ok::<_, Error>((before != after, work.save()?))
            })
        })?;
        self.publish(events);
        if !used_up {
            self.renew_last_resort().await?;
        }
        if self.record(group)?.status == Status::Waiting {
            self.catch_up_branches(group, welcome.seq).await?;
        }
        Ok(true)
    }

    /// Joins by an external commit. Only with a quorum: on a branch that loses, those elsewhere could not read it.
    pub(in crate::client) async fn rejoin_with_branches(&self, group: &GroupId) -> Result<(), Error> {
        let mut backoff = self.backoff();
        for _ in 0..self.options().max_commit_attempts {
            let request = GetHeadRequest { group_id: group.to_bytes(), linearizable: true };
            self.persist(|| self.transport().get_head(request.clone())).await?;
            let group_id = group.to_bytes();
            let answer = self.persist(|| self.transport().get_group_info(group_id.clone())).await?;
            let head = answer.head.ok_or_else(|| Error::Protocol("a GroupInfo without a head".into()))?;
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
            let (state, (events, _)) = self.with_store(|store| {
                store.transaction(|db| {
                    let crypto = &self.inner.crypto;
                    let (state, work) = branches::join_external(db, crypto, self.me(), external, private)?;
                    Ok::<_, Error>((state, work.save()?))
                })
            })?;
            self.publish(events);
            if let Resolution::Merged { .. } = self.settle_until_known(group, state).await? {
                return Ok(());
            }
            self.rest(&mut backoff).await;
        }
        Err(Error::Contention { attempts: self.options().max_commit_attempts })
    }
}
