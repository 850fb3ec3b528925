//! Only members use a group: what is asked of [`crate::access`] for each call.

use std::{collections::BTreeSet, sync::Arc};

use concordat_proto::log::v1 as log;
use group_log::{ClientId, GroupId, StateId, fork::Mode};
use tokio::time::timeout;

use super::{Api, submit::Parsed};
use crate::{
    access::{
        Knowledge, denied,
        rules::{Act, Leave, Sender, Standing},
    },
    cluster::{Final, LogReader},
    demls::{Group, members as demls, states::Looked},
    error::GatewayError,
    limits::{MODE_PATIENCE, PARENT_PATIENCE, READ_DEADLINE},
    mls::{self, MessageIn, MessageKind, Ticket, changes_members},
};

impl Api {
    /// The group, if it is a DeMLS group and only for its members.
    async fn guarded_demls(&self, group_id: &GroupId) -> Result<Option<Arc<Group>>, GatewayError> {
        match &self.demls {
            Some(registry)
                if self.access.is_some() && registry.kind(group_id).await? == log::GroupKind::Demls =>
            {
                Ok(Some(registry.used(group_id).await?))
            }
            _ => Ok(None),
        }
    }

    /// Whether a client may submit to a DeMLS group what was made in the state `made_in`.
    pub(super) async fn may_submit_demls(
        &self,
        group: &Arc<Group>,
        author: &ClientId,
        made_in: &StateId,
        message: &MessageIn,
        looked: &Looked,
    ) -> Result<(), GatewayError> {
        if self.access.is_none() {
            return Ok(());
        }
        if looked.author.as_ref().is_some_and(|made_by| made_by != author.as_bytes()) {
            return Err(not_own());
        }
        let joins = message.public.as_ref().map_or(Sender::Member, mls::sender) == Sender::NewMemberCommit;
        // Somebody who brings himself in has shown that he knew the GroupInfo, if that could be checked.
        if (joins && looked.author.is_some()) || group.may_write(author, made_in).await? {
            Ok(())
        } else {
            Err(denied(Standing::Stranger))
        }
    }

    /// A reader of a DeMLS group that has read up to the entry `from`; nothing where everybody reads everything.
    pub(super) async fn demls_reader(
        &self,
        group: &Arc<Group>,
        client: ClientId,
        from: u64,
    ) -> Result<Option<demls::Reader>, GatewayError> {
        if self.access.is_none() {
            return Ok(None);
        }
        match demls::Reader::admit(group, client.clone(), from).await {
            Err(GatewayError::Denied(_)) => {
                self.catch_up(group).await;
                demls::Reader::admit(group, client, from).await.map(Some)
            }
            reader => reader.map(Some),
        }
    }

    /// Nobody is refused on the word of a copy that is behind: waits until it has what the cluster has, if that can be asked, or until
    /// something new has come to a branch, for a moment.
    async fn catch_up(&self, group: &Arc<Group>) {
        let (mut live, mut changes) = (group.live(), group.changes());
        if !*live.borrow_and_update() && group.mode() != Mode::Forked {
            let _ = timeout(MODE_PATIENCE, live.wait_for(|live| *live)).await;
        }
        let head = match self.available(&group.id).await {
            Ok(_) => self.cluster.reader.head(&group.id, true, false).await.ok(),
            Err(_) => None,
        };
        match (head, &self.demls) {
            (Some(answer), Some(registry)) => {
                registry.expect(&group.id, answer.head.seq);
                let _ = group.wait_for_entry(answer.head.seq, READ_DEADLINE).await;
            }
            _ => _ = timeout(PARENT_PATIENCE, changes.changed()).await,
        }
    }

    /// Fails unless a client is a member of a DeMLS group.
    pub(super) async fn only_members_of(
        &self,
        group: &Arc<Group>,
        client: &ClientId,
    ) -> Result<(), GatewayError> {
        if self.access.is_none() || group.is_member(client).await? {
            return Ok(());
        }
        self.catch_up(group).await;
        if group.is_member(client).await? { Ok(()) } else { Err(denied(Standing::Stranger)) }
    }

    /// Whether a client may submit this to a group that a quorum orders.
    pub(super) async fn may_submit(&self, parsed: &Parsed) -> Result<Leave, GatewayError> {
        let Some(access) = &self.access else { return Ok(Leave::Full) };
        let (epoch, kind) = (parsed.message.epoch, parsed.message.kind);
        let sender = parsed.message.public.as_ref().map_or(Sender::Member, mls::sender);
        let act = |now: u64| match kind {
            MessageKind::Commit => Act::Commit { sender, is_past: epoch < now },
            MessageKind::Proposal => Act::Propose,
            MessageKind::Application => Act::Send,
        };
        let knowledge = match kind {
            // The cluster accepts neither in another epoch than its own.
            MessageKind::Commit | MessageKind::Proposal => Knowledge::Of(epoch),
            MessageKind::Application => Knowledge::Current,
        };
        let (leave, _) = access.check(&parsed.message.group_id, &parsed.author, knowledge, 0, act).await?;
        Ok(leave)
    }

    /// A handshake was held against the group's tree, if it shows one: it must be the client's own, and must have been validated if
    /// only that lets it in.
    pub(super) fn is_own(
        &self,
        author: &ClientId,
        leave: Leave,
        ticket: Option<&Ticket>,
    ) -> Result<(), GatewayError> {
        if self.access.is_none() {
            return Ok(());
        }
        if leave == Leave::IfValid && ticket.is_none() {
            return Err(denied(Standing::Stranger));
        }
        match ticket.and_then(Ticket::author) {
            Some(made_by) if made_by != author.as_bytes() => Err(not_own()),
            _ => Ok(()),
        }
    }

