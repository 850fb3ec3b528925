//! Who answers pings, and what leaders say about their quorum.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use concordat_proto::raft::v1::{LedShard, PingRequest, PingResponse, RoundTrip};
use group_log::fork::GatewayId;
use parking_lot::Mutex;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    peer::{Peer, PeerError, Peers},
    round_trips::{RoundTrips, Samples},
    timing::Timing,
    types::{Membership, NodeId, NodeInfo, ShardId},
};
use crate::limits::{GATEWAYS_PER_NODE, NODES};

/// What pings have told so far.
#[derive(Default)]
pub struct Reach {
    /// When the last ping that a node answered was sent.
    answered: Mutex<HashMap<NodeId, Instant>>,
    /// The newest proof that a leader has a quorum.
    proofs: Mutex<HashMap<ShardId, LeaderProof>>,
    /// Gateways that watch other nodes, by node, as its last answer said.
    gateways: Mutex<HashMap<NodeId, BTreeSet<GatewayId>>>,
    /// What bears on who should lead, by node.
    standing: Mutex<HashMap<NodeId, Standing>>,
}

/// What pings of one node told about its place.
#[derive(Default)]
struct Standing {
    /// From here to it.
    here: Samples,
    /// From it to others, as it measured them.
    others: Vec<(NodeId, Duration)>,
    /// It should be given no leadership.
    should_not_lead: bool,
}

/// At `at`, this leader had a quorum in this term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderProof {
    /// The leader.
    pub leader: NodeId,
    /// Its term.
    pub term: u64,
    /// When a quorum last answered it, at the latest.
    pub at: Instant,
}

impl Reach {
    /// Pings every peer that `nodes` names until `stop`.
    pub async fn run(
        self: Arc<Self>,
        peers: Arc<Peers>,
        timing: Arc<Timing>,
        nodes: impl Fn() -> BTreeMap<NodeId, NodeInfo> + Send + 'static,
        stop: CancellationToken,
    ) {
        let mut ticks = interval(timing.ping);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut under_way = BTreeSet::new();
        let mut known_reachable = BTreeSet::new();
        let mut pings = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(done) = pings.join_next() => {
                    if let Ok(node_id) = done {
                        under_way.remove(&node_id);
                    }
                }
                _ = ticks.tick() => {
                    known_reachable = self.log_changes(known_reachable, timing.alive_within());
                    for (node_id, info) in nodes() {
                        if node_id == peers.identity().node_id || under_way.contains(&node_id) {
                            continue;
                        }
                        let Some(peer) = peers.get(node_id, &info) else { continue };
                        under_way.insert(node_id);
                        let (this, limit) = (self.clone(), timing.suspect_quorum_after * 2);
                        pings.spawn(async move {
                            let _ = this.ping(&peer, limit).await;
                            node_id
                        });
                    }
                }
            }
        }
    }

    /// Says once when a node stops or begins to answer. Returns who answers now.
    fn log_changes(&self, before: BTreeSet<NodeId>, limit: Duration) -> BTreeSet<NodeId> {
        let now = self.reachable(limit);
        for node_id in before.difference(&now) {
            tracing::warn!(peer = node_id, "the peer does not answer any more");
        }
        for node_id in now.difference(&before) {
            tracing::info!(peer = node_id, "the peer answers");
        }
        now
    }

    async fn ping(&self, peer: &Peer, limit: Duration) -> Result<(), PeerError> {
        // Everything that the answer says held at the latest when it was asked for.
        let sent = Instant::now();
        let mut client = peer.fast();
        let answer = peer.ask(limit, client.ping(PingRequest { hello: peer.hello() })).await?;
        self.answered.lock().insert(peer.node_id(), sent);
        self.note(peer.node_id(), sent, &answer.led);
        let gateways = answer.gateways.iter().filter_map(|id| id.as_ref().try_into().ok().map(GatewayId));
        self.gateways.lock().insert(peer.node_id(), gateways.take(GATEWAYS_PER_NODE).collect());
        self.stands(peer.node_id(), sent.elapsed(), &answer);
        Ok(())
    }

    fn stands(&self, node: NodeId, took: Duration, answer: &PingResponse) {
        let mut standing = self.standing.lock();
        let standing = standing.entry(node).or_default();
        standing.here.take(took);
        let others = answer.round_trips.iter().take(NODES);
        standing.others = others.map(|trip| (trip.node_id, Duration::from_micros(trip.micros))).collect();
        standing.should_not_lead = answer.should_not_lead;
    }

    fn note(&self, leader: NodeId, sent: Instant, led: &[LedShard]) {
        let mut proofs = self.proofs.lock();
        for led in led {
            let Some(at) = sent.checked_sub(Duration::from_millis(led.quorum_age_ms)) else { continue };
            let proof = LeaderProof { leader, term: led.term, at };
            let newest = proofs.entry(led.shard).or_insert(proof);
            if (proof.term, proof.at) > (newest.term, newest.at) {
                *newest = proof;
            }
        }
    }

    /// The newest proof for a shard that another node leads.
    pub fn proof(&self, shard: ShardId) -> Option<LeaderProof> {
        self.proofs.lock().get(&shard).copied()
    }

    /// Gateways that watch a node which answered a ping within `limit`.
    pub fn gateways(&self, limit: Duration) -> BTreeSet<GatewayId> {
        let reachable = self.reachable(limit);
        let gateways = self.gateways.lock();
        gateways
            .iter()
            .filter(|(node, _)| reachable.contains(node))
            .flat_map(|(_, ids)| ids)
            .copied()
            .collect()
    }

    /// Round trips from this node, `me`, to those that answered a ping within `limit`, and between those.
    pub fn round_trips(&self, me: NodeId, limit: Duration) -> RoundTrips {
        let reachable = self.reachable(limit);
        let mut trips = RoundTrips::default();
        for (node, standing) in self.standing.lock().iter().filter(|(node, _)| reachable.contains(node)) {
            if let Some(trip) = standing.here.fastest() {
                trips.note(me, *node, trip);
            }
            for (other, trip) in standing.others.iter().filter(|(other, _)| reachable.contains(other)) {
                trips.note(*node, *other, *trip);
            }
        }
        trips
    }

    /// Round trips from this node to those that answered a ping within `limit`, for the answer to a ping.
    pub fn own_round_trips(&self, limit: Duration) -> Vec<RoundTrip> {
        let reachable = self.reachable(limit);
        let standing = self.standing.lock();
        let measured =
            standing.iter().filter(|(node, _)| reachable.contains(node)).filter_map(|(node, of)| {
                let micros = u64::try_from(of.here.fastest()?.as_micros()).ok()?;
                Some(RoundTrip { node_id: *node, micros })
            });
        measured.take(NODES).collect()
    }

    /// The node asked for no leadership when it last answered.
    pub fn should_not_lead(&self, node: NodeId) -> bool {
        self.standing.lock().get(&node).is_some_and(|standing| standing.should_not_lead)
    }

    /// How long ago each node was last known to be there.
    pub fn last_contacts(&self) -> BTreeMap<NodeId, Duration> {
        let now = Instant::now();
        let answered = self.answered.lock();
        answered.iter().map(|(node, at)| (*node, now.saturating_duration_since(*at))).collect()
    }

    /// The nodes that answered a ping within `limit`.
    pub fn reachable(&self, limit: Duration) -> BTreeSet<NodeId> {
        let now = Instant::now();
        let answered = self.answered.lock();
        answered.iter().filter(|(_, at)| now.duration_since(**at) < limit).map(|(id, _)| *id).collect()
    }
}

