//! Quotas: how much each client may submit, and how much each group may take. Refused at once, before anything else is done, so that
//! a flood costs this gateway little and others nothing.

mod bucket;
mod counts;

use std::{hash::Hash, num::NonZeroUsize, time::Duration};

use group_log::{ClientId, GroupId};
use lru::LruCache;
use parking_lot::Mutex;
use service_kit::clock::SharedClock;

pub use bucket::{Bucket, Rate};
pub use counts::{Counts, Held};

use crate::{
    error::GatewayError,
    limits::{
        GROUP_IN_FLIGHT_BYTES_MAX, GROUP_IN_FLIGHT_MAX, QUOTA_IN_FLIGHT_RETRY_AFTER,
        QUOTA_STREAMS_RETRY_AFTER, QUOTAS_REMEMBERED,
    },
    metrics,
};

/// What each client and each group may use at one gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// What one client submits: entries, branch entries, KeyPackages, acknowledgements.
    pub client_entries: Rate,
    /// Bytes of it.
    pub client_bytes: Rate,
    /// Entries of one group.
    pub group_entries: Rate,
    /// Bytes of one group's entries.
    pub group_bytes: Rate,
    /// Calls of one client that read: pages, heads, GroupInfos, branch entries.
    pub client_reads: Rate,
    /// KeyPackages that one client claims.
    pub client_claims: Rate,
    /// Streams (subscriptions, submissions, Welcomes) that one client holds open.
    pub client_streams: usize,
    /// Subscriptions to one group.
    pub group_subscriptions: usize,
    /// Submissions of one group that are under way at the same time.
    pub group_in_flight: usize,
    /// Bytes of them. A submission that is larger is let in alone.
    pub group_in_flight_bytes: usize,
}

impl Default for Quotas {
    /// Far above what people and bots use, below what would keep a gateway busy alone.
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            client_entries: Rate { per_second: 5000, burst: 20_000 },
            client_bytes: Rate { per_second: 16 * MIB, burst: 64 * MIB },
            group_entries: Rate { per_second: 20_000, burst: 80_000 },
            group_bytes: Rate { per_second: 64 * MIB, burst: 256 * MIB },
            client_reads: Rate { per_second: 2000, burst: 8000 },
            client_claims: Rate { per_second: 50, burst: 2000 },
            client_streams: 1000,
            group_subscriptions: 50_000,
            group_in_flight: GROUP_IN_FLIGHT_MAX,
            group_in_flight_bytes: GROUP_IN_FLIGHT_BYTES_MAX,
        }
    }
}

/// Meters what is used. One for a gateway.
pub struct Meter {
    clock: SharedClock,
    clients: Table<ClientId, 2>,
    groups: Table<GroupId, 2>,
    reads: Table<ClientId, 1>,
    claims: Table<ClientId, 1>,
    /// Streams that clients hold open.
    pub(crate) client_streams: Counts<ClientId>,
    /// Subscriptions to groups.
    pub(crate) group_subscriptions: Counts<GroupId>,
    /// Submissions under way: what waits for the cluster in the name of one group leaves room for the others.
    group_in_flight: Counts<GroupId>,
    group_in_flight_bytes: Counts<GroupId>,
}

/// A submission that is under way, until this is dropped.
#[derive(Debug)]
pub struct UnderWay {
    _held: [Held<GroupId>; 2],
}

impl Meter {
    /// Measures by `clock`.
    pub fn new(quotas: Quotas, clock: SharedClock) -> Self {
        Self {
            clock,
            clients: Table::new(
                "the client's quota",
                [("entries", quotas.client_entries), ("bytes", quotas.client_bytes)],
            ),
            groups: Table::new(
                "the group's quota",
                [("entries", quotas.group_entries), ("bytes", quotas.group_bytes)],
            ),
            reads: Table::new("the client's quota of reads", [("calls", quotas.client_reads)]),
            claims: Table::new("the client's quota of claims", [("KeyPackages", quotas.client_claims)]),
            client_streams: Counts::new(
                "the client's quota of open streams",
                quotas.client_streams,
                QUOTA_STREAMS_RETRY_AFTER,
            ),
            group_subscriptions: Counts::new(
                "the group's quota of open subscriptions",
                quotas.group_subscriptions,
                QUOTA_STREAMS_RETRY_AFTER,
            ),
            group_in_flight: Counts::new(
                "the group's quota of submissions under way",
                quotas.group_in_flight,
                QUOTA_IN_FLIGHT_RETRY_AFTER,
            ),
            group_in_flight_bytes: Counts::new(
                "the group's quota of submissions under way",
                quotas.group_in_flight_bytes,
                QUOTA_IN_FLIGHT_RETRY_AFTER,
            )
            .in_unit(" bytes"),
        }
    }

