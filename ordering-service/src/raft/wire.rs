//! Raft's types as they travel between nodes. Nothing that came from a peer is trusted to be well-formed.

use std::collections::{BTreeMap, BTreeSet};

use concordat_proto::raft::v1 as pb;
use openraft::{EntryPayload, raft as rpc};

use super::types::{LogEntry, LogId, Membership, NodeId, NodeInfo, Proposed, TypeConfig, Vote};

/// A message of a peer that cannot be: names the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed message of a peer: {0}")]
pub struct Malformed(pub &'static str);

type AppendRequest = rpc::AppendEntriesRequest<TypeConfig>;
/// What became of one append request of a stream.
pub type AppendResult = rpc::StreamAppendResult<TypeConfig>;

/// To the wire.
pub fn log_id_out(id: &LogId) -> pb::LogId {
    pb::LogId { term: id.leader_id.term, leader_node_id: id.leader_id.node_id, index: id.index }
}

/// From the wire.
pub fn log_id_in(id: &pb::LogId) -> LogId {
    let leader_id = openraft::impls::leader_id_adv::LeaderId { term: id.term, node_id: id.leader_node_id };
    LogId { leader_id, index: id.index }
}

/// To the wire.
pub fn vote_out(vote: &Vote) -> pb::Vote {
    pb::Vote { term: vote.leader_id.term, node_id: vote.leader_id.node_id, committed: vote.committed }
}

/// From the wire.
pub fn vote_in(vote: Option<&pb::Vote>) -> Result<Vote, Malformed> {
    let vote = vote.ok_or(Malformed("the vote is missing"))?;
    Ok(if vote.committed {
        Vote::new_committed(vote.term, vote.node_id)
    } else {
        Vote::new(vote.term, vote.node_id)
    })
}

/// To the wire.
pub fn membership_out(membership: &Membership) -> pb::Membership {
    let configs = membership.get_joint_config().iter();
    pb::Membership {
        configs: configs.map(|c| pb::Voters { node_ids: c.iter().copied().collect() }).collect(),
        nodes: membership.nodes().map(|(id, node)| node_out(*id, node)).collect(),
    }
}

/// To the wire.
pub fn node_out(node_id: NodeId, node: &NodeInfo) -> pb::Node {
    pb::Node {
        node_id,
        peer_address: node.peer_address.clone(),
        address: node.address.clone(),
        site: node.site.clone(),
        disk_id: node.disk_id.to_vec().into(),
    }
}

/// From the wire.
pub fn membership_in(membership: &pb::Membership) -> Result<Membership, Malformed> {
    let configs: Vec<BTreeSet<NodeId>> =
        membership.configs.iter().map(|c| c.node_ids.iter().copied().collect()).collect();
    let mut nodes = BTreeMap::new();
    for node in &membership.nodes {
        nodes.insert(node.node_id, node_in(node)?);
    }
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes)
        .map_err(|_| Malformed("a membership without voters, or with a voter that is no node"))
}

/// From the wire.
pub fn node_in(node: &pb::Node) -> Result<NodeInfo, Malformed> {
    Ok(NodeInfo {
        peer_address: node.peer_address.clone(),
        address: node.address.clone(),
        site: node.site.clone(),
        disk_id: disk_id_in(&node.disk_id)?,
    })
}

/// From the wire: exactly 16 bytes.
pub fn disk_id_in(bytes: &[u8]) -> Result<[u8; 16], Malformed> {
    bytes.try_into().map_err(|_| Malformed("a disk id that is not 16 bytes long"))
}

/// To the wire. The command's bytes are shared, not copied.
pub fn append_out(request: AppendRequest) -> pb::AppendRequest {
    pb::AppendRequest {
        vote: Some(vote_out(&request.vote)),
        prev_log_id: request.prev_log_id.as_ref().map(log_id_out),
        entries: request.entries.into_iter().map(entry_out).collect(),
        leader_commit: request.leader_commit.as_ref().map(log_id_out),
    }
}

/// From the wire. The command's bytes stay slices of the frame that they came in.
pub fn append_in(request: pb::AppendRequest) -> Result<AppendRequest, Malformed> {
    Ok(AppendRequest {
        vote: vote_in(request.vote.as_ref())?,
        prev_log_id: request.prev_log_id.as_ref().map(log_id_in),
        entries: request.entries.into_iter().map(entry_in).collect::<Result<_, _>>()?,
        leader_commit: request.leader_commit.as_ref().map(log_id_in),
    })
}