/// Whether `nodes` hold a majority of every configuration of `membership`.
pub fn is_quorum(membership: &Membership, nodes: &BTreeSet<NodeId>) -> bool {
    let configs = membership.get_joint_config();
    !configs.is_empty() && configs.iter().all(|c| c.intersection(nodes).count() * 2 > c.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_proof_of_the_newest_term_counts() {
        let reach = Reach::default();
        let now = Instant::now() + Duration::from_secs(60);
        let led = |term, quorum_age_ms| [LedShard { shard: 1, term, quorum_age_ms }];
        reach.note(2, now, &led(5, 40));
        assert_eq!(
            reach.proof(1),
            Some(LeaderProof { leader: 2, term: 5, at: now - Duration::from_millis(40) })
        );
        reach.note(2, now, &led(5, 90));
        assert_eq!(reach.proof(1).map(|p| p.at), Some(now - Duration::from_millis(40)));
        reach.note(3, now, &led(6, 500));
        assert_eq!(reach.proof(1).map(|p| p.leader), Some(3));
        reach.note(2, now, &led(5, 0));
        assert_eq!(reach.proof(1).map(|p| p.leader), Some(3), "an older term proves nothing");
        assert_eq!(reach.proof(2), None);
    }

    #[tokio::test]
    async fn round_trips_are_known_between_nodes_that_answer() {
        let reach = Reach::default();
        let (ms, soon) = (Duration::from_millis, Duration::from_secs(1));
        let answer = |others: &[(NodeId, u64)], should_not_lead| PingResponse {
            round_trips: others
                .iter()
                .map(|(node_id, ms)| RoundTrip { node_id: *node_id, micros: ms * 1000 })
                .collect(),
            should_not_lead,
            ..PingResponse::default()
        };
        let now = Instant::now();
        reach.answered.lock().extend([(2, now), (3, now), (4, now - soon * 2)]);
        reach.stands(2, ms(10), &answer(&[(1, 9), (3, 30), (4, 5)], false));
        reach.stands(3, ms(20), &answer(&[], true));
        reach.stands(4, ms(1), &answer(&[(2, 5)], false));
        let trips = reach.round_trips(1, soon);
        assert_eq!(trips.between(1, 2), Some(ms(10)));
        assert_eq!(trips.between(2, 3), Some(ms(30)));
        assert_eq!((trips.between(1, 4), trips.between(2, 4)), (None, None), "4 does not answer any more");
        assert!(reach.should_not_lead(3) && !reach.should_not_lead(2) && !reach.should_not_lead(9));
        let own: BTreeMap<_, _> = reach.own_round_trips(soon).iter().map(|t| (t.node_id, t.micros)).collect();
        assert_eq!(own, BTreeMap::from([(2, 10_000), (3, 20_000)]));
        assert!(reach.last_contacts()[&4] >= soon * 2);
    }

    #[test]
    fn a_quorum_needs_a_majority_of_every_configuration() {
        let nodes: BTreeMap<u64, NodeInfo> = (1..=5).map(|id| (id, NodeInfo::default())).collect();
        let joint = vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([3, 4, 5])];
        let membership = Membership::new(joint, nodes).expect("valid");
        assert!(is_quorum(&membership, &BTreeSet::from([1, 3, 4])));
        assert!(!is_quorum(&membership, &BTreeSet::from([1, 2, 4])));
        assert!(!is_quorum(&membership, &BTreeSet::new()));
        assert!(!is_quorum(&Membership::default(), &BTreeSet::from([1])));
    }
}
