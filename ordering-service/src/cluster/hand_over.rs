//! Handing a shard's leadership over, on its leader.

use tokio::time::{Instant, sleep};

use super::{
    change::{lag, unfinished},
    leader::Answer,
};
use crate::{
    error::ApiError,
    limits,
    node::Node,
    raft::{
        shard::Shard,
        types::{LogId, NodeId},
    },
};

/// Hands over to a voter, once that has what it needs to be elected.
pub(super) async fn hand_over(
    node: &Node,
    shard: &Shard,
    to: NodeId,
    deadline: Instant,
) -> Result<Answer, ApiError> {
    if to == node.identity.node_id {
        return Ok(Answer::Done);
    }
    let refuse = |why: String| {
        ApiError::Precondition(format!("node {to} can not take over shard {}: {why}", shard.id()))
    };
    if !shard.membership().voter_ids().any(|voter| voter == to) {
        return Err(refuse("it is no voter there; promote it first".into()));
    }
    if !node.reach.reachable(node.timing.alive_within()).contains(&to) {
        return Err(refuse("it does not answer; bring it back first".into()));
    }
    // From here on the leader takes no more entries. A target that has not got all of them soon is not elected, and until somebody else is
    // the shard has no leader: so this does not begin before the target follows closely.
    let patience = deadline.min(Instant::now() + limits::TRANSFER_CATCH_UP);
    while missing_of(shard, to).is_none_or(|missing| missing > limits::TRANSFER_LAG) {
        if shard.view().leader != Some(node.identity.node_id) {
            return Ok(Answer::NotLeader);
        }
        if Instant::now() > patience {
            let lag = lag(shard, to).map_or("all".into(), |lag| lag.to_string());
            return Err(refuse(format!("it lacks {lag} entries; try again when it has caught up")));
        }
        sleep(limits::QUORUM_SAMPLE_INTERVAL).await;
    }
    let stopped = |error: &dyn ToString| ApiError::Stopped { shard: shard.id(), message: error.to_string() };
    shard.raft().trigger().transfer_leader(to).await.map_err(|e| stopped(&e))?;
    // The leader falls silent while it hands over, so somebody is elected even if the target is lost now.
    loop {
        match shard.view().leader {
            Some(leader) if leader == to => return Ok(Answer::Done),
            Some(leader) if leader != node.identity.node_id => {
                return Err(refuse(format!("node {leader} was elected instead; try again if it matters")));
            }
            _ if Instant::now() > deadline => {
                return Err(unfinished(format!("handing shard {} over to node {to}", shard.id())));
            }
            _ => sleep(limits::QUORUM_SAMPLE_INTERVAL).await,
        }
    }
}

fn missing_of(shard: &Shard, node_id: NodeId) -> Option<u64> {
    let metrics = shard.metrics();
    let matched = (*metrics.replication?.get(&node_id)?)?;
    missing(&matched, metrics.last_log_index.unwrap_or(0), metrics.current_term)
}

/// Entries that a voter lacks which gets them as they come. None while the leader of `term` still looks for where the voter's log departs
/// from its own: that takes a round trip for each halving, and what lies between is sent only afterwards. It is over when the voter has
/// an entry of the term.
fn missing(matched: &LogId, last: u64, term: u64) -> Option<u64> {
    (matched.committed_leader_id().term == term).then(|| last.saturating_sub(matched.index))
}

/// The voter that can take over soonest: reachable, and with the least to catch up.
pub fn best_successor(node: &Node, shard: &Shard) -> Option<NodeId> {
    let reachable = node.reach.reachable(node.timing.alive_within());
    let membership = shard.membership();
    let voters = membership.voter_ids().filter(|id| *id != node.identity.node_id && reachable.contains(id));
    let lags = voters.filter_map(|id| lag(shard, id).map(|lag| (lag, id)));
    lags.min().filter(|(lag, _)| *lag <= limits::TRANSFER_LAG).map(|(_, id)| id)
}

#[cfg(test)]
mod tests {
    use openraft::vote::RaftLeaderId;

    use super::*;
    use crate::raft::types::CommittedLeaderId;

    #[test]
    fn a_voter_whose_log_is_still_being_searched_lacks_an_unknown_number() {
        let at = |term, index| LogId::new(CommittedLeaderId::new(term, 1), index);
        assert_eq!(missing(&at(7, 500), 503, 7), Some(3));
        assert_eq!(missing(&at(6, 502), 503, 7), None, "the entry of term 7 is not there yet");
    }
}