    /// Takes one submission of so many bytes from a client's quota. Asked first, so that a flood of one client uses up nothing of the
    /// group's.
    ///
    /// # Errors
    /// `QUOTA`, with when there is enough again.
    pub fn client(&self, client: &ClientId, bytes: usize) -> Result<(), GatewayError> {
        self.clients.take(client, [1, bytes as u64], self.clock.now_ms())
    }

    /// Takes one entry of so many bytes from a group's quota. It is under way until what is returned is dropped.
    ///
    /// # Errors
    /// `QUOTA`, with when there is enough again.
    pub fn group(&self, group: &GroupId, bytes: usize) -> Result<UnderWay, GatewayError> {
        let held = [self.group_in_flight.hold(group)?, self.group_in_flight_bytes.hold_some(group, bytes)?];
        self.groups.take(group, [1, bytes as u64], self.clock.now_ms())?;
        Ok(UnderWay { _held: held })
    }

    /// Takes one call from a client's quota of reads.
    ///
    /// # Errors
    /// `QUOTA`, with when there is enough again.
    pub fn read(&self, client: &ClientId) -> Result<(), GatewayError> {
        self.reads.take(client, [1], self.clock.now_ms())
    }

    /// Takes one claim of a KeyPackage from a client's quota.
    ///
    /// # Errors
    /// `QUOTA`, with when there is enough again.
    pub fn claim(&self, claimer: &ClientId) -> Result<(), GatewayError> {
        self.claims.take(claimer, [1], self.clock.now_ms())
    }
}

const REMEMBERED: NonZeroUsize = NonZeroUsize::new(QUOTAS_REMEMBERED).expect("the bound is not zero");

/// `N` buckets for each of many holders, the least recently seen forgotten first: those are the ones that are full again.
struct Table<K: Hash + Eq, const N: usize> {
    what: &'static str,
    units: [&'static str; N],
    rates: [Rate; N],
    buckets: Mutex<LruCache<K, [Bucket; N]>>,
}

impl<K: Hash + Eq + Clone, const N: usize> Table<K, N> {
    fn new(what: &'static str, rates: [(&'static str, Rate); N]) -> Self {
        let buckets = Mutex::new(LruCache::new(REMEMBERED));
        Self { what, units: rates.map(|(unit, _)| unit), rates: rates.map(|(_, rate)| rate), buckets }
    }

    /// Takes all the costs or none of them.
    fn take(&self, key: &K, costs: [u64; N], now: u64) -> Result<(), GatewayError> {
        let mut buckets = self.buckets.lock();
        let buckets =
            buckets.get_or_insert_mut(key.clone(), || self.rates.map(|rate| Bucket::full(rate, now)));
        let waits = (0..N).filter_map(|at| Some((buckets[at].wait(self.rates[at], costs[at], now)?, at)));
        if let Some((wait, at)) = waits.max() {
            return Err(used_up(self.what, self.rates[at], self.units[at], wait));
        }
        for ((bucket, rate), cost) in buckets.iter_mut().zip(self.rates).zip(costs) {
            bucket.take(rate, cost);
        }
        Ok(())
    }
}

