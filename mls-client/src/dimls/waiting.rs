//! What came too early: a bounded buffer that gives one member's items back in its order. Pure.

use std::collections::BTreeMap;

/// What became of an item that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It was taken in before, or lies here already.
    Known,
    /// It waits for its turn.
    Kept,
    /// There is no room. It will be fetched again, since the cursor stays where it is.
    Full,
}

/// Items of one member, by their numbers.
#[derive(Clone, Debug)]
pub struct Waiting<T> {
    items: BTreeMap<u64, (T, usize)>,
    bytes: usize,
    most_items: usize,
    most_bytes: usize,
    /// Since when the next item could not be taken in, in milliseconds.
    blocked_since: Option<u64>,
}

impl<T> Waiting<T> {
    /// Room for so many items of so many bytes together. The very next item always has room.
    pub fn new(most_items: usize, most_bytes: usize) -> Self {
        Waiting { items: BTreeMap::new(), bytes: 0, most_items, most_bytes, blocked_since: None }
    }

    /// Puts an item by. `next` is the number that is due.
    pub fn offer(&mut self, seq: u64, item: T, bytes: usize, next: u64) -> Offered {
        if seq < next || self.items.contains_key(&seq) {
            return Offered::Known;
        }
        // What lies furthest ahead gives way to what is due earlier.
        while self.items.len() >= self.most_items || self.bytes + bytes > self.most_bytes {
            match self.items.last_key_value() {
                Some((last, _)) if *last > seq => {
                    let last = *last;
                    self.remove(last);
                }
                Some(_) if seq != next => return Offered::Full,
                _ => break,
            }
        }
        self.bytes += bytes;
        self.items.insert(seq, (item, bytes));
        Offered::Kept
    }

    /// The item with this number, if it is here.
    pub fn get(&self, seq: u64) -> Option<&T> {
        self.items.get(&seq).map(|(item, _)| item)
    }

    /// Takes the item with this number out.
    pub fn remove(&mut self, seq: u64) -> Option<T> {
        let (item, bytes) = self.items.remove(&seq)?;
        self.bytes -= bytes;
        Some(item)
    }

    /// The item that is due cannot be taken in. Returns for how long that has been so, in milliseconds.
    pub fn blocked(&mut self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(*self.blocked_since.get_or_insert(now_ms))
    }

    /// The item that was due is through.
    pub fn unblocked(&mut self) {
        self.blocked_since = None;
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Forgets everything in front of `next`.
    pub fn skip_to(&mut self, next: u64) {
        while let Some((seq, _)) = self.items.first_key_value().filter(|(seq, _)| **seq < next) {
            let seq = *seq;
            self.remove(seq);
        }
        self.unblocked();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_next_item_has_room_even_when_all_is_full() {
        let mut waiting = Waiting::new(2, 100);
        assert_eq!(waiting.offer(5, 'e', 40, 1), Offered::Kept);
        assert_eq!(waiting.offer(4, 'd', 40, 1), Offered::Kept);
        assert_eq!(waiting.offer(6, 'f', 1, 1), Offered::Full);
        assert_eq!(waiting.offer(3, 'c', 40, 1), Offered::Kept, "it is due before 5, which gives way");
        assert_eq!(waiting.offer(1, 'a', 1000, 1), Offered::Kept, "too big for the rest, but due");
        assert_eq!((waiting.get(1), waiting.len()), (Some(&'a'), 1));
        assert_eq!(waiting.offer(1, 'x', 1, 1), Offered::Known, "the first one stays");
    }

    #[test]
    fn blocked_time_counts_from_the_first_attempt_until_the_item_is_through() {
        let mut waiting = Waiting::<()>::new(1, 1);
        assert_eq!((waiting.blocked(100), waiting.blocked(160)), (0, 60));
        waiting.unblocked();
        assert_eq!(waiting.blocked(200), 0);
    }

    proptest! {
        #[test]
        fn offered_again_and_again_in_any_order_everything_comes_out_once_and_in_order(
            order in proptest::collection::vec(1u64..=30, 1..400), most in 1usize..8,
        ) {
            let mut waiting = Waiting::new(most, most * 10);
            let (mut next, mut out) = (1, Vec::new());
            let rest: Vec<u64> = (1..=30).collect();
            for seq in order.into_iter().chain(rest) {
                waiting.offer(seq, seq, 10, next);
                prop_assert!(waiting.len() <= most && waiting.bytes <= most * 10);
                while let Some(item) = waiting.remove(next) {
                    out.push(item);
                    next += 1;
                }
            }
            prop_assert_eq!(out, (1..=30).collect::<Vec<_>>());
        }
    }
}
