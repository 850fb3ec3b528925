//! Whether a quorum answers, per shard, as this node knows it: at most [`QUORUM_SAMPLE_INTERVAL`] old.

use std::{sync::Arc, time::Duration};

use concordat_proto::ordering::v1::{QuorumState, ShardQuorum};
use parking_lot::RwLock;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    limits::QUORUM_SAMPLE_INTERVAL,
    metrics::NodeMetrics,
    raft::{
        identity::Identity,
        reach::{LeaderProof, Reach},
        shard::Shard,
        shards::SharedShards,
        types::NodeId,
    },
};

/// The newest state of every shard.
pub struct Quorum {
    identity: Arc<Identity>,
    suspect_after: Duration,
    latest: RwLock<QuorumState>,
    /// Counts the changes that matter to a reader: leaders, terms, quorums won and lost.
    changes: watch::Sender<u64>,
}

impl Quorum {
    /// Nothing is known yet.
    pub fn new(identity: Arc<Identity>, suspect_after: Duration) -> Arc<Self> {
        let latest = RwLock::new(QuorumState { node_id: identity.node_id, ..QuorumState::default() });
        Arc::new(Self { identity, suspect_after, latest, changes: watch::Sender::new(0) })
    }

    /// The newest state.
    pub fn latest(&self) -> QuorumState {
        self.latest.read().clone()
    }

    /// Wakes on every change of a leader, a term, or whether there is a quorum.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Samples until `stop`.
    pub async fn run(
        self: Arc<Self>,
        shards: SharedShards,
        reach: Arc<Reach>,
        metrics: Arc<NodeMetrics>,
        stop: CancellationToken,
    ) {
        let mut ticks = interval(QUORUM_SAMPLE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let Some(shards) = shards.get() else { continue };
            let states = shards.iter().map(|shard| self.sample(shard, &reach)).collect::<Vec<_>>();
            metrics.quorum(&states);
            self.publish(states);
        }
    }

    fn sample(&self, shard: &Shard, reach: &Reach) -> ShardQuorum {
        let view = shard.view();
        let now = Instant::now();
        let proven_at = if view.leader == Some(self.identity.node_id) {
            view.led_quorum_at
        } else {
            follower_proof(view.leader, view.term, reach.proof(shard.id()))
        };
        let age = proven_at.map(|at| now.saturating_duration_since(at));
        ShardQuorum {
            shard: shard.id(),
            term: view.term,
            leader_node_id: view.leader.unwrap_or(0),
            leader_address: view.leader_address,
            leader_site: view.leader_site,
            has_quorum: age.is_some_and(|age| age < self.suspect_after),
            quorum_age_ms: age.map_or(u64::MAX, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    fn publish(&self, shards: Vec<ShardQuorum>) {
        let cluster_id = self.identity.cluster().map(|c| c.id).unwrap_or_default();
        let next = QuorumState { node_id: self.identity.node_id, cluster_id, shards };
        let mut latest = self.latest.write();
        let changed = facts(&latest).ne(facts(&next));
        *latest = next;
        drop(latest);
        if changed {
            self.changes.send_modify(|n| *n += 1);
        }
    }
}

/// A follower believes its leader's own words, in the term that it knows itself.
fn follower_proof(leader: Option<NodeId>, term: u64, proof: Option<LeaderProof>) -> Option<Instant> {
    proof.filter(|proof| Some(proof.leader) == leader && proof.term == term).map(|proof| proof.at)
}

/// What a reader must learn of at once.
fn facts(state: &QuorumState) -> impl Iterator<Item = (u32, u64, u64, bool)> + '_ {
    state.shards.iter().map(|s| (s.shard, s.term, s.leader_node_id, s.has_quorum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_follower_believes_only_its_own_leader_in_its_own_term() {
        let at = Instant::now();
        let proof = LeaderProof { leader: 2, term: 7, at };
        assert_eq!(follower_proof(Some(2), 7, Some(proof)), Some(at));
        assert_eq!(follower_proof(Some(3), 7, Some(proof)), None);
        assert_eq!(follower_proof(Some(2), 8, Some(proof)), None);
        assert_eq!(follower_proof(None, 7, Some(proof)), None);
        assert_eq!(follower_proof(Some(2), 7, None), None);
    }

    #[test]
    fn only_a_change_that_matters_wakes_readers() {
        let quorum = Quorum::new(Arc::new(Identity::new(1, [1; 16], None)), Duration::from_millis(250));
        let changes = quorum.changes();
        let state = |age, has_quorum| {
            vec![ShardQuorum {
                shard: 1,
                term: 2,
                leader_node_id: 3,
                quorum_age_ms: age,
                has_quorum,
                ..Default::default()
            }]
        };
        quorum.publish(state(5, true));
        assert_eq!(*changes.borrow(), 1);
        quorum.publish(state(90, true));
        assert_eq!(*changes.borrow(), 1);
        assert_eq!(quorum.latest().shards[0].quorum_age_ms, 90);
        quorum.publish(state(300, false));
        assert_eq!(*changes.borrow(), 2);
    }
}