    /// What became of a commit that no member has made is told to those who may read it.
    pub(super) async fn may_learn(
        &self,
        group_id: &GroupId,
        client: &ClientId,
        leave: Leave,
        outcome: &Result<Final, GatewayError>,
    ) -> Result<(), GatewayError> {
        if leave != Leave::IfShown {
            return Ok(());
        }
        let seq = match outcome {
            Ok(Final::Accepted(accepted)) => Some(accepted.seq),
            Ok(Final::Superseded(superseded)) => superseded.winner.as_ref().map(|winner| winner.seq),
            Err(GatewayError::Refused(_)) | Ok(_) => None,
            // Not an outcome.
            Err(_) => return Ok(()),
        };
        let seq = seq.ok_or_else(|| denied(Standing::Stranger))?;
        self.may_read(group_id, client, 0, seq.saturating_sub(1)).await.map(drop)
    }

    /// Whoever creates a group has to be in it.
    pub(super) fn may_create(
        &self,
        author: &ClientId,
        members: Option<&BTreeSet<ClientId>>,
    ) -> Result<(), GatewayError> {
        match members {
            Some(members) if self.access.is_some() && !members.contains(author) => Err(GatewayError::denied(
                "whoever creates a group has to be in it: a leaf's identity must be the client's id",
            )),
            _ => Ok(()),
        }
    }

    /// Whether a client may close a group or change its policy in this epoch.
    pub(super) async fn may_govern(
        &self,
        group_id: &GroupId,
        client: &ClientId,
        epoch: u64,
    ) -> Result<(), GatewayError> {
        let Some(access) = &self.access else { return Ok(()) };
        if let Some(group) = self.guarded_demls(group_id).await? {
            return self.only_members_of(&group, client).await;
        }
        access.check(group_id, client, Knowledge::Of(epoch), 0, |_| Act::Govern).await.map(drop)
    }

    /// How far a client may read after the entry `from` of a group, in answers that show nothing after `epoch`.
    pub(super) async fn may_read(
        &self,
        group_id: &GroupId,
        client: &ClientId,
        epoch: u64,
        from: u64,
    ) -> Result<(Leave, u64), GatewayError> {
        let Some(access) = &self.access else { return Ok((Leave::Full, u64::MAX)) };
        let read = access.check(group_id, client, Knowledge::AtLeast(epoch), from, |_| Act::Read).await?;
        match read {
            (Leave::UpTo(until), _) if until <= from => Err(denied(Standing::Removed { until })),
            read => Ok(read),
        }
    }

    /// Whether a client may see a group's head and GroupInfo, which are of `epoch`.
    pub(super) async fn may_see(
        &self,
        group_id: &GroupId,
        client: &ClientId,
        epoch: u64,
    ) -> Result<(), GatewayError> {
        let Some(access) = &self.access else { return Ok(()) };
        if let Some(group) = self.guarded_demls(group_id).await? {
            return self.only_members_of(&group, client).await;
        }
        access.check(group_id, client, Knowledge::AtLeast(epoch), 0, |_| Act::See).await.map(drop)
    }
}

/// A handshake of somebody else.
pub(super) fn not_own() -> GatewayError {
    GatewayError::denied(
        "a handshake is submitted by its author only: the identity in the sender's leaf must be the client's id",
    )
}

/// A subscriber of a group that a quorum orders, and how far it may read.
pub(super) struct Reader {
    api: Api,
    group_id: GroupId,
    client: ClientId,
    leave: Leave,
    /// The epoch up to which that is known.
    epoch: u64,
}

impl Reader {
    /// Lets a client in that has read up to the entry `from` of a group that has reached `epoch`.
    pub(super) async fn admit(
        api: &Api,
        group_id: &GroupId,
        client: ClientId,
        epoch: u64,
        from: u64,
    ) -> Result<Self, GatewayError> {
        let (leave, epoch) = api.may_read(group_id, &client, epoch, from).await?;
        Ok(Self { api: api.clone(), group_id: group_id.clone(), client, leave, epoch })
    }

    /// Before anything is shown: the entry `from` may lie beyond what this gateway had heard of when the reader was let in.
    pub(super) async fn is_at(&mut self, epoch: u64, from: u64) -> Result<(), GatewayError> {
        if self.leave == Leave::Full && epoch > self.epoch {
            (self.leave, self.epoch) = self.api.may_read(&self.group_id, &self.client, epoch, from).await?;
        }
        Ok(())
    }

    /// Whether the reader may be shown where the log ends.
    pub(super) fn sees_all(&self) -> bool {
        self.leave == Leave::Full
    }

    /// After an entry was passed on: fails if it was the last one for this reader.
    pub(super) async fn has_read(&mut self, entry: &Arc<log::Entry>) -> Result<(), GatewayError> {
        let epoch = entry.epoch.saturating_add(1);
        if self.leave == Leave::Full && changes_members(entry) && epoch > self.epoch {
            (self.leave, self.epoch) =
                self.api.may_read(&self.group_id, &self.client, epoch, entry.seq - 1).await?;
        }
        match self.leave {
            Leave::UpTo(until) if entry.seq >= until => Err(denied(Standing::Removed { until })),
            _ => Ok(()),
        }
    }
}
