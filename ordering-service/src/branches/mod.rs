//! The leader's part in bringing branches together: it ends collections, and stops waiting for gateways that do not come back.
//! What it proposes, the replicated rules decide about like anything else.

pub mod gateways;
pub mod keeper;
pub(crate) mod propose;
pub mod watchers;

pub use watchers::Watchers;

use std::time::Duration;

/// How long a leader waits for gateways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waits {
    /// A collection of reports is ended after so long, whoever has not reported.
    pub collect_for: Duration,
    /// A collection is not ended before, unless every registered gateway has reported: others may be about to come back, too.
    pub collect_at_least: Duration,
    /// A gateway that nobody has seen for so long is evicted from all groups; None for never.
    pub evict_after: Option<Duration>,
}

impl Default for Waits {
    fn default() -> Self {
        Waits {
            collect_for: crate::limits::COLLECT_FOR,
            collect_at_least: crate::limits::COLLECT_AT_LEAST,
            evict_after: Some(crate::limits::EVICT_AFTER),
        }
    }
}
