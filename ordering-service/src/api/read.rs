//! Unary reads: from what is applied here, or linearizable on request.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use concordat_proto::{
    convert::{self, WireError},
    log::v1::{Head as WireHead, InboxCursor, PendingWelcome, Refused, ShardPosition},
    ordering::v1::{
        GetHeadRequest, GetHeadResponse, GetKeyPackageStatusRequest, GetKeyPackageStatusResponse,
        LocateRequest, LocateResponse, ReadBranchEntriesRequest, ReadBranchEntriesResponse,
        ReadEntriesRequest, ReadEntriesResponse, ReadInboxRequest, ReadInboxResponse,
    },
};
use group_log::Head;

use super::{
    find::{self, blocking, check_client_id, check_group_id},
    linearize::linearize,
};
use crate::{
    error::{ApiError, malformed, too_large},
    limits,
    node::Node,
    raft::{shard::SharedShard, types::ShardId},
};

/// One page of a group's log.
///
/// # Errors
/// See [`ApiError`].
pub async fn entries(node: &Arc<Node>, request: ReadEntriesRequest) -> Result<ReadEntriesResponse, ApiError> {
    let (seq, chain) = find::cursor(request.cursor)?;
    let max = match usize::try_from(request.max_entries).unwrap_or(usize::MAX) {
        0 => limits::READ_ENTRIES_DEFAULT,
        n => n.min(limits::READ_ENTRIES),
    };
    let (shard, _) = group(node, &request.group_id, request.linearizable).await?;
    let group_id = request.group_id;
    blocking(move || {
        let head = shard.reader().head(&group_id)?.ok_or_else(find::not_found)?;
        find::check_cursor(shard.reader(), &group_id, &head, seq, chain)??;
        let entries = shard.reader().entries(&group_id, seq, max, limits::ENTRIES_BYTES)?;
        Ok(ReadEntriesResponse { entries, head: Some(WireHead::from(&head)) })
    })
    .await
}

/// Payloads of branch entries, by id.
///
/// # Errors
/// See [`ApiError`].
pub async fn branch_entries(
    node: &Arc<Node>,
    request: ReadBranchEntriesRequest,
) -> Result<ReadBranchEntriesResponse, ApiError> {
    let count = request.ids.len();
    if count > limits::BRANCH_ENTRIES {
        return Err(too_large("ids", limits::BRANCH_ENTRIES, count).into());
    }
    let ids = request.ids.iter().map(|id| Ok(convert::entry_id("ids", id)?.0));
    let ids = ids.collect::<Result<Vec<_>, WireError>>().map_err(|error| Refused::from(&error))?;
    let (shard, _) = group(node, &request.group_id, false).await?;
    blocking(move || {
        let entries = shard.reader().branch_entries(&request.group_id, &ids, limits::ENTRIES_BYTES)?;
        Ok(ReadBranchEntriesResponse { entries })
    })
    .await
}

/// A group's head.
///
/// # Errors
/// See [`ApiError`].
pub async fn head(node: &Arc<Node>, request: GetHeadRequest) -> Result<GetHeadResponse, ApiError> {
    let (shard, _) = group(node, &request.group_id, request.linearizable).await?;
    blocking(move || {
        // A GroupInfo that is newer than the head says so by its epoch.
        let head = shard.reader().head(&request.group_id)?.ok_or_else(find::not_found)?;
        let info = match request.include_group_info {
            true => shard.reader().group_info(&request.group_id)?,
            false => None,
        };
        Ok(GetHeadResponse {
            head: Some(WireHead::from(&head)),
            shard: shard.id(),
            group_info_epoch: info.as_ref().map_or(0, |info| info.epoch),
            group_info: info.map(|info| info.message).unwrap_or_default(),
        })
    })
    .await
}

/// The shard that a group was assigned to.
///
/// # Errors
/// See [`ApiError`].
pub async fn locate(node: &Arc<Node>, request: LocateRequest) -> Result<LocateResponse, ApiError> {
    check_group_id(&request.group_id)?;
    let directory = directory(node, request.linearizable).await?;
    let shard = blocking(move || Ok(directory.reader().locate(&request.group_id)?)).await?;
    Ok(LocateResponse { found: shard.is_some(), shard: shard.unwrap_or_default() })
}

