//! Whom a gateway reaches, directly or through others, and who of them reaches a quorum. Pure.

use std::collections::{BTreeMap, BTreeSet};

use concordat_proto::{convert, relay::v1 as pb};
use group_log::{GroupId, fork::GatewayId};
use sha2::{Digest, Sha256};

use crate::limits::{RELAY_HOPS_MAX, RELAY_REACH_MAX, SHARDS_MAX};

/// The way to another gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The neighbour on the way; the gateway itself if it is one.
    pub next: GatewayId,
    /// Links on the way.
    pub hops: u32,
    /// Shards whose quorum it reaches by itself.
    pub quorum: BTreeSet<u32>,
}

/// What the neighbours announce.
#[derive(Clone, Debug)]
pub struct Reach {
    own: GatewayId,
    own_quorum: BTreeSet<u32>,
    links: BTreeMap<GatewayId, Vec<(GatewayId, u32, BTreeSet<u32>)>>,
}

impl Reach {
    /// Nobody is reached yet.
    pub fn new(own: GatewayId) -> Self {
        Self { own, own_quorum: BTreeSet::new(), links: BTreeMap::new() }
    }

    /// The shards whose quorum this gateway reaches by itself. Returns whether that is new.
    pub fn set_quorum(&mut self, shards: BTreeSet<u32>) -> bool {
        let changed = self.own_quorum != shards;
        self.own_quorum = shards;
        changed
    }

    /// A neighbour says whom it reaches. What is impossible in it is passed over. Returns whether anything is new.
    pub fn announced(&mut self, neighbour: GatewayId, reach: &pb::Reach) -> bool {
        let gateways = reach.gateways.iter().take(RELAY_REACH_MAX).filter_map(|reached| {
            let id = convert::gateway_id("gateway_id", &reached.gateway_id).ok()?;
            // Only the neighbour itself is at no distance from it.
            let possible = reached.hops < RELAY_HOPS_MAX && (reached.hops == 0) == (id == neighbour);
            let shards =
                reached.quorum_of_shards.iter().copied().filter(|shard| *shard < SHARDS_MAX).collect();
            (possible && id != self.own).then_some((id, reached.hops + 1, shards))
        });
        let gateways: Vec<_> = gateways.collect();
        let changed = self.links.get(&neighbour) != Some(&gateways);
        self.links.insert(neighbour, gateways);
        changed
    }

    /// The link to a neighbour is cut.
    pub fn cut(&mut self, neighbour: &GatewayId) {
        self.links.remove(neighbour);
    }

    /// The best way to everybody.
    pub fn routes(&self) -> BTreeMap<GatewayId, Route> {
        let mut routes: BTreeMap<GatewayId, Route> = BTreeMap::new();
        for (next, gateways) in &self.links {
            for (id, hops, quorum) in gateways {
                if routes.get(id).is_none_or(|known| *hops < known.hops) {
                    routes.insert(*id, Route { next: *next, hops: *hops, quorum: quorum.clone() });
                }
            }
        }
        routes
    }

    /// What to announce to a neighbour: not what was learnt from it, which would come back as news of its own.
    pub fn announcement(&self, to: &GatewayId) -> pb::Reach {
        let reached = |id: &GatewayId, hops, quorum: &BTreeSet<u32>| pb::Reached {
            gateway_id: id.0.to_vec().into(),
            address: String::new(),
            hops,
            quorum_of_shards: quorum.iter().copied().collect(),
        };
        let own = reached(&self.own, 0, &self.own_quorum);
        let routes = self.routes();
        let others = routes.iter().filter(|(_, route)| route.next != *to && route.hops < RELAY_HOPS_MAX);
        let others = others.map(|(id, route)| reached(id, route.hops, &route.quorum));
        pb::Reach { gateways: std::iter::once(own).chain(others).take(RELAY_REACH_MAX).collect() }
    }

