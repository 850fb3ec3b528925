//! Starting a group.

use std::sync::Arc;

use group_log::{GroupId, GroupKind, Policy};

use super::Client;
use crate::{
    error::Error,
    group,
    provider::{Provider, Values},
    store::{LeftReason, Resolution, Status},
};

/// A group to be created. The default is an MLS group with a random id and the default policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGroup {
    /// Its id; a random one if absent.
    pub id: Option<GroupId>,
    /// What it is, for good.
    pub kind: GroupKind,
    /// Its first policy.
    pub policy: Policy,
}

impl Default for NewGroup {
    fn default() -> Self {
        NewGroup { id: None, kind: GroupKind::Mls, policy: Policy::default() }
    }
}

impl Client {
    /// Creates a group with this client as its only member.
    ///
    /// If the gateway cannot answer, the create stays pending, and [`Client::resume`] or a running client goes on with it.
    pub async fn create_group(&self, new: NewGroup) -> Result<GroupId, Error> {
        if new.kind == GroupKind::Dimls {
            return Err(Error::Invalid(
                "this client makes groups of the kinds `mls` and `demls` only".into(),
            ));
        }
        let id = match &new.id {
            Some(id) => id.clone(),
            None => {
                GroupId::new(self.rng().bytes::<16>().to_vec()).map_err(|e| Error::Invalid(e.to_string()))?
            }
        };
        let turns = self.turns(&id);
        let _turn = turns.commit.lock().await;
        if new.kind == GroupKind::Demls {
            self.create_with_branches(&id, &new).await?;
            return Ok(id);
        }
        let (state, events) = self.with_store(|store| {
            let known = store.group_record(&id)?;
            if known.is_some_and(|record| record.status != Status::Left(LeftReason::NeverJoined)) {
                return Err(Error::GroupExists);
            }
            store.delete_group(&id)?;
            let provider = Provider::new(Arc::clone(&self.inner.crypto), Values::default());
            let private = self.options().private_handshakes;
            let (state, work) =
                group::create(provider, self.me(), id.clone(), new.kind, new.policy, private)?;
            Ok((state, work.save(store)?))
        })?;
        self.publish(events);
        match self.settle(&id, state).await? {
            Some(Resolution::Merged { .. }) => Ok(id),
            _ => Err(Error::Protocol("the create was answered with another commit".into())),
        }
    }
}