fn entry_out(entry: LogEntry) -> pb::LogEntry {
    use pb::log_entry::Payload;
    let payload = match entry.payload {
        EntryPayload::Blank => Payload::Blank(pb::Blank {}),
        EntryPayload::Normal(p) => Payload::Command(pb::Command { at_ms: p.at_ms, command: p.command }),
        EntryPayload::Membership(m) => Payload::Membership(membership_out(&m)),
    };
    pb::LogEntry { log_id: Some(log_id_out(&entry.log_id)), payload: Some(payload) }
}

fn entry_in(entry: pb::LogEntry) -> Result<LogEntry, Malformed> {
    use pb::log_entry::Payload;
    let log_id = log_id_in(entry.log_id.as_ref().ok_or(Malformed("an entry without its log id"))?);
    let payload = match entry.payload.ok_or(Malformed("an entry without a payload"))? {
        Payload::Blank(_) => EntryPayload::Blank,
        Payload::Command(c) => EntryPayload::Normal(Proposed { at_ms: c.at_ms, command: c.command }),
        Payload::Membership(m) => EntryPayload::Membership(membership_in(&m)?),
    };
    Ok(LogEntry { log_id, payload })
}

/// To the wire.
pub fn result_out(result: AppendResult) -> pb::AppendResult {
    use pb::append_result::Result;
    let result = match result {
        Ok(log_id) => Result::Matched(pb::Matched { log_id: log_id.as_ref().map(log_id_out) }),
        Err(rpc::StreamAppendError::Conflict(at)) => Result::Conflict(log_id_out(&at)),
        Err(rpc::StreamAppendError::HigherVote(vote)) => Result::HigherVote(vote_out(&vote)),
    };
    pb::AppendResult { result: Some(result) }
}

/// From the wire.
pub fn result_in(result: pb::AppendResult) -> Result<AppendResult, Malformed> {
    use pb::append_result::Result;
    Ok(match result.result.ok_or(Malformed("an append result without a result"))? {
        Result::Matched(m) => Ok(m.log_id.as_ref().map(log_id_in)),
        Result::Conflict(at) => Err(rpc::StreamAppendError::Conflict(log_id_in(&at))),
        Result::HigherVote(vote) => Err(rpc::StreamAppendError::HigherVote(vote_in(Some(&vote))?)),
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn log_id(index: u64) -> LogId {
        log_id_in(&pb::LogId { term: 3, leader_node_id: 2, index })
    }

    fn membership() -> Membership {
        let node =
            |n: u8| NodeInfo { peer_address: format!("n{n}:1"), disk_id: [n; 16], ..NodeInfo::default() };
        let nodes = BTreeMap::from([(1, node(1)), (2, node(2)), (3, node(3))]);
        Membership::new(vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])], nodes).expect("valid")
    }

    #[test]
    fn an_append_request_survives_the_wire() {
        let command = Proposed { at_ms: 9, command: Bytes::from_static(b"command") };
        let request = AppendRequest {
            vote: Vote::new_committed(3, 2),
            prev_log_id: Some(log_id(4)),
            entries: vec![
                LogEntry { log_id: log_id(5), payload: EntryPayload::Blank },
                LogEntry { log_id: log_id(6), payload: EntryPayload::Normal(command) },
                LogEntry { log_id: log_id(7), payload: EntryPayload::Membership(membership()) },
            ],
            leader_commit: Some(log_id(3)),
        };
        let back = append_in(append_out(request.clone())).expect("well-formed");
        assert_eq!(back.vote, request.vote);
        assert_eq!(back.prev_log_id, request.prev_log_id);
        assert_eq!(back.entries, request.entries);
        assert_eq!(back.leader_commit, request.leader_commit);
    }

    #[test]
    fn results_survive_the_wire() {
        for result in [
            Ok(None),
            Ok(Some(log_id(8))),
            Err(rpc::StreamAppendError::Conflict(log_id(2))),
            Err(rpc::StreamAppendError::HigherVote(Vote::new(7, 1))),
        ] {
            assert_eq!(result_in(result_out(result.clone())), Ok(result));
        }
    }

    #[test]
    fn what_a_broken_peer_sends_is_an_error_and_no_panic() {
        assert!(append_in(pb::AppendRequest::default()).is_err());
        assert!(entry_in(pb::LogEntry::default()).is_err());
        assert!(result_in(pb::AppendResult::default()).is_err());
        let voter_without_node =
            pb::Membership { configs: vec![pb::Voters { node_ids: vec![1] }], nodes: Vec::new() };
        assert!(membership_in(&voter_without_node).is_err());
        assert!(disk_id_in(&[0; 15]).is_err());
    }
}
