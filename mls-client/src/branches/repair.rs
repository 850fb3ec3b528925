//! After a branch has lost: first the removals that are owed, then what this client itself did there, then new keys.

use std::collections::BTreeSet;

use group_log::ClientId;
use openmls::prelude::LeafNodeIndex;

use super::work::BranchWork;
use crate::{
    demls::DmlsGroup,
    error::Error,
    group::{Intent, MemberId, members},
    identity::client_id_of,
    store::{Again, OwedRemoval, Status},
};

/// What a client has to do before it does anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Nothing.
    None,
    /// Others have to act: this client is to be removed itself.
    Wait,
    /// Remove these members, and nothing else.
    Remove(Vec<MemberId>),
    /// Do again what was done on a branch that lost.
    Again(Again),
}

/// What comes next for this client.
pub(crate) fn duty(work: &BranchWork<'_>, me: &ClientId) -> Result<Duty, Error> {
    if work.record.status != Status::Active {
        return Ok(Duty::None);
    }
    let current = work.active()?;
    if current == work.record.state_id() && !work.fork.owed.is_empty() {
        let owed: Vec<_> = work.fork.owed.iter().map(|owed| owed.member.clone()).collect();
        let is_owed = owed.iter().any(|member| member.0 == me.as_bytes());
        return Ok(if is_owed { Duty::Wait } else { Duty::Remove(owed) });
    }
    if work.record.leaving || work.fork.again.is_empty() {
        return Ok(Duty::None);
    }
    let opened = work.open(&current)?;
    let there: BTreeSet<_> = members(opened.mls()).into_iter().map(|(_, id)| MemberId(id)).collect();
    let again = &work.fork.again;
    Ok(Duty::Again(Again {
        add: again.add.iter().filter(|member| !there.contains(member)).cloned().collect(),
        remove: again
            .remove
            .iter()
            .filter(|member| there.contains(member) && member.0 != me.as_bytes())
            .cloned()
            .collect(),
        update: again.update,
    }))
}

/// A gateway answered that these leaves have to be removed first.
pub(crate) fn owe(work: &mut BranchWork<'_>, leaves: &[u32]) -> Result<(), Error> {
    work.owe(leaves)?;
    let head = work.record.state_id();
    if !work.states.contains(&head) {
        return Ok(());
    }
    let opened = work.open(&head)?;
    let refused = owed_at(&opened, leaves).into_iter().find(|owed| !work.fork.owed.contains(owed));
    refused.map_or(Ok(()), |owed| Err(Error::UnfoundedRemoval { member: hex::encode(owed.member.0) }))
}

impl BranchWork<'_> {
    /// What is owed at the head, as a gateway says. A removal is believed if a commit on the side made it, as far as those were read.
    pub(super) fn owe(&mut self, leaves: &[u32]) -> Result<(), Error> {
        let head = self.record.state_id();
        if !self.states.contains(&head) {
            self.fork.owed.clear();
            return Ok(());
        }
        let opened = self.open(&head)?;
        let dead = self.nodes.values().filter(|node| node.verdict.is_some_and(|verdict| verdict.dead));
        let (read, unread): (Vec<_>, Vec<_>) = dead.partition(|node| node.processed || node.is_own);
        let read: BTreeSet<_> = read.into_iter().map(|node| node.id).collect();
        let all_read = unread.is_empty();
        let before = &self.fork.owed;
        let founded = |owed: &OwedRemoval| {
            !all_read || before.contains(owed) || self.fork.has_removal(&read, &owed.member)
        };
        let (owed, unfounded): (Vec<_>, Vec<_>) =
            owed_at(&opened, leaves).into_iter().partition(|owed| founded(owed));
        if !unfounded.is_empty() {
            tracing::warn!("a gateway demands a removal that no branch made; it is not carried out");
        }
        self.fork.owed = owed;
        Ok(())
    }

    /// Keeps owing what the new head does not carry out.
    pub(super) fn keep_owing(&mut self, head: &DmlsGroup) {
        self.fork.owed.retain(|owed| {
            let there = head.mls().member_at(LeafNodeIndex::new(owed.leaf));
            there.is_some_and(|member| client_id_of(&member.credential) == owed.member.0)
        });
    }

    /// An own commit has lost.
    pub(super) fn do_again(&mut self, intent: &[u8]) -> Result<(), Error> {
        let damaged = |e| Error::Store(crate::store::StoreError::damaged("intent of a commit", e));
        let intent: Intent = serde_json::from_slice(intent).map_err(damaged)?;
        self.fork.again.take(&intent);
        Ok(())
    }

    /// What was to be done again is done, as far as it was in `done`.
    pub(crate) fn did_again(&mut self, done: &Again) {
        let again = &mut self.fork.again;
        again.add.retain(|member| !done.add.contains(member));
        again.remove.retain(|member| !done.remove.contains(member));
        again.update &= !done.update;
    }
}

fn owed_at(head: &DmlsGroup, leaves: &[u32]) -> Vec<OwedRemoval> {
    let named = |leaf: &u32| {
        let member = head.mls().member_at(LeafNodeIndex::new(*leaf))?;
        let member = MemberId(client_id_of(&member.credential).to_vec());
        Some(OwedRemoval { leaf: *leaf, member })
    };
    leaves.iter().filter_map(named).collect()
}
