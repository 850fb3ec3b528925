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

use crate::{error::GatewayError, limits::QUOTAS_REMEMBERED, metrics};

/// What each client and each group may use at one gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// Entries (creates, commits, proposals, messages, closes, policies) of one client.
    pub client_entries: Rate,
    /// Bytes of one client's entries.
    pub client_bytes: Rate,
    /// Entries of one group.
    pub group_entries: Rate,
    /// Bytes of one group's entries.
    pub group_bytes: Rate,
    /// KeyPackages that one client claims.
    pub client_claims: Rate,
    /// Streams (subscriptions, Welcomes) that one client holds open.
    pub client_streams: usize,
    /// Subscriptions to one group.
    pub group_subscriptions: usize,
}

impl Default for Quotas {
    /// Far above what people and bots use, below what would keep a gateway busy alone.
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            client_entries: Rate { per_second: 5000, burst: 20_000 },
            client_bytes: Rate { per_second: 16 * MIB, burst: 64 * MIB },
            group_entries: Rate { per_second: 20_000, burst: 40_000 },
            group_bytes: Rate { per_second: 64 * MIB, burst: 128 * MIB },
            client_claims: Rate { per_second: 50, burst: 2000 },
            client_streams: 1000,
            group_subscriptions: 50_000,
        }
    }
}

/// Meters what is used. One for a gateway.
pub struct Meter {
    quotas: Quotas,
    clock: SharedClock,
    clients: Table<ClientId>,
    groups: Table<GroupId>,
    claims: Mutex<LruCache<ClientId, Bucket>>,
    /// Streams that clients hold open.
    pub(crate) client_streams: Counts<ClientId>,
    /// Subscriptions to groups.
    pub(crate) group_subscriptions: Counts<GroupId>,
}

/// Entries and bytes of many holders, the least recently seen forgotten first.
struct Table<K: Hash + Eq> {
    buckets: Mutex<LruCache<K, (Bucket, Bucket)>>,
    entries: Rate,
    bytes: Rate,
}

impl Meter {
    /// Measures by `clock`.
    pub fn new(quotas: Quotas, clock: SharedClock) -> Self {
        Self {
            clients: Table::new(quotas.client_entries, quotas.client_bytes),
            groups: Table::new(quotas.group_entries, quotas.group_bytes),
            claims: Mutex::new(LruCache::new(REMEMBERED)),
            client_streams: Counts::new("the client's open streams", quotas.client_streams),
            group_subscriptions: Counts::new("the group's open subscriptions", quotas.group_subscriptions),
            quotas,
            clock,
        }
    }

    /// Takes one entry of so many bytes from the quotas of its client and its group, or nothing from either.
    ///
    /// # Errors
    /// `QUOTA`, with when there is enough again.
    pub fn entry(&self, client: &ClientId, group: &GroupId, bytes: usize) -> Result<(), GatewayError> {
        let now = self.clock.now_ms();
        let bytes = bytes as u64;
        // The client first: a flood of one client must not use up the quota of the group for others.
        self.clients.check(client, bytes, now, "the client's quota")?;
        self.groups.check(group, bytes, now, "the group's quota")?;
        self.clients.take(client, bytes);
        self.groups.take(group, bytes);
        Ok(())
    }

    /// Takes one claim of a KeyPackage from a client's quota.
    ///
    /// # Errors
    /// `QUOTA`, with when there is enough again.
    pub fn claim(&self, claimer: &ClientId) -> Result<(), GatewayError> {
        let (rate, now) = (self.quotas.client_claims, self.clock.now_ms());
        let mut claims = self.claims.lock();
        let bucket = claims.get_or_insert_mut(claimer.clone(), || Bucket::full(rate, now));
        match bucket.wait(rate, 1, now) {
            None => {
                bucket.take(rate, 1);
                Ok(())
            }
            Some(wait) => Err(used_up("the client's quota of claims", rate, "KeyPackages", wait)),
        }
    }
}

