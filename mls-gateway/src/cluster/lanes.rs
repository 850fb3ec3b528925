//! A queue in which those who wait take turns by group: one that sends much waits for itself, not others for it.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

/// What waits, by lane. A lane keeps its order; lanes with something in them take turns. As long as its user lets it grow.
pub(super) struct Lanes<T> {
    lanes: HashMap<Bytes, VecDeque<T>>,
    /// Lanes with something in them, each once, in the order of their turns.
    turns: VecDeque<Bytes>,
    length: usize,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self { lanes: HashMap::new(), turns: VecDeque::new(), length: 0 }
    }
}

impl<T> Lanes<T> {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds to the end of a lane.
    pub(super) fn push(&mut self, lane: Bytes, item: T) {
        let items = self.lanes.entry(lane.clone()).or_default();
        if items.is_empty() {
            self.turns.push_back(lane);
        }
        items.push_back(item);
        self.length += 1;
    }

    /// Takes the first of the lane whose turn it is, if it `fits`; otherwise it stays that lane's turn.
    pub(super) fn pop_if(&mut self, fits: impl FnOnce(&T) -> bool) -> Option<T> {
        let items = self.lanes.get_mut(self.turns.front()?)?;
        if !fits(items.front()?) {
            return None;
        }
        let item = items.pop_front()?;
        self.length -= 1;
        let is_empty = items.is_empty();
        let lane = self.turns.pop_front()?;
        match is_empty {
            true => _ = self.lanes.remove(&lane),
            false => self.turns.push_back(lane),
        }
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOD: Bytes = Bytes::from_static(b"flood");
    const QUIET: Bytes = Bytes::from_static(b"quiet");

    fn all<T>(lanes: &mut Lanes<T>) -> Vec<T> {
        std::iter::from_fn(|| lanes.pop_if(|_| true)).collect()
    }

    #[test]
    fn whoever_comes_behind_a_flood_is_next_but_one() {
        let mut lanes = Lanes::default();
        (0..1000).for_each(|number| lanes.push(FLOOD, number));
        lanes.push(QUIET, 5000);
        lanes.push(QUIET, 5001);
        assert_eq!(lanes.len(), 1002);
        assert_eq!(all(&mut lanes)[..5], [0, 5000, 1, 5001, 2]);
        assert!(lanes.is_empty() && lanes.lanes.is_empty() && lanes.turns.is_empty());
    }

    #[test]
    fn each_lane_keeps_its_order_whatever_comes_when() {
        let mut lanes = Lanes::default();
        let mut popped = Vec::new();
        for number in 0..300 {
            lanes.push(if number % 3 == 0 { QUIET } else { FLOOD }, number);
            if number % 4 == 3 {
                popped.extend(lanes.pop_if(|_| true));
            }
        }
        popped.extend(all(&mut lanes));
        let (quiet, flood): (Vec<i32>, Vec<i32>) = popped.iter().partition(|&number| number % 3 == 0);
        assert_eq!(popped.len(), 300);
        assert!(quiet.is_sorted() && flood.is_sorted());
    }

    #[test]
    fn what_does_not_fit_stays_first() {
        let mut lanes = Lanes::default();
        lanes.push(FLOOD, 1);
        lanes.push(QUIET, 2);
        assert_eq!(lanes.pop_if(|_| false), None);
        assert_eq!((lanes.len(), lanes.pop_if(|item| *item == 1)), (2, Some(1)));
    }
}
