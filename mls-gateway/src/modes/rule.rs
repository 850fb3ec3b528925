//! When a shard changes its mode. Pure: the time comes in. The rules for groups that carry on without a quorum join this function.

use tokio::time::Instant;

use crate::limits::SUSPECT_PATIENCE;

/// How a shard can be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A quorum orders it.
    Ordered,
    /// No node reports a quorum; it may be an election. Submissions wait.
    Suspect {
        /// Since when.
        since: Instant,
    },
    /// There has been no quorum for [`SUSPECT_PATIENCE`]. Submissions are refused at once.
    Unavailable,
}

/// The mode after looking at the quorum once more.
pub fn next(mode: Mode, has_quorum: bool, now: Instant) -> Mode {
    match mode {
        _ if has_quorum => Mode::Ordered,
        Mode::Ordered => Mode::Suspect { since: now },
        Mode::Suspect { since } if now.duration_since(since) >= SUSPECT_PATIENCE => Mode::Unavailable,
        unchanged => unchanged,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_lost_quorum_is_suspected_first_and_believed_after_a_while() {
        let lost = Instant::now();
        let suspect = next(Mode::Ordered, false, lost);
        assert_eq!(suspect, Mode::Suspect { since: lost });
        let early = lost + SUSPECT_PATIENCE - Duration::from_millis(1);
        assert_eq!(next(suspect, false, early), suspect);
        assert_eq!(next(suspect, false, lost + SUSPECT_PATIENCE), Mode::Unavailable);
        assert_eq!(next(Mode::Unavailable, false, lost + SUSPECT_PATIENCE * 2), Mode::Unavailable);
    }

    #[test]
    fn a_quorum_ends_every_doubt_at_once() {
        let now = Instant::now();
        for mode in [Mode::Ordered, Mode::Suspect { since: now }, Mode::Unavailable] {
            assert_eq!(next(mode, true, now), Mode::Ordered);
        }
    }
}
