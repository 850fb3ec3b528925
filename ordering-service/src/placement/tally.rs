//! Counts submissions by shard and by the site that they come from.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use super::view::Counted;
use crate::{
    limits::{DATA_SHARDS, SITES_COUNTED},
    raft::types::ShardId,
};

/// All shards, the directory among them.
const SHARDS: usize = DATA_SHARDS as usize + 1;

/// The submissions of all streams since they were last taken, by site. At most [`SITES_COUNTED`] sites, and those without a name.
#[derive(Default)]
pub struct Tally(Mutex<HashMap<String, Arc<Counts>>>);

struct Counts([AtomicU64; SHARDS]);

/// Counts the submissions of one stream. Takes no lock.
#[derive(Clone)]
pub struct SiteTally(Arc<Counts>);

impl SiteTally {
    /// One submission for a shard. One for a shard that no cluster can have is not counted.
    pub fn count(&self, shard: ShardId) {
        let count = usize::try_from(shard).ok().and_then(|shard| self.0.0.get(shard));
        if let Some(count) = count {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Tally {
    /// For a stream that comes from `site`; empty if it does not say. Where too many sites are known, a further one counts as unknown.
    pub fn of_site(&self, site: &str) -> SiteTally {
        let mut sites = self.0.lock();
        let name = if sites.contains_key(site) || sites.len() < SITES_COUNTED { site } else { "" };
        let counts = sites
            .entry(name.to_owned())
            .or_insert_with(|| Arc::new(Counts(std::array::from_fn(|_| AtomicU64::new(0)))));
        SiteTally(counts.clone())
    }

    /// What was counted for a shard since this was last called.
    pub fn take(&self, shard: ShardId) -> Counted {
        let Ok(shard) = usize::try_from(shard) else { return Counted::new() };
        let sites = self.0.lock();
        let counts = sites.iter().filter_map(|(site, counts)| {
            let count = counts.0.get(shard)?.swap(0, Ordering::Relaxed);
            (count > 0).then(|| (site.clone(), count))
        });
        counts.collect()
    }

    /// Forgets sites from which no stream comes any more. What was not taken of them is lost.
    pub fn forget_gone(&self) {
        self.0.lock().retain(|_, counts| Arc::strong_count(counts) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn submissions_are_counted_by_site_and_shard_and_taken_once() {
        let tally = Tally::default();
        let (here, again, unknown) = (tally.of_site("a"), tally.of_site("a"), tally.of_site(""));
        here.count(1);
        again.count(1);
        unknown.count(1);
        here.count(DATA_SHARDS);
        here.count(DATA_SHARDS + 1);
        here.count(u32::MAX);
        assert_eq!(tally.take(1), Counted::from([("a".into(), 2), (String::new(), 1)]));
        assert_eq!(tally.take(1), Counted::new());
        assert_eq!(tally.take(DATA_SHARDS), Counted::from([("a".into(), 1)]));
        assert_eq!(tally.take(DATA_SHARDS + 1), Counted::new());
    }

    #[test]
    fn the_number_of_sites_is_bounded_and_those_that_are_gone_make_room() {
        let tally = Tally::default();
        let sites: Vec<_> = (0..SITES_COUNTED).map(|n| tally.of_site(&n.to_string())).collect();
        let more = tally.of_site("one more");
        more.count(1);
        assert_eq!(tally.take(1), Counted::from([(String::new(), 1)]));
        drop((sites, more));
        tally.forget_gone();
        let more = tally.of_site("one more");
        more.count(1);
        tally.forget_gone();
        assert_eq!(tally.take(1), Counted::from([("one more".into(), 1)]));
    }
}
