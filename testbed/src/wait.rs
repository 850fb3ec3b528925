//! Waiting for conditions, with a deadline, instead of sleeping.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::limits::POLL_INTERVAL;

/// A condition did not come true in time.
#[derive(Debug, thiserror::Error)]
#[error("waited {waited:?} in vain for {what}")]
pub struct Timeout {
    /// What was waited for.
    pub what: String,
    /// How long.
    pub waited: Duration,
}

/// Looks again and again until `look` finds something.
pub async fn eventually<T>(
    what: impl Into<String>,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> Result<T, Timeout> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return Ok(found);
        }
        if begun.elapsed() >= deadline {
            return Err(Timeout { what: what.into(), waited: begun.elapsed() });
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// The same for a look that does not have to wait itself.
pub async fn until<T>(
    what: impl Into<String>,
    deadline: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> Result<T, Timeout> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if begun.elapsed() >= deadline {
            return Err(Timeout { what: what.into(), waited: begun.elapsed() });
        }
        sleep(POLL_INTERVAL).await;
    }
}
