//! From one followed log to any number of subscribers.
//!
//! Each followed group has a ring of its recent entries, filled by the one upstream stream and shared by everybody. A subscriber
//! holds nothing but its cursor and pulls: from the ring if its next entry is there, by reading pages from the cluster if it is not.
//! So a slow subscriber costs nothing, never slows another, and is never cut off.

mod budget;
mod feed;
mod subscription;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use concordat_proto::log::v1::Head;
use group_log::GroupId;
use parking_lot::Mutex;
use tokio::time::{Instant, interval};
use tokio_util::task::AbortOnDropHandle;

pub use feed::{Feed, Pull};
pub use subscription::{Event, Subscription, cursor_error, verify_page};

use crate::{
    cluster::{Cluster, FollowGuard, LogReader},
    error::GatewayError,
    fanout::budget::Budget,
    limits::{FOLLOW_LINGER, FOLLOW_SWEEP, FOLLOWED_GROUPS_MAX, RING_BYTES_MAX, SUBSCRIPTIONS_MAX},
    metrics,
};

/// All followed groups.
pub struct Fanout {
    cluster: Arc<Cluster>,
    budget: Arc<Budget>,
    feeds: Mutex<HashMap<GroupId, Followed>>,
    subscriptions: AtomicUsize,
}

struct Followed {
    feed: Arc<Feed>,
    idle_since: Option<Instant>,
    _upstream: FollowGuard,
}

/// One subscriber's hold on a feed.
pub struct FeedHandle {
    feed: Arc<Feed>,
    fanout: Arc<Fanout>,
}

impl Drop for FeedHandle {
    fn drop(&mut self) {
        self.feed.subscribers.fetch_sub(1, Ordering::Relaxed);
        self.fanout.subscriptions.fetch_sub(1, Ordering::Relaxed);
        metrics::subscriptions("group", -1.0);
    }
}

impl Fanout {
    /// Nothing is followed yet. The returned task ends feeds that nobody listens to.
    pub fn start(cluster: Arc<Cluster>) -> (Arc<Self>, AbortOnDropHandle<()>) {
        let fanout = Arc::new(Self {
            cluster,
            budget: Budget::with_limit(RING_BYTES_MAX),
            feeds: Mutex::default(),
            subscriptions: AtomicUsize::new(0),
        });
        let weak = Arc::downgrade(&fanout);
        let sweeper = tokio::spawn(async move {
            let mut ticks = interval(FOLLOW_SWEEP);
            loop {
                let now = ticks.tick().await;
                let Some(fanout) = weak.upgrade() else { return };
                fanout.sweep(now);
            }
        });
        (fanout, AbortOnDropHandle::new(sweeper))
    }

    /// The feed of a group that exists; following starts with its first subscriber.
    pub async fn feed(self: &Arc<Self>, group_id: &GroupId) -> Result<FeedHandle, GatewayError> {
        if self.subscriptions.load(Ordering::Relaxed) >= SUBSCRIPTIONS_MAX {
            return Err(GatewayError::overloaded("the number of subscriptions", SUBSCRIPTIONS_MAX));
        }
        if let Some(handle) = self.running(group_id) {
            return Ok(handle);
        }
        let head = self.cluster.reader.head(group_id, false, false).await;
        let head = match head {
            // A node that lags may not know a new group yet.
            Err(GatewayError::GroupNotFound) => self.cluster.reader.head(group_id, true, false).await?,
            other => other?,
        };
        self.begin(group_id, head.head)?;
        // The sweep waits for a feed to be idle for a while, so it is still there.
        self.running(group_id).ok_or(GatewayError::Stopping)
    }

