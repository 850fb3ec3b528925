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
        let now = Instant::now();
        known.retain(|_, seen| seen.is_here(now));
        if known.len() >= limits::GATEWAYS_PER_NODE && !known.contains_key(&id) {
            let (what, limit) = ("gateways that watch this node", limits::GATEWAYS_PER_NODE);
            return Err(ApiError::Overloaded { what, limit });
        }
        let seen = known.entry(id).or_insert_with(|| Seen { streams: 0, last: now });
        seen.streams += 1;
        Ok(Watching { watchers: self.clone(), id })
    }

    /// Those that watch, and those whose stream broke not long ago.
    pub fn here(&self) -> BTreeSet<GatewayId> {
        self.here_at(Instant::now())
    }

    fn here_at(&self, now: Instant) -> BTreeSet<GatewayId> {
        self.0.lock().iter().filter(|(_, seen)| seen.is_here(now)).map(|(id, _)| *id).collect()
    }
}

impl Seen {
    fn is_here(&self, now: Instant) -> bool {
        self.streams > 0 || now.saturating_duration_since(self.last) < limits::GATEWAY_GRACE
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

    #[test]
    fn a_gateway_is_here_while_it_watches_and_a_moment_longer() {
        let watchers = Arc::new(Watchers::default());
        let id = GatewayId([1; 16]);
        let (first, second) = (watchers.watch(id).ok(), watchers.watch(id).ok());
        drop(first);
        assert_eq!(watchers.here_at(Instant::now() + limits::GATEWAY_GRACE * 2), BTreeSet::from([id]));
        drop(second);
        assert_eq!(watchers.here(), BTreeSet::from([id]), "it may only connect again");
        assert_eq!(watchers.here_at(Instant::now() + limits::GATEWAY_GRACE), BTreeSet::new());
    }

    #[test]
    fn not_more_than_a_bounded_number_watches() {
        let watchers = Arc::new(Watchers::default());
        let id = |n: usize| GatewayId((n as u128).to_be_bytes());
        let all: Vec<_> = (0..limits::GATEWAYS_PER_NODE).map(|n| watchers.watch(id(n)).ok()).collect();
        assert!(watchers.watch(id(all.len())).is_err());
        assert!(watchers.watch(id(0)).is_ok(), "one that watches already may watch twice");
    }
}
