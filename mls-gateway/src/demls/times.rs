//! How long a gateway waits before it believes what.

use std::time::Duration;

use group_log::fork::ModeTimes;
use ordering_service::raft::timing::{Profile, Timing};

use crate::limits::{ACK_PAUSE, ACK_PAUSE_SETTLING, DEMLS_IDLE};

/// The times of DeMLS groups, all from the cluster's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Times {
    /// When the mode of a group changes.
    pub modes: ModeTimes,
    /// A quorum that has answered counts for this long.
    pub quorum_ttl: Duration,
    /// Between two acknowledgements of a group.
    pub ack_pause: Duration,
    /// The same while a split is being settled: until everything is stable, everybody keeps what is needed no more.
    pub ack_pause_settling: Duration,
    /// A group that nobody has used for so long is let go.
    pub idle: Duration,
}

/// From the loss of the quorum to the fork: so many percent of the longest election timeout, and a heartbeat. An ordinary election is over
/// by then. The rest until the promised two timeouts is for noticing the loss, and for the first commit itself.
const FORK_AFTER_PERCENT: u32 = 125;
/// How long the quorum must answer before it is trusted again.
const STEADY: Duration = Duration::from_millis(200);

impl Times {
    /// Times for a cluster with this profile: from the loss of the quorum to the first commit on a branch it takes at most two election
    /// timeouts, and an ordinary election causes none.
    pub fn of(profile: Profile) -> Self {
        let timing = Timing::of(profile);
        let fork_after = timing.election_max * FORK_AFTER_PERCENT / 100 + timing.heartbeat;
        // When a branch begins is decided by both together. So the silence may be long: what a busy machine or a lost packet delays is
        // passed over, and nobody is cut off from the quorum by it.
        let quorum_ttl = fork_after / 2;
        let suspect = fork_after.saturating_sub(quorum_ttl);
        Self {
            modes: ModeTimes { suspect_ms: suspect.as_millis() as u64, steady_ms: STEADY.as_millis() as u64 },
            quorum_ttl,
            ack_pause: ACK_PAUSE,
            ack_pause_settling: ACK_PAUSE_SETTLING,
            idle: DEMLS_IDLE,
        }
    }
}

impl Default for Times {
    fn default() -> Self {
        Self::of(Profile::Lan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        demls::path::LOOK,
        limits::{DEAFNESS_EXCUSED_MAX, RELAY_SILENCE_MAX},
    };

    #[test]
    fn a_branch_begins_within_two_election_timeouts_and_not_within_one() {
        for profile in [Profile::Lan, Profile::Region, Profile::Wan] {
            let (times, timing) = (Times::of(profile), Timing::of(profile));
            let suspect = Duration::from_millis(times.modes.suspect_ms);
            // Whichever is noticed last: the silence of the nodes, or that of another gateway.
            let noticed = times.quorum_ttl.max(RELAY_SILENCE_MAX) + LOOK + DEAFNESS_EXCUSED_MAX;
            assert!(noticed + suspect + timing.election_max / 4 <= timing.election_max * 2, "{profile}");
            // An election is over by then, and a heartbeat of the new leader answered.
            assert!(times.quorum_ttl + suspect >= timing.election_max + timing.heartbeat, "{profile}");
            // Proofs come with a heartbeat, are told with a ping and reported every 100 ms: one round of that may be lost.
            let ordinary = timing.heartbeat + timing.ping + Duration::from_millis(100);
            assert!(times.quorum_ttl >= ordinary * 2, "{profile}");
        }
    }
}
