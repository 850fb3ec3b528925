//! Which shard a group lives in. It never moves, so what was learnt once stays true.

use std::{num::NonZeroUsize, sync::Arc};

use group_log::GroupId;
use lru::LruCache;
use parking_lot::Mutex;

use super::read::Reader;
use crate::{error::GatewayError, limits::LOCATIONS_MAX};

/// Finds shards, and remembers them for the [`LOCATIONS_MAX`] groups used last.
pub struct Locator {
    reader: Arc<Reader>,
    known: Mutex<LruCache<GroupId, u32>>,
}

impl Locator {
    /// Asks through `reader`.
    pub fn new(reader: Arc<Reader>) -> Self {
        let bound = const { NonZeroUsize::new(LOCATIONS_MAX).expect("the bound is not zero") };
        Self { reader, known: Mutex::new(LruCache::new(bound)) }
    }

    /// The shard of a group that exists.
    pub async fn shard(&self, group_id: &GroupId) -> Result<u32, GatewayError> {
        if let Some(&shard) = self.known.lock().get(group_id) {
            return Ok(shard);
        }
        // A node that lags may not know a new group yet; only a linearizable answer says that there is none.
        let found = match self.reader.locate(group_id, false).await? {
            Some(shard) => Some(shard),
            None => self.reader.locate(group_id, true).await?,
        };
        let shard = found.ok_or(GatewayError::GroupNotFound)?;
        self.learn(group_id.clone(), shard);
        Ok(shard)
    }

    /// Remembers where a group lives.
    pub fn learn(&self, group_id: GroupId, shard: u32) {
        self.known.lock().put(group_id, shard);
    }

    /// Forgets a group, because the shard said that it does not live there.
    pub fn forget(&self, group_id: &GroupId) {
        self.known.lock().pop(group_id);
    }
}
