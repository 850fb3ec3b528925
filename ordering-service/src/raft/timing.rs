//! How long things may take, chosen by how far apart the nodes are.

use std::{fmt, str::FromStr, time::Duration};

use openraft::{SnapshotPolicy, StepDownPolicy};
use serde::{Deserialize, Serialize};

use crate::limits;

/// A set of timings that fit together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Round trips of at most 2 ms.
    #[default]
    Lan,
    /// Round trips of at most 30 ms.
    Region,
    /// Round trips of at most 200 ms.
    Wan,
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "lan" => Ok(Self::Lan),
            "region" => Ok(Self::Region),
            "wan" => Ok(Self::Wan),
            other => Err(format!("expected lan, region or wan, got {other:?}")),
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lan => "lan",
            Self::Region => "region",
            Self::Wan => "wan",
        })
    }
}

/// The timings of a node. Every node of a cluster should use the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// A leader sends a heartbeat this often. At least 4/3 of the slowest round trip with its fsync.
    pub heartbeat: Duration,
    /// A follower that hears nothing starts an election after a random time from here, the leader's lease included, ...
    pub election_min: Duration,
    /// ... to here.
    pub election_max: Duration,
    /// Without proof of a quorum for this long, a node says that it has none.
    pub suspect_quorum_after: Duration,
    /// A leader without a quorum is silent and sends again in turns of this length, so that others can elect.
    pub quorum_loss_probe: Duration,
    /// Between two pings of a peer.
    pub ping: Duration,
    /// A replication stream that owes an answer for this long is torn down and opened again.
    pub append_progress: Duration,
    /// A vote, a hello or another short request to a peer.
    pub peer_request: Duration,
    /// A submission that is not decided by then is answered with `unknown`.
    pub submission: Duration,
    /// A linearizable read that is not confirmed by then is refused.
    pub read: Duration,
}

impl Timing {
    /// A peer that answered within this time counts as alive when a change of the cluster depends on it. Longer than a suspicion
    /// takes, so that a busy moment does not refuse an operator.
    pub fn alive_within(&self) -> Duration {
        self.suspect_quorum_after * 8
    }

    /// How long a leader may count on its followers since they last heard of it: they vote for nobody else meanwhile. Half of the longest
    /// election timeout, and longer than a heartbeat that is answered after the slowest round trip.
    pub fn lease(&self) -> Duration {
        self.election_max / 2
    }

    /// The timings of a profile.
    pub fn of(profile: Profile) -> Self {
        // heartbeat, election min and max, suspect, probe, ping, append progress, peer request, submission, read; in ms.
        let ms = match profile {
            Profile::Lan => [100, 600, 800, 250, 1_200, 50, 2_000, 300, 3_000, 2_000],
            Profile::Region => [100, 650, 1_000, 400, 2_000, 75, 3_000, 500, 4_000, 3_000],
            Profile::Wan => [300, 1_100, 1_500, 1_200, 3_000, 100, 6_000, 1_000, 6_000, 5_000],
        }
        .map(Duration::from_millis);
        let [heartbeat, election_min, election_max, suspect_quorum_after, quorum_loss_probe, ping, rest @ ..] =
            ms;
        let [append_progress, peer_request, submission, read] = rest;
        Self {
            heartbeat,
            election_min,
            election_max,
            suspect_quorum_after,
            quorum_loss_probe,
            ping,
            append_progress,
            peer_request,
            submission,
            read,
        }
    }
}

/// Entries that a shard's log grows by between two snapshots, by default.
pub const SNAPSHOT_EVERY: u64 = 200_000;

/// When logs are compacted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compaction {
    /// A snapshot is taken when a shard's log has grown by this many entries.
    pub snapshot_every: u64,
    /// So many entries that a snapshot already covers are kept, so that a node that was away briefly catches up from the log.
    pub keep_entries: u64,
}

impl Default for Compaction {
    fn default() -> Self {
        Self { snapshot_every: SNAPSHOT_EVERY, keep_entries: limits::LOG_ENTRIES_KEPT }
    }
}

/// openraft's configuration of one shard.
///
/// # Errors
/// Timings that contradict one another.
pub fn raft_config(
    timing: &Timing,
    compaction: &Compaction,
) -> Result<openraft::Config, openraft::ConfigError> {
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    openraft::Config {
        cluster_name: "concordat".into(),
        heartbeat_interval: ms(timing.heartbeat),
        // openraft lets a follower wait for the lease first, which is as long as its longest timeout, and then for a timeout.
        election_timeout_min: ms(timing.election_min.saturating_sub(timing.lease())),
        election_timeout_max: ms(timing.lease()),
        quorum_loss_probe_interval: Some(ms(timing.quorum_loss_probe)),
        enable_pre_vote: Some(true),
        // A leader's state machine may be behind its disk after a restart, so it has to be elected again.
        enable_leader_restore: Some(false),
        max_payload_entries: limits::REPLICATION_ENTRIES,
        max_append_entries: Some(limits::APPEND_ENTRIES),
        api_batch_capacity: limits::PROPOSAL_BATCH,
        install_snapshot_timeout: ms(limits::SNAPSHOT_PROGRESS_TIMEOUT),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(compaction.snapshot_every.max(1)),
        max_in_snapshot_log_to_keep: compaction.keep_entries,
        purge_batch_size: limits::PURGE_BATCH.min(compaction.keep_entries.max(1)),
        removed_leader_step_down: StepDownPolicy::After(ms(timing.election_min)),
        backoff: "20ms 40ms 80ms ..1000ms".into(),
        ..openraft::Config::default()
    }
    .validate()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_is_consistent() {
        for profile in [Profile::Lan, Profile::Region, Profile::Wan] {
            let timing = Timing::of(profile);
            raft_config(&timing, &Compaction::default()).expect("valid");
            assert!(timing.suspect_quorum_after > timing.heartbeat * 2);
            let round_trip = Duration::from_millis(match profile {
                Profile::Lan => 2,
                Profile::Region => 30,
                Profile::Wan => 200,
            });
            assert!(timing.heartbeat >= round_trip * 4 / 3, "heartbeats must be answered before the next");
            assert!(timing.heartbeat + round_trip < timing.lease(), "an idle leader must keep its lease");
            assert!(timing.election_min > timing.lease() + timing.heartbeat);
            assert!(timing.ping * 3 <= timing.suspect_quorum_after);
            assert_eq!(profile.to_string().parse(), Ok(profile));
        }
        assert!("moon".parse::<Profile>().is_err());
    }
}
