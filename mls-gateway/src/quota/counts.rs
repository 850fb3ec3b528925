//! How many of something each holder has open.

use std::{collections::HashMap, hash::Hash, sync::Arc, time::Duration};

use parking_lot::Mutex;

use crate::{error::GatewayError, metrics};

/// Counts by holder, up to a limit for each. Only those who hold something are remembered.
pub struct Counts<K: Hash + Eq> {
    what: &'static str,
    limit: usize,
    retry_after: Duration,
    open: Arc<Mutex<HashMap<K, usize>>>,
}

/// One of the holder's; given back when it is dropped.
#[derive(Debug)]
pub struct Held<K: Hash + Eq> {
    key: K,
    open: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K: Hash + Eq + Clone> Counts<K> {
    pub(super) fn new(what: &'static str, limit: usize, retry_after: Duration) -> Self {
        Self { what, limit, retry_after, open: Arc::default() }
    }

    /// One more for `key`.
    ///
    /// # Errors
    /// `QUOTA`: it has as many as it may.
    pub fn hold(&self, key: &K) -> Result<Held<K>, GatewayError> {
        let mut open = self.open.lock();
        let count = open.get(key).copied().unwrap_or(0);
        if count >= self.limit {
            metrics::refusal("quota");
            let limit = format!("{} at a time", self.limit);
            return Err(GatewayError::Quota { what: self.what, limit, retry_after: self.retry_after });
        }
        open.insert(key.clone(), count + 1);
        Ok(Held { key: key.clone(), open: Arc::clone(&self.open) })
    }
}

impl<K: Hash + Eq> Drop for Held<K> {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        if let Some(count) = open.get_mut(&self.key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.remove(&self.key);
            }
        }
    }
}
