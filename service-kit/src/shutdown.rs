//! The end of a process: a signal begins the drain, the parts that hold it finish their work, a deadline cuts them short.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use service_kit::shutdown::{Drain, signal};
//! let drain = Drain::new();
//! let hold = drain.hold();
//! let part = drain.clone();
//! tokio::spawn(async move {
//!     part.begun().await; // ... stop taking work, finish what is under way ...
//!     drop(hold);
//! });
//! println!("{} received", signal().await?);
//! if drain.finish(std::time::Duration::from_secs(10)).await.is_err() { /* something still hangs: exit anyway */ }
//! # Ok(()) }
//! ```

use std::{io, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal as listen},
    time::timeout,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned},
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// Returns the name of the signal when SIGTERM or SIGINT arrives.
pub async fn signal() -> io::Result<&'static str> {
    let mut term = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

/// Tells every part of a process that it ends, and waits for those that still have something to do. Clones share the state.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    begun: CancellationToken,
    holders: TaskTracker,
}

/// Keeps the drain from finishing until it is dropped.
#[derive(Debug)]
pub struct Hold {
    _token: TaskTrackerToken,
}

/// The deadline passed with holders still at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{holders} parts had not finished when the drain's deadline of {deadline:?} passed")]
pub struct Unfinished {
    /// How many still hold the drain.
    pub holders: usize,
    /// The deadline.
    pub deadline: Duration,
}

impl Drain {
    /// A drain that has not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the drain. Later calls change nothing.
    pub fn begin(&self) {
        self.begun.cancel();
    }

    /// Whether the drain has begun.
    pub fn is_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Completes when the drain begins.
    pub fn begun(&self) -> WaitForCancellationFutureOwned {
        self.begun.clone().cancelled_owned()
    }

    /// The same as a token, for code that takes one.
    pub fn token(&self) -> CancellationToken {
        self.begun.clone()
    }

    /// Begins the drain when the guard is dropped: a part without which the process makes no sense holds one.
    pub fn begin_on_drop(&self) -> DropGuard {
        self.begun.clone().drop_guard()
    }

    /// Keeps the drain from finishing until the hold is dropped.
    pub fn hold(&self) -> Hold {
        Hold { _token: self.holders.token() }
    }

    /// Begins the drain if it has not begun, and waits until nobody holds it, `deadline` at most.
    pub async fn finish(&self, deadline: Duration) -> Result<(), Unfinished> {
        self.begin();
        self.holders.close();
        timeout(deadline, self.holders.wait())
            .await
            .map_err(|_| Unfinished { holders: self.holders.len(), deadline })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drain_waits_for_its_holders_and_no_longer_than_its_deadline() {
        let drain = Drain::new();
        let hold = drain.hold();
        let at_once = Duration::ZERO;
        assert_eq!(drain.finish(at_once).await, Err(Unfinished { holders: 1, deadline: at_once }));
        assert!(drain.is_begun());
        let other = drain.clone();
        let waiting = tokio::spawn(async move { other.finish(Duration::MAX).await });
        drain.begun().await;
        drop(hold);
        assert_eq!(waiting.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn losing_an_essential_part_begins_the_drain() {
        let drain = Drain::new();
        drop(drain.begin_on_drop());
        drain.begun().await;
    }
}
