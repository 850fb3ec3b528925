//! How much of something each holder has open.

use std::{collections::HashMap, hash::Hash, sync::Arc, time::Duration};

use parking_lot::Mutex;

use crate::{error::GatewayError, metrics};

/// Counts by holder, up to a limit for each. Only those who hold something are remembered.
pub struct Counts<K: Hash + Eq> {
    what: &'static str,
    unit: &'static str,
    limit: usize,
    retry_after: Duration,
    open: Arc<Mutex<HashMap<K, usize>>>,
}

/// A part of the holder's; given back when it is dropped.
#[derive(Debug)]
pub struct Held<K: Hash + Eq> {
    key: K,
    amount: usize,
    open: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K: Hash + Eq + Clone> Counts<K> {
    pub(super) fn new(what: &'static str, limit: usize, retry_after: Duration) -> Self {
        Self { what, unit: "", limit, retry_after, open: Arc::default() }
    }

    /// The same, in this unit.
    pub(super) fn in_unit(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }

    /// One more for `key`.
    ///
    /// # Errors
    /// `QUOTA`: it has as many as it may.
    pub fn hold(&self, key: &K) -> Result<Held<K>, GatewayError> {
        self.hold_some(key, 1)
    }

    /// So much more for `key`. Whoever holds nothing may hold any amount at once.
    ///
    /// # Errors
    /// `QUOTA`: it would have more than it may.
    pub fn hold_some(&self, key: &K, amount: usize) -> Result<Held<K>, GatewayError> {
        let mut open = self.open.lock();
        let before = open.get(key).copied().unwrap_or(0);
        let after = before.saturating_add(amount);
        if after > self.limit && (before > 0 || self.limit == 0) {
            metrics::refusal("quota");
            let limit = format!("{}{} at a time", self.limit, self.unit);
            return Err(GatewayError::Quota { what: self.what, limit, retry_after: self.retry_after });
        }
        open.insert(key.clone(), after);
        Ok(Held { key: key.clone(), amount, open: Arc::clone(&self.open) })
    }
}

impl<K: Hash + Eq> Drop for Held<K> {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        if let Some(count) = open.get_mut(&self.key) {
            *count = count.saturating_sub(self.amount);
            if *count == 0 {
                open.remove(&self.key);
            }
        }
    }
}
