//! Changes of one shard's membership and leadership, on its leader.

use std::collections::{BTreeMap, BTreeSet};

use concordat_proto::{
    convert::gateway_id,
    log::v1::Refused,
    raft::v1::{AddLearner, administer_request::Change},
};
use openraft::{
    ChangeMembers,
    errors::{ClientWriteError, RaftError},
};
use tokio::time::{Instant, sleep, timeout_at};

use super::{hand_over::hand_over, leader::Answer};
use crate::{
    branches::gateways,
    error::ApiError,
    limits,
    node::Node,
    raft::{
        reach::is_quorum,
        shard::Shard,
        types::{Membership, NodeId, NodeInfo},
        wire,
    },
};

type Members = ChangeMembers<NodeId, NodeInfo>;

/// Makes a change. Each is idempotent: what is so already is done.
///
/// # Errors
/// The change is not possible now, or not finished at `deadline`.
pub async fn carry_out(
    node: &Node,
    shard: &Shard,
    change: Change,
    deadline: Instant,
) -> Result<Answer, ApiError> {
    if shard.view().leader != Some(node.identity.node_id) {
        return Ok(Answer::NotLeader);
    }
    match change {
        Change::AddLearner(learner) => add_learner(shard, learner, deadline).await,
        Change::Promote(voters) => promote(shard, voters.node_ids.into_iter().collect(), deadline).await,
        Change::Remove(node_id) => remove(node, shard, node_id, deadline).await,
        Change::HandOver(to) => hand_over(node, shard, to, deadline).await,
        Change::EvictGateway(id) => evict(node, shard, &id, deadline).await,
    }
}

async fn add_learner(shard: &Shard, learner: AddLearner, deadline: Instant) -> Result<Answer, ApiError> {
    let wanted = learner.node.ok_or(wire::Malformed("a learner without its addresses"))?;
    let (node_id, info) = (wanted.node_id, wire::node_in(&wanted)?);
    match shard.node(node_id) {
        Some(known) if known != info => {
            return Err(ApiError::Precondition(format!(
                "node {node_id} is in shard {} already, with other addresses or another disk: remove it first, and use a node id \
                 that was never used",
                shard.id()
            )));
        }
        Some(_) => {}
        None => {
            if let Answer::NotLeader =
                write(shard, Members::AddNodes(BTreeMap::from([(node_id, info)])), deadline).await?
            {
                return Ok(Answer::NotLeader);
            }
        }
    }
    let what = || format!("catching up node {node_id} in shard {}", shard.id());
    loop {
        match lag(shard, node_id) {
            Some(lag) if lag <= learner.max_lag => return Ok(Answer::Done),
            _ if Instant::now() > deadline => return Err(unfinished(what())),
            _ if shard.metrics().replication.is_none() => return Ok(Answer::NotLeader),
            _ => sleep(limits::QUORUM_SAMPLE_INTERVAL).await,
        }
    }
}

async fn promote(shard: &Shard, wanted: BTreeSet<NodeId>, deadline: Instant) -> Result<Answer, ApiError> {
    let membership = shard.membership();
    let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
    let new: BTreeSet<NodeId> = wanted.difference(&voters).copied().collect();
    if new.is_empty() && membership.get_joint_config().len() == 1 {
        return Ok(Answer::Done);
    }
    for node_id in &new {
        if membership.get_node(node_id).is_none() {
            return Err(ApiError::Precondition(format!(
                "node {node_id} is no learner of shard {}: add it with add-learner first",
                shard.id()
            )));
        }
        // A voter that lacks much would leave the shard without a margin until it has caught up.
        let lag = lag(shard, *node_id);
        if lag.is_none_or(|lag| lag > limits::LEARNER_LAG_DEFAULT) {
            return Err(ApiError::Precondition(format!(
                "node {node_id} is not caught up in shard {} (it lacks {} entries, at most {} are allowed): try again later",
                shard.id(),
                lag.map_or("all".into(), |lag| lag.to_string()),
                limits::LEARNER_LAG_DEFAULT
            )));
        }
    }
    write(shard, Members::AddVoterIds(new), deadline).await
}

