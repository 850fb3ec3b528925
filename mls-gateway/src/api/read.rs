//! Reading a group's log and its head.

use std::sync::Arc;

use concordat_proto::{
    gateway::v1::{
        GetGroupInfoRequest, GetGroupInfoResponse, GetHeadRequest, GetHeadResponse, ReadEntriesRequest,
        ReadEntriesResponse,
    },
    log::v1::{CanonicalCursor, GroupKind},
};
use group_log::{ChainHash, ClientId, Cursor, GroupId, check_cursor, fork::Mode};
use tokio::time::timeout;

use super::{Api, group_id, subscribe::canonical};
use crate::{
    access::rules::Leave,
    cluster::LogReader,
    demls::{Group, read, store::StoreError, subscription::for_client},
    error::GatewayError,
    fanout::{cursor_error, verify_page},
    limits::{BRANCH_PAGE_BYTES, MODE_PATIENCE, READ_DEADLINE, READ_PAGE_DEFAULT, READ_PAGE_MAX},
};

impl Api {
    /// A DeMLS group, whose log is read from the copy here; for a linearizable read once that has everything.
    async fn copied(
        &self,
        group_id: &GroupId,
        linearizable: bool,
    ) -> Result<Option<Arc<Group>>, GatewayError> {
        let Some(registry) = &self.demls else { return Ok(None) };
        if registry.kind(group_id).await? != GroupKind::Demls {
            return Ok(None);
        }
        let group = registry.used(group_id).await?;
        let mut live = group.live();
        if !*live.borrow_and_update() && group.mode() != Mode::Forked {
            let _ = timeout(MODE_PATIENCE, live.wait_for(|live| *live)).await;
        }
        if linearizable {
            self.available(group_id).await?;
            let head = self.cluster.reader.head(group_id, true, false).await?.head;
            registry.expect(group_id, head.seq);
            group.wait_for_entry(head.seq, READ_DEADLINE).await?;
        }
        Ok(Some(group))
    }

    pub(super) async fn read_page(
        &self,
        reader: ClientId,
        request: ReadEntriesRequest,
    ) -> Result<ReadEntriesResponse, GatewayError> {
        let group_id = group_id(request.group_id)?;
        let (seq, chain) = canonical(request.cursor)?;
        let max = match request.max_entries {
            0 => READ_PAGE_DEFAULT,
            max if max <= READ_PAGE_MAX => max,
            got => return Err(GatewayError::bad_field("max_entries", format!("0 to {READ_PAGE_MAX}"), got)),
        };
        if let Some(group) = self.copied(&group_id, request.linearizable).await? {
            let reader = self.demls_reader(&group, reader, seq).await?;
            let mut page = self.page_of(&group, seq, chain, max).await?;
            if let Some(reader) = reader {
                let mut shown = page.entries.len();
                for (at, entry) in page.entries.iter().enumerate() {
                    match reader.has_read(entry).await {
                        Ok(()) => {}
                        Err(GatewayError::Denied(_)) => {
                            shown = at + 1;
                            break;
                        }
                        Err(error) => return Err(error),
                    }
                }
                page.entries.truncate(shown);
                if !reader.sees_head().await? {
                    page.head = None;
                }
            }
            return Ok(page);
        }
        if request.linearizable {
            self.available(&group_id).await?;
        }
        self.may_read(&group_id, &reader, 0, seq).await?;
        let cursor = CanonicalCursor::new(seq, chain);
        let page = match self.cluster.reader.page(&group_id, cursor.clone(), max, request.linearizable).await
        {
            // A node that lags may not know a new group yet.
            Err(GatewayError::GroupNotFound) if !request.linearizable => {
                self.cluster.reader.page(&group_id, cursor, max, true).await
            }
            other => other,
        }?;
        if page.head.as_ref().is_some_and(|head| head.kind() == GroupKind::Demls) {
            return Err(GatewayError::NoStorage);
        }
        let chain = chain.or((seq == 0).then_some(ChainHash::START));
        verify_page(seq, chain, &page.entries)?;
        let (mut entries, mut head) = (page.entries, page.head);
        let epoch = head.as_ref().map_or(u64::MAX, |head| head.epoch);
        if let (Leave::UpTo(until), _) = self.may_read(&group_id, &reader, epoch, seq).await? {
            entries.retain(|entry| entry.seq <= until);
            head = None;
        }
        Ok(ReadEntriesResponse { entries, head })
    }

