//! The rule of one stream: what may be stored in it, and what is dropped at its bound. Pure.

use super::limits::AHEAD_MAX;

/// What is kept of a stream: the items from `first` to `last` without a gap. Beyond them items may wait for what is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// The first item that is kept.
    pub first: u64,
    /// The last item without a gap before it; `first - 1` if none is kept.
    pub last: u64,
}

/// What becomes of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is the next one.
    Next,
    /// Others are missing in front of it.
    Ahead,
    /// There is an item with this number already, or there was one.
    Taken,
    /// Too many are missing in front of it.
    TooFar,
}

impl Stream {
    /// A stream that has not begun.
    pub const EMPTY: Stream = Stream { first: 1, last: 0 };

    /// Where an item with this number belongs.
    pub fn place(&self, seq: u64) -> Place {
        if seq <= self.last {
            Place::Taken
        } else if seq == self.last + 1 {
            Place::Next
        } else if seq - self.last <= AHEAD_MAX {
            Place::Ahead
        } else {
            Place::TooFar
        }
    }

    /// What to ask another gateway for that has `theirs`: a range, both included. Nothing if it has nothing more.
    pub fn lacks(&self, theirs: &Stream) -> Option<(u64, u64)> {
        let from = theirs.first.max(self.last + 1);
        (from <= theirs.last).then_some((from, theirs.last))
    }

    /// Whether what comes next is gone at the gateway that has `theirs`.
    pub fn is_behind(&self, theirs: &Stream) -> bool {
        theirs.first > self.last + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_one_place() {
        let stream = Stream { first: 3, last: 7 };
        for seq in 1..=7 {
            assert_eq!(stream.place(seq), Place::Taken);
        }
        assert_eq!(stream.place(8), Place::Next);
        assert_eq!(stream.place(9), Place::Ahead);
        assert_eq!(stream.place(7 + AHEAD_MAX), Place::Ahead);
        assert_eq!(stream.place(8 + AHEAD_MAX), Place::TooFar);
        assert_eq!(Stream::EMPTY.place(1), Place::Next);
    }

    #[test]
    fn exactly_what_is_missing_is_asked_for() {
        let all = (0..5).flat_map(|first| (0..6).map(move |last| Stream { first: first + 1, last }));
        for ours in all.clone().filter(|s| s.last + 1 >= s.first) {
            for theirs in all.clone().filter(|s| s.last + 1 >= s.first) {
                let wanted: Vec<u64> = (theirs.first..=theirs.last).filter(|seq| *seq > ours.last).collect();
                let asked: Vec<u64> =
                    ours.lacks(&theirs).map(|(from, to)| (from..=to).collect()).unwrap_or_default();
                assert_eq!(wanted, asked, "{ours:?} {theirs:?}");
                let gone = ours.is_behind(&theirs);
                assert_eq!(gone, ours.last + 1 < theirs.first, "{ours:?} {theirs:?}");
            }
        }
    }
}