async fn remove(node: &Node, shard: &Shard, node_id: NodeId, deadline: Instant) -> Result<Answer, ApiError> {
    let membership = shard.membership();
    if membership.get_node(&node_id).is_none() {
        return Ok(Answer::Done);
    }
    if !membership.voter_ids().any(|voter| voter == node_id) {
        return write(shard, Members::RemoveNodes(BTreeSet::from([node_id])), deadline).await;
    }
    let mut reachable = node.reach.reachable(node.timing.alive_within());
    reachable.insert(node.identity.node_id);
    check_removal(shard.id(), &membership, node_id, &reachable)?;
    write(shard, Members::RemoveVoters(BTreeSet::from([node_id])), deadline).await
}

/// The voters that stay must be able to form a quorum out of nodes that can be reached, before and after.
fn check_removal(
    shard: u32,
    membership: &Membership,
    node_id: NodeId,
    reachable: &BTreeSet<NodeId>,
) -> Result<(), ApiError> {
    let rest: BTreeSet<NodeId> = membership.voter_ids().filter(|voter| *voter != node_id).collect();
    if rest.is_empty() {
        return Err(ApiError::Precondition(format!(
            "node {node_id} is the last voter of shard {shard}: a cluster needs one"
        )));
    }
    let alive = rest.intersection(reachable).count();
    if alive * 2 <= rest.len() || !is_quorum(membership, reachable) {
        return Err(ApiError::Precondition(format!(
            "without node {node_id} shard {shard} has {} voters, of which only {alive} can be reached: that is no quorum. Bring \
             the others back, or add and promote a node first",
            rest.len()
        )));
    }
    Ok(())
}

async fn evict(node: &Node, shard: &Shard, id: &[u8], deadline: Instant) -> Result<Answer, ApiError> {
    let gateway = gateway_id("evict_gateway", id).map_err(|error| Refused::from(&error))?;
    match timeout_at(deadline, gateways::evict(node, shard, gateway)).await {
        Ok(evicted) => evicted.map(|_| Answer::Done),
        Err(_) => Err(unfinished(format!("evicting the gateway from the groups of shard {}", shard.id()))),
    }
}

/// Entries that a node lacks, as this leader knows it. None if this node does not lead, or nothing is known.
pub fn lag(shard: &Shard, node_id: NodeId) -> Option<u64> {
    let metrics = shard.metrics();
    let matched = (*metrics.replication?.get(&node_id)?)?.index;
    Some(metrics.last_log_index.unwrap_or(0).saturating_sub(matched))
}

async fn write(shard: &Shard, change: Members, deadline: Instant) -> Result<Answer, ApiError> {
    let what = || format!("changing the membership of shard {}", shard.id());
    let Ok(result) = timeout_at(deadline, shard.raft().change_membership(change, false)).await else {
        return Err(unfinished(what()));
    };
    match result {
        Ok(_) => Ok(Answer::Done),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Ok(Answer::NotLeader),
        Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => Ok(Answer::NotLeader),
        Err(RaftError::APIError(other)) => Err(ApiError::Precondition(format!(
            "shard {} can not change its membership now ({other}): try again",
            shard.id()
        ))),
        Err(RaftError::Fatal(fatal)) => {
            Err(ApiError::Stopped { shard: shard.id(), message: fatal.to_string() })
        }
    }
}

pub(super) fn unfinished(what: String) -> ApiError {
    ApiError::Unfinished { what, limit: limits::ADMIN_TIMEOUT }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership(voters: &[NodeId]) -> Membership {
        let nodes: BTreeMap<NodeId, NodeInfo> = voters.iter().map(|id| (*id, NodeInfo::default())).collect();
        Membership::new(vec![voters.iter().copied().collect()], nodes).expect("valid")
    }

    #[test]
    fn a_removal_that_would_lose_the_quorum_is_refused() {
        let three = membership(&[1, 2, 3]);
        assert!(check_removal(1, &three, 3, &BTreeSet::from([1, 2])).is_ok());
        assert!(check_removal(1, &three, 3, &BTreeSet::from([1, 2, 3])).is_ok());
        assert!(
            check_removal(1, &three, 3, &BTreeSet::from([1, 3])).is_err(),
            "2 is down, 1 of 2 is no quorum"
        );
        assert!(check_removal(1, &membership(&[1]), 1, &BTreeSet::from([1])).is_err());
    }
}