    pub(super) async fn read_head(
        &self,
        reader: ClientId,
        request: GetHeadRequest,
    ) -> Result<GetHeadResponse, GatewayError> {
        let group_id = group_id(request.group_id)?;
        if !request.linearizable
            && let Some(group) = self.copied(&group_id, false).await?
            && let Some(head) = group.head()?
        {
            self.only_members_of(&group, &reader).await?;
            return Ok(GetHeadResponse { head: Some((&head).into()) });
        }
        if request.linearizable {
            self.available(&group_id).await?;
        }
        let answer = match self.cluster.reader.head(&group_id, request.linearizable, false).await {
            Err(GatewayError::GroupNotFound) if !request.linearizable => {
                self.cluster.reader.head(&group_id, true, false).await
            }
            other => other,
        }?;
        self.may_see(&group_id, &reader, answer.head.epoch).await?;
        Ok(GetHeadResponse { head: Some(answer.head) })
    }

    /// Linearizable, because an external commit made from anything but the head is made in vain.
    pub(super) async fn read_group_info(
        &self,
        reader: ClientId,
        request: GetGroupInfoRequest,
    ) -> Result<GetGroupInfoResponse, GatewayError> {
        let group_id = group_id(request.group_id)?;
        let shard = self.available(&group_id).await?;
        if self.reaches_through_another(shard)
            && let Some(group) = self.demls.as_ref().and_then(|registry| registry.get(&group_id))
        {
            return self.group_info_of(&group, &reader).await;
        }
        let answer = self.cluster.reader.head(&group_id, true, true).await?;
        self.may_see(&group_id, &reader, answer.head.epoch).await?;
        if answer.group_info.is_empty() || answer.group_info_epoch != answer.head.epoch {
            return Err(GatewayError::GroupInfoBehind {
                head_epoch: answer.head.epoch,
                got: answer.group_info_epoch,
            });
        }
        Ok(GetGroupInfoResponse { group_info: answer.group_info, head: Some(answer.head) })
    }
}

impl Api {
    /// From the copy that is kept here, which follows the log through another gateway: the newest that can be had without a node.
    async fn group_info_of(
        &self,
        group: &Group,
        reader: &ClientId,
    ) -> Result<GetGroupInfoResponse, GatewayError> {
        let head = group.head()?.ok_or(GatewayError::GroupNotFound)?;
        self.may_see(&group.id, reader, head.epoch).await?;
        match group.rows.group_info(&head)? {
            Some(group_info) => Ok(GetGroupInfoResponse { group_info, head: Some((&head).into()) }),
            None => Err(GatewayError::GroupInfoBehind {
                head_epoch: head.epoch,
                got: head.epoch.saturating_sub(1),
            }),
        }
    }

    /// A page of the copy that is kept here.
    async fn page_of(
        &self,
        group: &Group,
        seq: u64,
        chain: Option<ChainHash>,
        max: u32,
    ) -> Result<ReadEntriesResponse, GatewayError> {
        let head = group.head()?.ok_or(GatewayError::Unreachable("the log was not read yet".into()))?;
        check_cursor(&group.rows, &head, &Cursor::Canonical { seq, chain })
            .map_err(StoreError::from)?
            .map_err(|error| cursor_error(&error))?;
        let paths = self.registry()?.paths();
        let entries = read(group, paths, seq, max as usize, BRANCH_PAGE_BYTES).await?.into_iter();
        let entries = entries.map(|stored| for_client(group, stored.entry)).collect::<Result<_, _>>()?;
        Ok(ReadEntriesResponse { entries, head: Some((&head).into()) })
    }
}
