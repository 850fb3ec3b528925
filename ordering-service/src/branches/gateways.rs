//! Registered gateways, for operators: who holds `Stable` back, and how to stop waiting for one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use concordat_proto::{
    convert::GroupCommand,
    ordering::v1::{ListGatewaysResponse, RegisteredGateway},
};
use futures::{StreamExt, stream};
use group_log::{
    GroupId,
    fork::{Command as ForkCommand, GatewayId},
};

use super::propose::propose;
use crate::{
    api::find::blocking,
    error::ApiError,
    limits,
    node::Node,
    raft::shard::{Shard, SharedShard},
    storage::ShardReader,
};

/// All registered gateways, as far as this node has applied. Reads the state of every group that has any: for operators only.
///
/// # Errors
/// The node belongs to no cluster, or its storage failed.
pub async fn list(node: &Arc<Node>) -> Result<ListGatewaysResponse, ApiError> {
    let data: Vec<SharedShard> = node.readable()?.iter().skip(1).cloned().collect();
    let live = node.live_gateways();
    let found = blocking(move || {
        let mut found: BTreeMap<GatewayId, RegisteredGateway> = BTreeMap::new();
        for shard in &data {
            collect(shard.reader(), &mut found)?;
        }
        Ok(found)
    });
    let gateways = found.await?.into_iter().map(|(id, gateway)| RegisteredGateway {
        gateway_id: Bytes::copy_from_slice(&id.0),
        connected: live.contains(&id),
        ..gateway
    });
    Ok(ListGatewaysResponse { gateways: gateways.collect() })
}

fn collect(reader: &ShardReader, found: &mut BTreeMap<GatewayId, RegisteredGateway>) -> Result<(), ApiError> {
    for known in reader.gateways(limits::GATEWAYS_PER_SHARD)? {
        let gateway = found.entry(known.id).or_default();
        each_group(reader, &known.id, |group| {
            gateway.groups += 1;
            if reader.holding_back(group)?.contains(&known.id) {
                gateway.holds_back += 1;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Gateways whose acknowledgement is missing for something to become stable in any group of a shard. Looks at so many groups at most, and
/// no further once all of `known` are found.
///
/// # Errors
/// The storage failed.
pub(crate) fn holding_back(reader: &ShardReader, known: usize) -> Result<usize, ApiError> {
    let (mut found, mut after, mut left) = (BTreeSet::new(), None::<Bytes>, limits::UNSTABLE_GROUPS_COUNTED);
    while found.len() < known && left > 0 {
        let page = reader.unstable_groups(after.as_deref(), limits::GROUPS_PER_PAGE.min(left))?;
        let Some(last) = page.last() else { break };
        left -= page.len();
        after = Some(last.clone());
        for group in &page {
            found.extend(reader.holding_back(group)?);
        }
    }
    Ok(found.len())
}

fn each_group(
    reader: &ShardReader,
    gateway: &GatewayId,
    mut each: impl FnMut(&Bytes) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let mut after = None::<Bytes>;
    loop {
        let page = reader.groups_of(gateway, after.as_deref(), limits::GROUPS_PER_PAGE)?;
        page.iter().try_for_each(&mut each)?;
        match page.last() {
            Some(last) if page.len() == limits::GROUPS_PER_PAGE => after = Some(last.clone()),
            _ => return Ok(()),
        }
    }
}

/// Groups that a gateway is registered for, in all shards, as far as this node has applied.
///
/// # Errors
/// The node belongs to no cluster, or its storage failed.
pub async fn groups(node: &Arc<Node>, gateway: GatewayId) -> Result<u64, ApiError> {
    let data: Vec<SharedShard> = node.readable()?.iter().skip(1).cloned().collect();
    blocking(move || {
        let mut count = 0;
        for shard in &data {
            each_group(shard.reader(), &gateway, |_| {
                count += 1;
                Ok(())
            })?;
        }
        Ok(count)
    })
    .await
}

/// Evicts a gateway from every group of a shard that this node leads. Says from how many.
///
/// # Errors
/// This node does not lead the shard any more, or an eviction was not decided in time. What was done stays done.
pub(crate) async fn evict(node: &Node, shard: &Shard, gateway: GatewayId) -> Result<u64, ApiError> {
    let mut evicted = 0;
    loop {
        let reader = shard.reader().clone();
        let page = blocking(move || Ok(reader.groups_of(&gateway, None, limits::GROUPS_PER_PAGE)?)).await?;
        if page.is_empty() {
            return Ok(evicted);
        }
        let count = page.len() as u64;
        let one = |group: Bytes| async move {
            let command = ForkCommand::Evict { gateway };
            let group_id = GroupId::new(group).ok()?;
            propose(node, shard, GroupCommand { group_id, command }.into()).await
        };
        let answers = stream::iter(page).map(one).buffer_unordered(limits::CLOSES_AT_ONCE);
        let undecided = answers.filter(|answer| std::future::ready(answer.is_none())).count().await;
        if undecided > 0 {
            let waited = node.timing.submission;
            return Err(ApiError::NoQuorum { shard: shard.id(), waited });
        }
        evicted += count;
    }
}