/// One page of a client's Welcomes, from all data shards.
///
/// # Errors
/// See [`ApiError`].
pub async fn inbox(node: &Arc<Node>, request: ReadInboxRequest) -> Result<ReadInboxResponse, ApiError> {
    check_client_id(&request.client_id)?;
    let max = match usize::try_from(request.max_welcomes).unwrap_or(usize::MAX) {
        0 => limits::READ_WELCOMES,
        n => n.min(limits::READ_WELCOMES),
    };
    let positions = positions(request.cursor)?;
    let shards = node.readable()?;
    let data: Vec<SharedShard> = shards.iter().skip(1).cloned().collect();
    if request.linearizable {
        for shard in &data {
            linearize(node, shard).await?;
        }
    }
    let page = blocking(move || read_inbox(&data, &request.client_id, &positions, max)).await?;
    Ok(ReadInboxResponse { welcomes: page.welcomes })
}

/// How many KeyPackages of a client are left.
///
/// # Errors
/// See [`ApiError`].
pub async fn key_package_status(
    node: &Arc<Node>,
    request: GetKeyPackageStatusRequest,
) -> Result<GetKeyPackageStatusResponse, ApiError> {
    check_client_id(&request.client_id)?;
    let directory = directory(node, request.linearizable).await?;
    let status = blocking(move || Ok(directory.reader().key_package_status(&request.client_id)?)).await?;
    Ok(GetKeyPackageStatusResponse {
        one_time_left: status.one_time_left,
        has_last_resort: status.has_last_resort,
    })
}

async fn directory(node: &Arc<Node>, linearizable: bool) -> Result<SharedShard, ApiError> {
    let directory = node.readable()?.directory().clone();
    if linearizable {
        linearize(node, &directory).await?;
    }
    Ok(directory)
}

/// The shard of a group, and its head.
async fn group(
    node: &Arc<Node>,
    group_id: &Bytes,
    linearizable: bool,
) -> Result<(SharedShard, Head), ApiError> {
    check_group_id(group_id)?;
    if let Some((shard, head)) = lookup(node, group_id).await? {
        if linearizable {
            linearize(node, &shard).await?;
        }
        return Ok((shard, head));
    }
    if linearizable {
        for shard in node.readable()?.iter() {
            linearize(node, shard).await?;
        }
        if let Some(found) = lookup(node, group_id).await? {
            return Ok(found);
        }
    }
    Err(find::not_found().into())
}

async fn lookup(node: &Arc<Node>, group_id: &Bytes) -> Result<Option<(SharedShard, Head)>, ApiError> {
    let (node, group_id) = (node.clone(), group_id.clone());
    blocking(move || Ok(find::group(node.readable()?, &group_id)?)).await
}

/// Reads a place in an inbox: a position per shard, each shard once.
///
/// # Errors
/// More positions than there can be shards.
pub fn positions(cursor: Option<InboxCursor>) -> Result<BTreeMap<ShardId, u64>, ApiError> {
    let positions = cursor.unwrap_or_default().positions;
    let limit = usize::try_from(limits::DATA_SHARDS).unwrap_or(usize::MAX);
    if positions.len() > limit {
        let expected = format!("at most {limit} positions");
        return Err(malformed("cursor", &expected, positions.len()).into());
    }
    Ok(positions.into_iter().map(|ShardPosition { shard, position }| (shard, position)).collect())
}

/// A page of Welcomes.
pub struct InboxPage {
    /// Shard by shard, oldest first within a shard.
    pub welcomes: Vec<PendingWelcome>,
    /// There may be more.
    pub more: bool,
}

/// At most `max` Welcomes after the positions, of about [`limits::ENTRIES_BYTES`] together (but at least one).
///
/// # Errors
/// The storage failed.
pub fn read_inbox(
    data: &[SharedShard],
    client_id: &[u8],
    positions: &BTreeMap<ShardId, u64>,
    max: usize,
) -> Result<InboxPage, ApiError> {
    let (mut welcomes, mut bytes) = (Vec::new(), 0);
    for shard in data {
        let mut after = positions.get(&shard.id()).copied().unwrap_or(0);
        loop {
            if welcomes.len() >= max || bytes >= limits::ENTRIES_BYTES {
                return Ok(InboxPage { welcomes, more: true });
            }
            // Welcomes can be large: not more than a few beyond the bound are read.
            let few = limits::WELCOMES_AT_ONCE.min(max - welcomes.len());
            let page = shard.reader().inbox(client_id, after, few)?;
            after = page.last().map_or(after, position);
            bytes += page.iter().map(prost::Message::encoded_len).sum::<usize>();
            let last = page.len() < few;
            welcomes.extend(page);
            if last {
                break;
            }
        }
    }
    Ok(InboxPage { welcomes, more: false })
}

fn position(welcome: &PendingWelcome) -> u64 {
    welcome.cursor.iter().flat_map(|cursor| &cursor.positions).map(|place| place.position).max().unwrap_or(0)
}
