//! DeMLS groups: what a client does differently where a group may go on without a quorum.

mod commits;
mod follow;
mod join;
mod messages;
mod repair;

use concordat_proto::log::v1::{self as pb, Reason};
use group_log::{
    Content, GroupId, GroupKind, StateId,
    fork::{BranchEntry, CommitFacts},
};
use prost::Message;

use super::{Client, retry::Backoff};
use crate::{
    branches::BranchWork,
    error::Error,
    group::GroupView,
    store::{OutboxItem, OutboxKind, Pending},
    transport::{Call, CallError},
    wire,
};

impl Client {
    /// Whether a group may have branches.
    pub(super) fn has_branches(&self, group: &GroupId) -> bool {
        self.record(group).is_ok_and(|record| record.kind() == GroupKind::Demls)
    }

    pub(super) fn branch_view(&self, group: &GroupId) -> Result<GroupView, Error> {
        self.with_branches(group, |work| work.view())
    }

    /// Loads a DeMLS group, works on it, and stores all of it; or nothing, if the work fails.
    pub(super) fn with_branches<T>(
        &self,
        group: &GroupId,
        work: impl FnOnce(&mut BranchWork<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let crypto = &self.inner.crypto;
        let (result, (events, changed)) = self.with_store(|store| {
            store.transaction(|db| {
                let mut loaded = BranchWork::load(db, crypto, group)?.ok_or(Error::UnknownGroup)?;
                let result = work(&mut loaded)?;
                Ok::<_, Error>((result, loaded.save()?))
            })
        })?;
        // Whoever waits for a change looks at the group when there is one, which is none itself.
        if changed {
            self.publish(events);
        }
        Ok(result)
    }

    /// Makes a submission again until it has an answer, for as long as the client's patience lasts. A state that the gateway does not
    /// know yet is not waited for: perhaps only this client knows it.
    pub(super) async fn persist_on_branches<'a, T>(
        &'a self,
        call: impl Fn() -> Call<'a, T>,
    ) -> Result<T, CallError> {
        self.persist_unless(call, |error| error.reason == Some(Reason::EpochAhead)).await
    }

    /// Waits a little before trying again.
    async fn rest(&self, backoff: &mut Backoff) {
        self.pause(backoff, None).await;
    }

    /// What a pending commit is on a branch.
    fn pending_on_branch(&self, pending: &Pending) -> Result<Vec<u8>, Error> {
        let content = wire::commit_content(pending).map_err(|e| Error::Invalid(e.to_string()))?;
        Ok(self.on_branch(pending.parent(), content))
    }

    /// What a message is on a branch.
    fn item_on_branch(&self, item: &OutboxItem) -> Vec<u8> {
        let message = item.message.clone().into();
        let content = match item.kind {
            OutboxKind::Message => Content::Application { message },
            OutboxKind::Leave => Content::Proposal { message },
        };
        self.on_branch(item.state_id(), content)
    }

    fn on_branch(&self, parent: StateId, content: Content) -> Vec<u8> {
        let entry = BranchEntry { parent, author: self.id().clone(), content, facts: CommitFacts::default() };
        pb::BranchEntry::from(entry).encode_to_vec()
    }
}