const REMEMBERED: NonZeroUsize = NonZeroUsize::new(QUOTAS_REMEMBERED).expect("the bound is not zero");

impl<K: Hash + Eq + Clone> Table<K> {
    fn new(entries: Rate, bytes: Rate) -> Self {
        Self { buckets: Mutex::new(LruCache::new(REMEMBERED)), entries, bytes }
    }

    fn check(&self, key: &K, bytes: u64, now: u64, what: &'static str) -> Result<(), GatewayError> {
        let mut buckets = self.buckets.lock();
        let fresh = || (Bucket::full(self.entries, now), Bucket::full(self.bytes, now));
        let (entries, volume) = buckets.get_or_insert_mut(key.clone(), fresh);
        let waits = (entries.wait(self.entries, 1, now), volume.wait(self.bytes, bytes, now));
        match waits {
            (None, None) => Ok(()),
            (Some(wait), None) => Err(used_up(what, self.entries, "entries", wait)),
            (None, Some(wait)) => Err(used_up(what, self.bytes, "bytes", wait)),
            (Some(one), Some(other)) => Err(used_up(what, self.entries, "entries", one.max(other))),
        }
    }

    fn take(&self, key: &K, bytes: u64) {
        if let Some((entries, volume)) = self.buckets.lock().peek_mut(key) {
            entries.take(self.entries, 1);
            volume.take(self.bytes, bytes);
        }
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
            client_claims: rate(1),
            client_streams: 2,
            group_subscriptions: 3,
        }
    }

    #[test]
    fn a_flood_of_one_client_leaves_the_group_to_others_and_a_flood_of_a_group_leaves_other_groups_alone() {
        let clock = ManualClock::at_ms(0);
        let meter = Meter::new(quotas(), Arc::new(clock.clone()));
        let (ann, bob, cat) = (client("ann"), client("bob"), client("cat"));
        let (here, there) = (group("here"), group("there"));
        let through = (0..1000).filter(|_| meter.entry(&ann, &here, 1).is_ok()).count();
        assert_eq!(through, 20, "the client's burst");
        assert_eq!((0..1000).filter(|_| meter.entry(&bob, &here, 1).is_ok()).count(), 20);
        let error = meter.entry(&cat, &here, 1).unwrap_err();
        assert_eq!(error.reason(), Reason::Quota);
        assert!(
            matches!(error, GatewayError::Quota { retry_after, .. } if retry_after == Duration::from_millis(50))
        );
        meter.entry(&cat, &there, 1).unwrap();
        clock.advance_ms(100);
        meter.entry(&ann, &there, 1).unwrap();
    }

    #[test]
    fn bytes_count_too_and_claims_have_a_quota_of_their_own() {
        let clock = ManualClock::at_ms(0);
        let meter = Meter::new(quotas(), Arc::new(clock.clone()));
        meter.entry(&client("ann"), &group("g"), 2000).unwrap();
        let error = meter.entry(&client("ann"), &group("g"), 500).unwrap_err();
        assert!(error.to_string().contains("bytes"), "{error}");
        clock.advance_ms(500);
        meter.entry(&client("ann"), &group("g"), 500).unwrap();
        meter.claim(&client("ann")).unwrap();
        meter.claim(&client("ann")).unwrap();
        assert_eq!(meter.claim(&client("ann")).unwrap_err().reason(), Reason::Quota);
        meter.claim(&client("bob")).unwrap();
    }

    #[test]
    fn open_streams_are_counted_until_they_are_dropped() {
        let meter = Meter::new(quotas(), Arc::new(ManualClock::at_ms(0)));
        let ann = client("ann");
        let held = [meter.client_streams.hold(&ann).unwrap(), meter.client_streams.hold(&ann).unwrap()];
        assert_eq!(meter.client_streams.hold(&ann).unwrap_err().reason(), Reason::Quota);
        meter.client_streams.hold(&client("bob")).unwrap();
        drop(held);
        meter.client_streams.hold(&ann).unwrap();
    }
}