    /// Follows a group from `head` on, unless that goes on already.
    fn begin(&self, group_id: &GroupId, head: Head) -> Result<(), GatewayError> {
        let mut feeds = self.feeds.lock();
        if feeds.contains_key(group_id) {
            return Ok(());
        }
        if feeds.len() >= FOLLOWED_GROUPS_MAX {
            return Err(GatewayError::overloaded("the number of followed groups", FOLLOWED_GROUPS_MAX));
        }
        let feed = Feed::new(group_id.clone(), head, Arc::clone(&self.budget))?;
        let upstream = self.cluster.follower.group(Arc::clone(&feed) as _);
        feeds.insert(group_id.clone(), Followed { feed, idle_since: None, _upstream: upstream });
        metrics::followed_groups(feeds.len());
        Ok(())
    }

    /// The cluster has accepted an entry: whoever follows the group must get it before long.
    pub fn expect(&self, group_id: &GroupId, seq: u64) {
        if let Some(followed) = self.feeds.lock().get(group_id) {
            followed.feed.expect(seq, Instant::now());
        }
    }

    /// The epoch that a followed group is in; nothing if it is not followed here, or has not caught up. Whoever asks uses the group: it is
    /// followed a while longer.
    pub fn live_epoch(&self, group_id: &GroupId) -> Option<u64> {
        let mut feeds = self.feeds.lock();
        let followed = feeds.get_mut(group_id)?;
        followed.idle_since = None;
        followed.feed.live_epoch()
    }

    /// Groups that are followed.
    pub fn followed_groups(&self) -> usize {
        self.feeds.lock().len()
    }

    fn running(self: &Arc<Self>, group_id: &GroupId) -> Option<FeedHandle> {
        let mut feeds = self.feeds.lock();
        let followed = feeds.get_mut(group_id)?;
        if followed.feed.failed().is_some() {
            // What failed for one subscriber is tried afresh for the next.
            feeds.remove(group_id);
            return None;
        }
        followed.idle_since = None;
        followed.feed.subscribers.fetch_add(1, Ordering::Relaxed);
        self.subscriptions.fetch_add(1, Ordering::Relaxed);
        metrics::subscriptions("group", 1.0);
        Some(FeedHandle { feed: Arc::clone(&followed.feed), fanout: Arc::clone(self) })
    }

    fn sweep(&self, now: Instant) {
        let mut feeds = self.feeds.lock();
        feeds.retain(|_, followed| {
            if followed.feed.subscribers.load(Ordering::Relaxed) > 0 {
                followed.idle_since = None;
                return true;
            }
            let since = *followed.idle_since.get_or_insert(now);
            now.saturating_duration_since(since) < FOLLOW_LINGER
        });
        metrics::followed_groups(feeds.len());
    }
}

#[cfg(test)]
mod tests {
    use service_kit::{net::tcp_network, rng::Randomness};

    use super::*;

    #[tokio::test]
    async fn a_group_is_followed_while_somebody_listens_and_a_while_longer() {
        let cluster =
            Cluster::connect(&["127.0.0.1:1".to_owned()], tcp_network(), &Randomness::from_seed(1), None, "");
        let (fanout, _sweeper) = Fanout::start(Arc::new(cluster));
        let group = GroupId::new(&b"group"[..]).unwrap();
        let hash = bytes::Bytes::from_static(&[1; 32]);
        let head = Head { seq: 1, chain_hash: hash.clone(), state_id: hash, ..Head::default() };
        fanout.begin(&group, head).unwrap();
        let (first, second) = (fanout.running(&group).unwrap(), fanout.running(&group).unwrap());
        assert!(Arc::ptr_eq(&first.feed, &second.feed), "shared");

        let now = Instant::now();
        drop(first);
        fanout.sweep(now);
        fanout.sweep(now + FOLLOW_LINGER * 2);
        assert_eq!(fanout.followed_groups(), 1, "one still listens");
        drop(second);
        fanout.sweep(now);
        fanout.sweep(now + FOLLOW_LINGER / 2);
        // Somebody came and went meanwhile: the while begins anew.
        drop(fanout.running(&group).unwrap());
        fanout.sweep(now + FOLLOW_LINGER);
        assert_eq!(fanout.followed_groups(), 1);
        fanout.sweep(now + FOLLOW_LINGER * 2);
        assert_eq!(fanout.followed_groups(), 0);
    }
}
