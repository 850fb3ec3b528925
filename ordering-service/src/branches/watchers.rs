//! Gateways that watch this node's quorum state: those are there.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use group_log::fork::GatewayId;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{error::ApiError, limits};

/// Gateways that watch this node, or did a moment ago.
#[derive(Default)]
pub struct Watchers(Mutex<HashMap<GatewayId, Seen>>);

struct Seen {
    streams: usize,
    last: Instant,
}

/// A gateway watches for as long as this lives.
pub struct Watching {
    watchers: Arc<Watchers>,
    id: GatewayId,
}

impl Watchers {
    /// A gateway begins to watch.
    ///
    /// # Errors
    /// Too many do.
    pub fn watch(self: &Arc<Self>, id: GatewayId) -> Result<Watching, ApiError> {
        let mut known = self.0.lock();
        known.retain(|_, seen| seen.is_here());
        if known.len() >= limits::GATEWAYS_PER_NODE && !known.contains_key(&id) {
            let (what, limit) = ("gateways that watch this node", limits::GATEWAYS_PER_NODE);
            return Err(ApiError::Overloaded { what, limit });
        }
        let seen = known.entry(id).or_insert_with(|| Seen { streams: 0, last: Instant::now() });
        seen.streams += 1;
        Ok(Watching { watchers: self.clone(), id })
    }

    /// Those that watch, and those whose stream broke not long ago.
    pub fn here(&self) -> BTreeSet<GatewayId> {
        self.0.lock().iter().filter(|(_, seen)| seen.is_here()).map(|(id, _)| *id).collect()
    }
}

impl Seen {
    fn is_here(&self) -> bool {
        self.streams > 0 || self.last.elapsed() < limits::GATEWAY_GRACE
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        if let Some(seen) = self.watchers.0.lock().get_mut(&self.id) {
            seen.streams = seen.streams.saturating_sub(1);
            seen.last = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_gateway_is_here_while_it_watches_and_a_moment_longer() {
        let watchers = Arc::new(Watchers::default());
        let id = GatewayId([1; 16]);
        let (first, second) = (watchers.watch(id).ok(), watchers.watch(id).ok());
        drop(first);
        tokio::time::advance(limits::GATEWAY_GRACE * 2).await;
        assert_eq!(watchers.here(), BTreeSet::from([id]));
        drop(second);
        assert_eq!(watchers.here(), BTreeSet::from([id]), "it may only connect again");
        tokio::time::advance(limits::GATEWAY_GRACE).await;
        assert_eq!(watchers.here(), BTreeSet::new());
    }

    #[tokio::test]
    async fn not_more_than_a_bounded_number_watches() {
        let watchers = Arc::new(Watchers::default());
        let id = |n: usize| GatewayId((n as u128).to_be_bytes());
        let all: Vec<_> = (0..limits::GATEWAYS_PER_NODE).map(|n| watchers.watch(id(n)).ok()).collect();
        assert!(watchers.watch(id(all.len())).is_err());
        assert!(watchers.watch(id(0)).is_ok(), "one that watches already may watch twice");
    }
}