    /// The neighbour through which the quorum of a shard is reached in the fewest links.
    pub fn to_quorum(&self, shard: u32) -> Option<GatewayId> {
        let routes = self.routes();
        let with_quorum = routes.values().filter(|route| route.quorum.contains(&shard));
        with_quorum.min_by_key(|route| route.hops).map(|route| route.next)
    }

    /// The shards whose quorum others reach.
    pub fn quorums_of_others(&self) -> BTreeSet<u32> {
        self.routes().into_values().flat_map(|route| route.quorum).collect()
    }

    /// Everybody reached and this gateway itself, in the order in which they are asked to sequence a group: the same order wherever
    /// the same gateways are reached.
    pub fn sequencers(&self, group: &GroupId) -> Vec<GatewayId> {
        let mut gateways: Vec<_> = self.routes().into_keys().chain([self.own]).collect();
        gateways.sort_by_cached_key(|id| std::cmp::Reverse(ticket(group, id)));
        gateways
    }
}

/// H("concordat sequencer v1", group id, gateway id): the highest of a group comes first (rendezvous hashing).
fn ticket(group: &GroupId, gateway: &GatewayId) -> [u8; 32] {
    let id = group.as_bytes();
    let hash =
        Sha256::new().chain_update(b"concordat sequencer v1").chain_update((id.len() as u64).to_be_bytes());
    hash.chain_update(id).chain_update(gateway.0).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(n: u8) -> GatewayId {
        GatewayId([n; 16])
    }

    /// Everybody tells its neighbours until nothing is new; returns the rounds it took.
    fn gossip(all: &mut [Reach], links: &[(usize, usize)]) -> usize {
        for round in 1..=20 {
            let mut changed = false;
            for &(a, b) in links {
                for (from, to) in [(a, b), (b, a)] {
                    let announcement = all[from].announcement(&all[to].own.clone());
                    let from = all[from].own;
                    changed |= all[to].announced(from, &announcement);
                }
            }
            if !changed {
                return round;
            }
        }
        panic!("it never settles");
    }

    #[test]
    fn gateways_reach_one_another_and_a_quorum_through_a_third() {
        let mut all: Vec<_> = (0..4).map(|n| Reach::new(gateway(n))).collect();
        all[3].set_quorum([1, 2].into());
        gossip(&mut all, &[(0, 1), (1, 2), (2, 3)]);
        assert_eq!(all[0].routes()[&gateway(3)], Route { next: gateway(1), hops: 3, quorum: [1, 2].into() });
        assert_eq!((all[0].to_quorum(1), all[0].to_quorum(3)), (Some(gateway(1)), None));
        let group = GroupId::new(&b"group"[..]).unwrap();
        let order = all[0].sequencers(&group);
        assert!(order.len() == 4 && all.iter().all(|reach| reach.sequencers(&group) == order));
    }

    #[test]
    fn a_gateway_that_is_gone_is_forgotten_by_all_in_a_ring() {
        let mut all: Vec<_> = (0..4).map(|n| Reach::new(gateway(n))).collect();
        all[3].set_quorum([1].into());
        gossip(&mut all, &[(0, 1), (1, 2), (2, 0), (2, 3)]);
        assert!(all.iter().take(3).all(|reach| reach.to_quorum(1).is_some()));
        all[2].cut(&gateway(3));
        gossip(&mut all, &[(0, 1), (1, 2), (2, 0)]);
        assert!(all.iter().take(3).all(|reach| reach.routes().len() == 2 && reach.to_quorum(1).is_none()));
    }

    #[test]
    fn impossible_announcements_are_passed_over() {
        let mut reach = Reach::new(gateway(0));
        let reached =
            |n: u8, hops| pb::Reached { gateway_id: vec![n; 16].into(), hops, ..pb::Reached::default() };
        let short = pb::Reached { gateway_id: vec![1; 3].into(), ..pb::Reached::default() };
        let gateways = vec![reached(1, 0), reached(2, 0), reached(3, 99), reached(0, 1), short];
        reach.announced(gateway(1), &pb::Reach { gateways });
        assert_eq!(reach.routes().into_keys().collect::<Vec<_>>(), [gateway(1)]);
    }
}
