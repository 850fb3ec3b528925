//! One Raft group of a node: openraft, and the storage that it writes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use openraft::{
    RaftMetrics, ServerState, StoredMembership,
    async_runtime::watch::WatchReceiver,
    metrics::{RaftDataMetrics, RaftServerMetrics},
    type_config::alias::{CommittedLeaderIdOf, WatchReceiverOf},
};
use tokio::time::Instant;

use super::types::{Membership, NodeId, NodeInfo, ShardId, TypeConfig};
use crate::storage::{ShardReader, StateMachine};

/// openraft with this service's types.
pub type Raft = openraft::Raft<TypeConfig, StateMachine>;

type Stored = StoredMembership<CommittedLeaderIdOf<TypeConfig>, NodeId, NodeInfo>;

/// One Raft group.
pub struct Shard {
    id: ShardId,
    raft: Raft,
    reader: ShardReader,
    server: WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>,
    data: WatchReceiverOf<TypeConfig, RaftDataMetrics<TypeConfig>>,
    /// The last log entry that was on disk when the node started.
    started_with: Option<u64>,
}

/// What a node knows about who leads a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderView {
    /// The current term.
    pub term: u64,
    /// The leader, if one is known.
    pub leader: Option<NodeId>,
    /// host:port of the leader's ordering API; empty if no leader is known.
    pub leader_address: String,
    /// Where the leader stands; empty if it has no site or no leader is known.
    pub leader_site: String,
    /// If this node leads: when a quorum last answered.
    pub led_quorum_at: Option<Instant>,
}

impl Shard {
    /// Wraps a running Raft group.
    pub fn new(id: ShardId, raft: Raft, reader: ShardReader) -> Self {
        let started_with = raft.metrics().borrow_watched().last_log_index;
        Self { id, server: raft.server_metrics(), data: raft.data_metrics(), raft, reader, started_with }
    }

    /// The shard's number.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// The Raft group.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// What was applied, for reading.
    pub fn reader(&self) -> &ShardReader {
        &self.reader
    }

    /// Who leads.
    pub fn view(&self) -> LeaderView {
        let server = self.server.borrow_watched();
        let leads = server.state == ServerState::Leader;
        let leader = server.current_leader.filter(|leader| leads || *leader != server.id);
        let info = leader.and_then(|leader| server.membership_config.get_node(&leader));
        let led_quorum_at = leads.then(|| self.led_quorum_at(&server.membership_config)).flatten();
        LeaderView {
            term: server.vote.leader_id.term,
            leader,
            leader_address: info.map(|node| node.address.clone()).unwrap_or_default(),
            leader_site: info.map(|node| node.site.clone()).unwrap_or_default(),
            led_quorum_at,
        }
    }

    fn led_quorum_at(&self, membership: &Stored) -> Option<Instant> {
        if membership.voter_ids().count() == 1 {
            return Some(Instant::now());
        }
        let acked = self.data.borrow_watched().last_quorum_acked?;
        Instant::now().checked_sub(openraft::Instant::elapsed(&acked.into_inner()))
    }

    /// The leader, if one is known, with its addresses.
    pub fn leader(&self) -> Option<(NodeId, NodeInfo)> {
        let leader = self.view().leader?;
        let server = self.server.borrow_watched();
        server.membership_config.get_node(&leader).map(|info| (leader, info.clone()))
    }

    /// The newest membership that this node knows.
    pub fn membership(&self) -> Membership {
        self.server.borrow_watched().membership_config.membership().clone()
    }

    /// What the membership says about a node.
    pub fn node(&self, node_id: NodeId) -> Option<NodeInfo> {
        self.server.borrow_watched().membership_config.get_node(&node_id).cloned()
    }

    /// Adds the shard's nodes to `all`.
    pub fn collect_nodes(&self, all: &mut BTreeMap<NodeId, NodeInfo>) {
        for (id, info) in self.server.borrow_watched().membership_config.nodes() {
            all.entry(*id).or_insert_with(|| info.clone());
        }
    }

    /// Everything that openraft tells.
    pub fn metrics(&self) -> RaftMetrics<TypeConfig> {
        self.raft.metrics().borrow_watched().clone()
    }

    /// Whether the state machine has caught up with what it held before the node started, so that reads do not go back in time.
    pub fn has_recovered(&self) -> bool {
        let data = self.data.borrow_watched();
        let applied = data.last_applied.map(|id| id.index);
        let committed = data.cluster_committed.map(|id| id.index);
        if self.started_with.is_none() || applied >= self.started_with {
            return committed.is_some();
        }
        // What was not committed before may have been replaced by a shorter log.
        committed.is_some() && committed >= data.last_log.map(|id| id.index) && applied >= committed
    }

    /// Waits until the log is applied up to `index`. False if that takes longer than `limit`.
    pub async fn applied(&self, index: u64, limit: Duration) -> bool {
        let mut data = self.data.clone();
        let wait = async {
            loop {
                if data.borrow_watched().last_applied.is_some_and(|id| id.index >= index) {
                    return true;
                }
                if data.changed().await.is_err() {
                    return false;
                }
            }
        };
        tokio::time::timeout(limit, wait).await.unwrap_or(false)
    }
}

/// Shards are shared by everything that serves them.
pub type SharedShard = Arc<Shard>;
