//! Reading a group's log and its head.

use concordat_proto::{
    gateway::v1::{
        GetGroupInfoRequest, GetGroupInfoResponse, GetHeadRequest, GetHeadResponse, ReadEntriesRequest,
        ReadEntriesResponse,
    },
    log::v1::CanonicalCursor,
};
use group_log::ChainHash;

use super::{Api, group_id, subscribe::canonical};
use crate::{
    cluster::LogReader,
    error::GatewayError,
    fanout::verify_page,
    limits::{READ_PAGE_DEFAULT, READ_PAGE_MAX},
};

impl Api {
    pub(super) async fn read_page(
        &self,
        request: ReadEntriesRequest,
    ) -> Result<ReadEntriesResponse, GatewayError> {
        let group_id = group_id(request.group_id)?;
        let (seq, chain) = canonical(request.cursor)?;
        let max = match request.max_entries {
            0 => READ_PAGE_DEFAULT,
            max if max <= READ_PAGE_MAX => max,
            got => return Err(GatewayError::bad_field("max_entries", format!("0 to {READ_PAGE_MAX}"), got)),
        };
        if request.linearizable {
            self.available(&group_id).await?;
        }
        let cursor = CanonicalCursor::new(seq, chain);
        let page = match self.cluster.reader.page(&group_id, cursor.clone(), max, request.linearizable).await
        {
            // A node that lags may not know a new group yet.
            Err(GatewayError::GroupNotFound) if !request.linearizable => {
                self.cluster.reader.page(&group_id, cursor, max, true).await
            }
            other => other,
        }?;
        let chain = chain.or((seq == 0).then_some(ChainHash::START));
        verify_page(seq, chain, &page.entries)?;
        Ok(ReadEntriesResponse { entries: page.entries, head: page.head })
    }

    pub(super) async fn read_head(&self, request: GetHeadRequest) -> Result<GetHeadResponse, GatewayError> {
        let group_id = group_id(request.group_id)?;
        if request.linearizable {
            self.available(&group_id).await?;
        }
        let answer = match self.cluster.reader.head(&group_id, request.linearizable, false).await {
            Err(GatewayError::GroupNotFound) if !request.linearizable => {
                self.cluster.reader.head(&group_id, true, false).await
            }
            other => other,
        }?;
        Ok(GetHeadResponse { head: Some(answer.head) })
    }

    /// Linearizable, because an external commit made from anything but the head is made in vain.
    pub(super) async fn read_group_info(
        &self,
        request: GetGroupInfoRequest,
    ) -> Result<GetGroupInfoResponse, GatewayError> {
        let group_id = group_id(request.group_id)?;
        self.available(&group_id).await?;
        let answer = self.cluster.reader.head(&group_id, true, true).await?;
        if answer.group_info.is_empty() || answer.group_info_epoch != answer.head.epoch {
            return Err(GatewayError::GroupInfoBehind {
                head_epoch: answer.head.epoch,
                got: answer.group_info_epoch,
            });
        }
        Ok(GetGroupInfoResponse { group_info: answer.group_info, head: Some(answer.head) })
    }
}