fn used_up(what: &'static str, rate: Rate, unit: &str, retry_after: Duration) -> GatewayError {
    metrics::refusal("quota");
    let limit = format!("{} {unit} a second, {} at once", rate.per_second, rate.burst);
    GatewayError::Quota { what, limit, retry_after }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use concordat_proto::log::v1::Reason;
    use service_kit::clock::ManualClock;

    use super::*;

    fn client(name: &'static str) -> ClientId {
        ClientId::new(name.as_bytes()).unwrap()
    }

    fn group(name: &'static str) -> GroupId {
        GroupId::new(name.as_bytes()).unwrap()
    }

    fn quotas() -> Quotas {
        let rate = |per_second| Rate { per_second, burst: per_second * 2 };
        Quotas {
            client_entries: rate(10),
            client_bytes: rate(1000),
            group_entries: rate(20),
            group_bytes: rate(10_000),
            client_reads: rate(2),
            client_claims: rate(1),
            client_streams: 2,
            group_subscriptions: 3,
            group_in_flight: 2,
            group_in_flight_bytes: 3000,
        }
    }

    fn enter(meter: &Meter, client: &ClientId, group: &GroupId) -> Result<(), GatewayError> {
        meter.client(client, 1)?;
        meter.group(group, 1).map(drop)
    }

    #[test]
    fn a_flood_of_one_client_leaves_the_group_to_others_and_a_flood_of_a_group_leaves_other_groups_alone() {
        let clock = ManualClock::at_ms(0);
        let meter = Meter::new(quotas(), Arc::new(clock.clone()));
        let (ann, bob, cat) = (client("ann"), client("bob"), client("cat"));
        let (here, there) = (group("here"), group("there"));
        let through = (0..1000).filter(|_| enter(&meter, &ann, &here).is_ok()).count();
        assert_eq!(through, 20, "the client's burst");
        assert_eq!((0..1000).filter(|_| enter(&meter, &bob, &here).is_ok()).count(), 20);
        let error = enter(&meter, &cat, &here).unwrap_err();
        assert_eq!(error.reason(), Reason::Quota);
        assert!(
            matches!(error, GatewayError::Quota { retry_after, .. } if retry_after == Duration::from_millis(50))
        );
        enter(&meter, &cat, &there).unwrap();
        clock.advance_ms(100);
        enter(&meter, &ann, &there).unwrap();
    }

    #[test]
    fn bytes_count_too_and_reads_and_claims_have_quotas_of_their_own() {
        let clock = ManualClock::at_ms(0);
        let meter = Meter::new(quotas(), Arc::new(clock.clone()));
        let ann = client("ann");
        meter.client(&ann, 2000).unwrap();
        let error = meter.client(&ann, 500).unwrap_err();
        assert!(error.to_string().contains("bytes"), "{error}");
        clock.advance_ms(500);
        meter.client(&ann, 500).unwrap();
        for _ in 0..2 {
            meter.claim(&ann).unwrap();
        }
        assert_eq!(meter.claim(&ann).unwrap_err().reason(), Reason::Quota);
        meter.claim(&client("bob")).unwrap();
        for _ in 0..4 {
            meter.read(&ann).unwrap();
        }
        assert_eq!(meter.read(&ann).unwrap_err().reason(), Reason::Quota);
    }

    #[test]
    fn what_is_open_or_under_way_is_counted_until_it_ends() {
        let meter = Meter::new(quotas(), Arc::new(ManualClock::at_ms(0)));
        let ann = client("ann");
        let held = [meter.client_streams.hold(&ann).unwrap(), meter.client_streams.hold(&ann).unwrap()];
        assert_eq!(meter.client_streams.hold(&ann).unwrap_err().reason(), Reason::Quota);
        meter.client_streams.hold(&client("bob")).unwrap();
        drop(held);
        meter.client_streams.hold(&ann).unwrap();
        let under_way = [meter.group(&group("g"), 1).unwrap(), meter.group(&group("g"), 1).unwrap()];
        assert_eq!(meter.group(&group("g"), 1).unwrap_err().reason(), Reason::Quota);
        meter.group(&group("h"), 1).unwrap();
        drop(under_way);
        meter.group(&group("g"), 1).unwrap();
    }

    #[test]
    fn bytes_under_way_are_bounded_and_a_large_submission_is_let_in_alone() {
        let meter = Meter::new(quotas(), Arc::new(ManualClock::at_ms(0)));
        let (here, there) = (group("here"), group("there"));
        let large = meter.group(&here, 4000).unwrap();
        let error = meter.group(&here, 1).unwrap_err();
        assert!(error.to_string().contains("3000 bytes at a time"), "{error}");
        meter.group(&there, 3000).unwrap();
        drop(large);
        let _first = meter.group(&here, 2999).unwrap();
        assert_eq!(meter.group(&here, 2).unwrap_err().reason(), Reason::Quota);
        meter.group(&here, 1).unwrap();
    }

    #[test]
    fn holders_beyond_the_bound_are_forgotten_the_least_recently_seen_first() {
        let meter = Meter::new(quotas(), Arc::new(ManualClock::at_ms(0)));
        for n in 0..QUOTAS_REMEMBERED + 10 {
            meter.claim(&ClientId::new(n.to_be_bytes().to_vec()).unwrap()).unwrap();
        }
        assert_eq!(meter.claims.buckets.lock().len(), QUOTAS_REMEMBERED);
    }
}
