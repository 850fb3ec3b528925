//! Branch entries: read, offered and brought by clients.

use concordat_proto::{
    convert,
    gateway::v1::{
        OfferBranchEntriesRequest, OfferBranchEntriesResponse, ReadBranchEntriesRequest,
        ReadBranchEntriesResponse, UploadBranchEntriesRequest, UploadBranchEntriesResponse,
    },
};
use group_log::{ClientId, EntryId, fork::BranchEntry};
use prost::Message;

use super::{Api, group_id};
use crate::{
    demls::{Group, branch::Hanging, subscription::event},
    error::GatewayError,
    limits::{BRANCH_IDS_MAX, BRANCH_PAGE_BYTES},
    relay,
};

impl Api {
    pub(super) async fn read_branch(
        &self,
        client: ClientId,
        request: ReadBranchEntriesRequest,
    ) -> Result<ReadBranchEntriesResponse, GatewayError> {
        let group = self.registry()?.used(&group_id(request.group_id)?).await?;
        self.only_members_of(&group, &client).await?;
        let reader = self.demls_reader(&group, client, 0).await?;
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for id in ids(&request.entry_ids)? {
            let found = match group.find(&id).await? {
                None if group.is_dead(&id)? => self.put_aside(&group, &id).await?,
                found => found,
            };
            let Some(found) = found else { continue };
            let size = found.entry.size();
            let found = event(found);
            if let Some(reader) = &reader
                && !reader.sees(&found).await?
            {
                continue;
            }
            bytes += size;
            if bytes > BRANCH_PAGE_BYTES && !entries.is_empty() {
                break;
            }
            entries.push(found);
        }
        Ok(ReadBranchEntriesResponse { entries })
    }

    /// From a node: the copy of the log here does not reach back to where it was put aside.
    async fn put_aside(&self, group: &Group, id: &EntryId) -> Result<Option<Hanging>, GatewayError> {
        let bodies = self.cluster.reader.branch_entries(&group.id, &[*id]).await?;
        let entry = bodies.into_iter().filter_map(|body| BranchEntry::try_from(body).ok());
        let Some(entry) = entry.into_iter().find(|entry| entry.id() == *id) else { return Ok(None) };
        Ok(group.hanging_dead(entry)?)
    }

    pub(super) async fn offer_branch(
        &self,
        client: &ClientId,
        request: OfferBranchEntriesRequest,
    ) -> Result<OfferBranchEntriesResponse, GatewayError> {
        let group = self.registry()?.used(&group_id(request.group_id)?).await?;
        self.only_members_of(&group, client).await?;
        let mut missing = Vec::new();
        for id in ids(&request.entry_ids)? {
            if !group.has(&id).await? {
                missing.push(id.to_bytes());
            }
        }
        Ok(OfferBranchEntriesResponse { missing })
    }

    pub(super) async fn upload_branch(
        &self,
        bringer: ClientId,
        request: UploadBranchEntriesRequest,
    ) -> Result<UploadBranchEntriesResponse, GatewayError> {
        let (group_id, bytes) = (group_id(request.group_id.clone())?, request.encoded_len());
        self.meter.client(&bringer, bytes)?;
        let group = self.registry()?.used(&group_id).await?;
        self.only_members_of(&group, &bringer).await?;
        let _under_way = self.meter.group(&group_id, bytes)?;
        Ok(UploadBranchEntriesResponse { new_entries: relay::take_in(&group, request.entries).await? })
    }
}

fn ids(ids: &[bytes::Bytes]) -> Result<Vec<EntryId>, GatewayError> {
    if ids.len() > BRANCH_IDS_MAX {
        return Err(GatewayError::bad_field("entry_ids", format!("at most {BRANCH_IDS_MAX}"), ids.len()));
    }
    ids.iter().map(|id| convert::entry_id("entry_ids", id).map_err(GatewayError::bad_wire)).collect()
}
