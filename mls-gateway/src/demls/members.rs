//! Who writes to and reads a DeMLS group, judged by the states that this gateway has, so also on a branch and without the cluster.
//!
//! Somebody is a member where the state's tree has a leaf of its. A group whose trees are not published has no members here.

use std::{collections::BTreeSet, sync::Arc};

use concordat_proto::{gateway::v1::BranchEvent, log::v1 as pb};
use group_log::{
    ClientId, EntryId, StateId, View,
    fork::{BranchEntry, ForkView, Recorded},
};

use super::{
    group::{Core, Group},
    states::Members,
    store::StoreError,
};
use crate::{
    access::{denied, rules::Standing},
    error::GatewayError,
    mls::changes_members,
};

impl Group {
    /// Who is in a state; nothing if its tree is not seen.
    pub async fn members(self: &Arc<Self>, state: &StateId) -> Result<Option<Members>, StoreError> {
        if let Some(known) = self.states.lock().known_members(state) {
            return Ok(Some(known));
        }
        let (group, state) = (Arc::clone(self), *state);
        let looked = tokio::task::spawn_blocking(move || group.states.lock().members(&state)).await;
        looked.unwrap_or_else(|error| Err(StoreError::Database(error.to_string())))
    }

    async fn is_in(self: &Arc<Self>, client: &ClientId, states: &[StateId]) -> Result<bool, StoreError> {
        for state in states {
            if self.members(state).await?.is_some_and(|members| members.contains(client)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A client is in one of the states that the group can go on from here.
    pub async fn is_member(self: &Arc<Self>, client: &ClientId) -> Result<bool, StoreError> {
        let ends = self.ends(&*self.core.lock().await)?;
        self.is_in(client, &ends).await
    }

    /// A client is in the state `made_in`, and nothing that this gateway knows of to come after it has removed it.
    pub async fn may_write(
        self: &Arc<Self>,
        client: &ClientId,
        made_in: &StateId,
    ) -> Result<bool, StoreError> {
        Ok(self.is_in(client, &[*made_in]).await? && self.is_member_after(client, made_in).await?)
    }

    /// A client is in one of the states that come after this one; if none does, in one that the group can go on from.
    async fn is_member_after(
        self: &Arc<Self>,
        client: &ClientId,
        state: &StateId,
    ) -> Result<bool, StoreError> {
        let core = self.core.lock().await;
        let ends = self.ends(&core)?;
        let mut after = Vec::new();
        for end in &ends {
            if self.comes_after(&core, state, end)? {
                after.push(*end);
            }
        }
        drop(core);
        self.is_in(client, if after.is_empty() { &ends } else { &after }).await
    }

    /// The states that the group can go on from: where the log ends, unless a branch goes on from there, and the ends of branches.
    fn ends(&self, core: &Core) -> Result<Vec<StateId>, StoreError> {
        let commits = core.unrecorded.iter().filter_map(|id| Some((id, core.tree.get(id)?)));
        let commits: Vec<_> = commits.filter(|(_, entry)| entry.is_commit()).collect();
        let continued: BTreeSet<StateId> = commits.iter().map(|(_, entry)| entry.parent).collect();
        let head = self.rows.head()?.map(|head| head.state_id);
        let ends = commits.iter().map(|(id, _)| id.as_state()).chain(head);
        Ok(ends.filter(|state| !continued.contains(state)).collect())
    }

    /// `end` is `state`, or was reached from it.
    fn comes_after(&self, core: &Core, state: &StateId, end: &StateId) -> Result<bool, StoreError> {
        let epoch = |at: &StateId| -> Result<Option<u64>, StoreError> {
            Ok(match self.rows.recorded(&EntryId::from(*at))? {
                Some(Recorded::Canonical { epoch, is_state: true, .. }) => Some(epoch),
                _ => None,
            })
        };
        let mut at = *end;
        loop {
            if at == *state {
                return Ok(true);
            }
            if let Some(reached) = epoch(&at)? {
                // Of canonical states there is one for each epoch.
                return Ok(epoch(state)?.is_some_and(|from| from <= reached));
            }
            let Some(entry) = core.tree.get(&at.into()) else { return Ok(false) };
            at = entry.parent;
        }
    }
}

/// A client that reads a group, and how far.
pub struct Reader {
    group: Arc<Group>,
    client: ClientId,
}

impl Reader {
    /// Lets a client in that has read up to the entry `from` of the log: if it is a member, or was one there.
    pub async fn admit(group: &Arc<Group>, client: ClientId, from: u64) -> Result<Self, GatewayError> {
        let reader = Self { group: Arc::clone(group), client };
        if !group.is_member(&reader.client).await? && !reader.was_member_at(from).await? {
            return Err(denied(Standing::Stranger));
        }
        Ok(reader)
    }

    async fn was_member_at(&self, seq: u64) -> Result<bool, GatewayError> {
        match self.group.rows.record(seq)? {
            Some(record) => Ok(self.group.is_in(&self.client, &[record.state_after]).await?),
            None => Ok(false),
        }
    }

    /// After an entry of the log was passed on: fails if it was the last one for this reader.
    pub async fn has_read(&self, entry: &pb::Entry) -> Result<(), GatewayError> {
        let until = entry.seq;
        if !changes_members(entry)
            || self.was_member_at(until).await?
            || self.group.is_member(&self.client).await?
        {
            return Ok(());
        }
        Err(denied(Standing::Removed { until }))
    }

    /// Whether the reader is shown where the log ends.
    pub async fn sees_head(&self) -> Result<bool, GatewayError> {
        Ok(self.group.is_member(&self.client).await?)
    }

    /// Whether the reader is shown an entry of a branch: one that was made in a state that it was in, or that leads to one.
    pub async fn sees(&self, event: &BranchEvent) -> Result<bool, GatewayError> {
        let Some(entry) = event.entry.clone() else { return Ok(false) };
        let entry = BranchEntry::try_from(entry).map_err(GatewayError::bad_wire)?;
        if self.group.is_in(&self.client, &[entry.parent]).await? {
            return Ok(true);
        }
        let state = if entry.is_commit() { entry.id().as_state() } else { entry.parent };
        Ok(self.group.is_member_after(&self.client, &state).await?)
    }
}
