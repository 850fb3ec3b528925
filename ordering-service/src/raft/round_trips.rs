//! How long it takes from node to node and back, as pings measure it.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::types::NodeId;
use crate::limits::ROUND_TRIP_SAMPLES;

/// The round trips of the last pings of one peer.
#[derive(Debug, Default)]
pub struct Samples(VecDeque<Duration>);

impl Samples {
    /// One more; the oldest goes when there are [`ROUND_TRIP_SAMPLES`].
    pub fn take(&mut self, round_trip: Duration) {
        if self.0.len() >= ROUND_TRIP_SAMPLES {
            self.0.pop_front();
        }
        self.0.push_back(round_trip);
    }

    /// The fastest: what is above it was spent in queues and on busy processors. A route that became slower is believed when all
    /// faster pings have gone.
    pub fn fastest(&self) -> Option<Duration> {
        self.0.iter().min().copied()
    }
}

/// Round trips between pairs of nodes, whichever of the two measured them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoundTrips(BTreeMap<(NodeId, NodeId), Duration>);

impl RoundTrips {
    /// Takes in a measurement; of two for the same pair the faster counts.
    pub fn note(&mut self, a: NodeId, b: NodeId, round_trip: Duration) {
        let known = self.0.entry((a.min(b), a.max(b))).or_insert(round_trip);
        *known = round_trip.min(*known);
    }

    /// From `a` to `b` and back, if that was measured; nothing at all from a node to itself.
    pub fn between(&self, a: NodeId, b: NodeId) -> Option<Duration> {
        if a == b {
            return Some(Duration::ZERO);
        }
        self.0.get(&(a.min(b), a.max(b))).copied()
    }

    /// Nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_fastest_of_the_last_pings_counts() {
        let mut samples = Samples::default();
        assert_eq!(samples.fastest(), None);
        samples.take(ms(5));
        for _ in 1..ROUND_TRIP_SAMPLES {
            samples.take(ms(9));
        }
        assert_eq!(samples.fastest(), Some(ms(5)), "one slow ping says nothing about the way");
        samples.take(ms(9));
        assert_eq!(samples.fastest(), Some(ms(9)), "a way that became slower is believed in the end");
    }

    #[test]
    fn a_pair_has_one_round_trip_whoever_measured_it() {
        let mut trips = RoundTrips::default();
        assert!(trips.is_empty() && trips.between(1, 2).is_none());
        trips.note(2, 1, ms(7));
        trips.note(1, 2, ms(6));
        trips.note(2, 1, ms(8));
        assert_eq!((trips.between(1, 2), trips.between(2, 1)), (Some(ms(6)), Some(ms(6))));
        assert_eq!((trips.between(3, 3), trips.between(1, 3)), (Some(Duration::ZERO), None));
    }
}
