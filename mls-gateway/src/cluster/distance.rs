//! How far the nodes are from this gateway. Between sites, entries are where their readers are one way after the commit if they come from the
//! nearest node, and up to a round trip later if they come from another.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use concordat_proto::ordering::v1::LocateRequest;
use tokio::time::{Instant, sleep, timeout};

use super::pool::NodeClient;
use crate::limits::{
    CONNECT_TIMEOUT, DISTANCE_FIRST, DISTANCE_INTERVAL, DISTANCE_PAUSE, NEARER_BY, RECONNECT_PAUSE,
};

/// The shortest round trip to a node that was measured.
pub(crate) struct Distance(AtomicU64);

impl Default for Distance {
    /// Unknown.
    fn default() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }
}

impl Distance {
    fn note(&self, took: Duration) {
        self.0.fetch_min(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn micros(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// For sorting: nodes within the same millisecond are equally near, and those of which nothing is known are farthest.
    pub(crate) fn rank(&self) -> u64 {
        self.micros() / 1000
    }

    /// So much nearer than `other` that it is worth a change.
    pub(crate) fn is_well_below(&self, other: &Self) -> bool {
        let by = u64::try_from(NEARER_BY.as_micros()).unwrap_or(u64::MAX);
        other.micros().checked_sub(self.micros()).is_some_and(|nearer| nearer >= by)
    }
}

/// Measures for as long as it runs: a few times soon, then now and then, for the first may have been held up.
pub(crate) async fn measure(distance: Arc<Distance>, mut client: NodeClient) {
    // Whatever the answer is: the question costs the node a look into an index.
    let request = LocateRequest { group_id: Bytes::from_static(&[0]), linearizable: false };
    let mut answers = 0_u32;
    loop {
        let begun = Instant::now();
        let answered = timeout(CONNECT_TIMEOUT, client.locate(request.clone())).await;
        let pause = match answered {
            Ok(Ok(_)) => {
                // The first one waits for the connection.
                if answers > 0 {
                    distance.note(begun.elapsed());
                }
                answers = answers.saturating_add(1);
                if answers <= DISTANCE_FIRST { DISTANCE_PAUSE } else { DISTANCE_INTERVAL }
            }
            Ok(Err(_)) | Err(_) => RECONNECT_PAUSE,
        };
        sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_round_trip_counts_and_unknown_is_farthest() {
        let (near, far, unknown) = (Distance::default(), Distance::default(), Distance::default());
        for ms in [9, 1, 5] {
            near.note(Duration::from_millis(ms));
            far.note(Duration::from_millis(ms + 70));
        }
        assert!((near.rank(), far.rank()) == (1, 71) && unknown.rank() > far.rank());
        assert!(near.is_well_below(&far) && near.is_well_below(&unknown) && !unknown.is_well_below(&unknown));
        far.note(Duration::from_millis(2));
        assert!(!near.is_well_below(&far), "a millisecond is not worth a change");
    }
}
