//! The bounds of the demonstration.

use std::time::Duration;

/// Fewest members of a group.
pub(crate) const MIN_MEMBERS: usize = 3;

/// Most members of a group.
pub(crate) const MAX_MEMBERS: usize = 20;

/// Clients of each group that wait outside to be added.
pub(crate) const BENCH: usize = 2;

/// Pause of a member between two things that it does: from here ...
pub(crate) const PAUSE_MIN: Duration = Duration::from_millis(150);

/// ... to here.
pub(crate) const PAUSE_MAX: Duration = Duration::from_millis(1500);

/// How long the killed leader stays away.
pub(crate) const AWAY: Duration = Duration::from_secs(4);

/// How long the new leader may take to appear.
pub(crate) const ELECTION_DEADLINE: Duration = Duration::from_secs(30);

/// How long everybody may take to join in the beginning, and to catch up in the end.
pub(crate) const SETTLE_DEADLINE: Duration = Duration::from_secs(120);

/// Clients that are set up at the same time.
pub(crate) const SETUP_AT_ONCE: usize = 8;

/// Messages read from a client's store at once. More than the demonstration ever sends to one group.
pub(crate) const ALL_MESSAGES: usize = 1_000_000;

/// Findings of one kind that are printed.
pub(crate) const SHOWN_FINDINGS: usize = 8;
