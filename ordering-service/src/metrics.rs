//! All metric names of this service. Group ids, client ids and message bytes are never labels.

use std::time::Duration;

use concordat_proto::ordering::v1::{Outcome, ShardQuorum, outcome::Outcome as Kind};
use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

use crate::raft::types::NodeId;

/// Submissions answered, by `outcome`.
pub const SUBMISSIONS_TOTAL: &str = "concordat_ordering_submissions_total";
/// Seconds from receiving a submission to its answer.
pub const ORDERING_SECONDS: &str = "concordat_ordering_latency_seconds";
/// Submissions that are not answered yet.
pub const SUBMISSIONS_UNDER_WAY: &str = "concordat_ordering_submissions_under_way";
/// Command bytes of those.
pub const SUBMISSION_BYTES_UNDER_WAY: &str = "concordat_ordering_submission_bytes_under_way";
/// Commits that wait for another commit of the same epoch.
pub const COMMITS_WAITING: &str = "concordat_ordering_commits_waiting";
/// Submit streams that are open.
pub const SUBMIT_STREAMS: &str = "concordat_ordering_submit_streams";
/// Subscription streams that are open.
pub const SUBSCRIBE_STREAMS: &str = "concordat_ordering_subscribe_streams";
/// Groups and inboxes that are followed.
pub const SUBSCRIPTIONS: &str = "concordat_ordering_subscriptions";
/// Entries sent to subscribers.
pub const ENTRIES_SENT_TOTAL: &str = "concordat_ordering_entries_sent_total";
/// The leader's node id, per `shard`; 0 if none is known.
pub const LEADER: &str = "concordat_raft_leader_node_id";
/// Raft term, per `shard`.
pub const TERM: &str = "concordat_raft_term";
/// Seconds since there was proof of a quorum, per `shard`.
pub const QUORUM_AGE_SECONDS: &str = "concordat_raft_quorum_age_seconds";
/// 1 if a quorum answers, per `shard`.
pub const HAS_QUORUM: &str = "concordat_raft_has_quorum";
/// Log entries that are committed, but not applied here, per `shard`.
pub const APPLY_LAG: &str = "concordat_raft_apply_lag_count";
/// The last log entry, per `shard`.
pub const LAST_LOG_INDEX: &str = "concordat_raft_last_log_index";
/// The last log entry that was purged, per `shard`.
pub const PURGED_INDEX: &str = "concordat_raft_purged_index";
/// Peers that answer pings.
pub const PEERS_REACHABLE: &str = "concordat_raft_peers_reachable";

/// Collections of branches that are open in the shards that this node leads, per `shard`.
pub const COLLECTIONS_OPEN: &str = "concordat_ordering_collections_open";
/// Branch entries that wait for the close of those, per `shard`.
pub const BRANCH_ENTRIES_WAITING: &str = "concordat_ordering_branch_entries_waiting";
/// Collections that this node has ended, by `outcome` and `cause`.
pub const CLOSES_TOTAL: &str = "concordat_ordering_closes_total";
/// Groups in which removals are owed, per `shard`.
pub const GROUPS_OWING: &str = "concordat_ordering_groups_owing_removals";
/// Gateways that are registered for any group, per `shard`.
pub const GATEWAYS_REGISTERED: &str = "concordat_ordering_gateways_registered";
/// Those of them that are connected to no node, per `shard`.
pub const GATEWAYS_AWAY: &str = "concordat_ordering_gateways_away";
/// Registered gateways whose acknowledgement is missing for something to become stable, per `shard`.
pub const GATEWAYS_HOLDING_STABLE: &str = "concordat_ordering_gateways_holding_stable";

/// Entries that were given up at the proposal of this node, per `shard`.
pub const PRUNED_TOTAL: &str = "concordat_ordering_entries_pruned_total";
/// Groups that are longer than the limit of entries, and of which nothing may be given up, per `shard`.
pub const RETENTION_HELD: &str = "concordat_ordering_retention_held_groups";

/// Leaderships that this node has moved to another site or failed to move, by `shard`, `reason` and `outcome`.
pub const LEADER_MOVES_TOTAL: &str = "concordat_raft_leader_moves_total";
/// What the network makes a commit take in a shard that this node leads, per `shard`.
pub const EXPECTED_COMMIT_SECONDS: &str = "concordat_raft_expected_commit_seconds";
/// The same with the best leader that is possible, per `shard`.
pub const BEST_COMMIT_SECONDS: &str = "concordat_raft_best_commit_seconds";

/// Names and what they mean. Histograms of seconds end in `_seconds`, counters in `_total`.
pub const DESCRIPTIONS: &[(&str, &str)] = &[
    (SUBMISSIONS_TOTAL, "Submissions answered, by outcome."),
    (ORDERING_SECONDS, "Seconds from receiving a submission to its answer."),
    (SUBMISSIONS_UNDER_WAY, "Submissions that are not answered yet."),
    (SUBMISSION_BYTES_UNDER_WAY, "Command bytes of the submissions that are not answered yet."),
    (COMMITS_WAITING, "Commits that wait for another commit of the same epoch of their group."),
    (SUBMIT_STREAMS, "Submit streams that are open."),
    (SUBSCRIBE_STREAMS, "Subscription streams that are open."),
    (SUBSCRIPTIONS, "Groups and inboxes that are followed."),
    (ENTRIES_SENT_TOTAL, "Entries sent to subscribers."),
    (LEADER, "Node id of a shard's leader as this node knows it; 0 if it knows none."),
    (TERM, "Raft term of a shard."),
    (QUORUM_AGE_SECONDS, "Seconds since this node had proof that a quorum of a shard answers."),
    (HAS_QUORUM, "1 if a quorum of a shard answers, else 0."),
    (APPLY_LAG, "Log entries of a shard that are committed, but not applied on this node."),
    (LAST_LOG_INDEX, "Index of the last log entry of a shard on this node."),
    (PURGED_INDEX, "Index of the last log entry of a shard that this node has purged."),
    (PEERS_REACHABLE, "Other nodes that answer pings."),
    (COLLECTIONS_OPEN, "Collections of branches that are open in a shard that this node leads."),
    (
        BRANCH_ENTRIES_WAITING,
        "Branch entries that wait for the close of a collection, in a shard that this node leads.",
    ),
    (CLOSES_TOTAL, "Collections of branches that this node has ended, by outcome and cause."),
    (
        GROUPS_OWING,
        "Groups of a shard that this node leads in which removals are owed (counted up to 10000).",
    ),
    (GATEWAYS_REGISTERED, "Gateways that are registered for groups of a shard that this node leads."),
    (GATEWAYS_AWAY, "Registered gateways that are connected to no node of the cluster."),
    (
        GATEWAYS_HOLDING_STABLE,
        "Registered gateways, connected or not, whose acknowledgement keeps something in a group's log from becoming Stable.",
    ),
    (PRUNED_TOTAL, "Entries given up by retention, at the proposal of this node."),
    (
        RETENTION_HELD,
        "Groups longer than the limit of entries of which nothing may be given up, in a shard that this node leads.",
    ),
    (
        LEADER_MOVES_TOTAL,
        "Leaderships that this node has moved to where they belong, or failed to, by reason and outcome.",
    ),
    (
        EXPECTED_COMMIT_SECONDS,
        "What the network alone makes a commit take in a shard that this node leads, as the mean over where submissions come from.",
    ),
    (
        BEST_COMMIT_SECONDS,
        "The same with the best voter of the shard as its leader; below the expected one, a move would pay if it is by much and lasts.",
    ),
];

/// Registers the descriptions with the recorder of this process.
pub fn describe() {
    crate::storage::metrics::describe();
    for (name, text) in DESCRIPTIONS {
        if name.ends_with("_total") {
            describe_counter!(*name, *text);
        } else if name.ends_with("_latency_seconds") {
            describe_histogram!(*name, *text);
        } else {
            describe_gauge!(*name, *text);
        }
    }
}

/// The handles of one node, looked up once. Several nodes may share a process, so each is labelled with its `node`.
pub struct NodeMetrics {
    node: String,
    outcomes: [Counter; OUTCOMES.len()],
    ordering: Histogram,
    /// See [`SUBMISSIONS_UNDER_WAY`].
    pub under_way: Gauge,
    /// See [`SUBMISSION_BYTES_UNDER_WAY`].
    pub bytes_under_way: Gauge,
    /// See [`COMMITS_WAITING`].
    pub waiting: Gauge,
    /// See [`SUBMIT_STREAMS`].
    pub submit_streams: Gauge,
    /// See [`SUBSCRIBE_STREAMS`].
    pub subscribe_streams: Gauge,
    /// See [`SUBSCRIPTIONS`].
    pub subscriptions: Gauge,
    /// See [`ENTRIES_SENT_TOTAL`].
    pub entries_sent: Counter,
}

const OUTCOMES: [&str; 18] = [
    "accepted",
    "superseded",
    "refused",
    "not_leader",
    "unknown",
    "group_assigned",
    "key_packages_uploaded",
    "key_package_claimed",
    "welcomes_acked",
    "overloaded",
    "none",
    "reconciling",
    "remove_first",
    "on_side",
    "branches_reported",
    "collection_closed",
    "gateway_noted",
    "group_pruned",
];

impl NodeMetrics {
    /// The handles of node `node_id`. Install the recorder first.
    pub fn new(node_id: NodeId) -> Self {
        let node = node_id.to_string();
        let gauge = |name: &'static str| gauge!(name, "node" => node.clone());
        Self {
            outcomes: OUTCOMES
                .map(|outcome| counter!(SUBMISSIONS_TOTAL, "node" => node.clone(), "outcome" => outcome)),
            ordering: histogram!(ORDERING_SECONDS, "node" => node.clone()),
            under_way: gauge(SUBMISSIONS_UNDER_WAY),
            bytes_under_way: gauge(SUBMISSION_BYTES_UNDER_WAY),
            waiting: gauge(COMMITS_WAITING),
            submit_streams: gauge(SUBMIT_STREAMS),
            subscribe_streams: gauge(SUBSCRIBE_STREAMS),
            subscriptions: gauge(SUBSCRIPTIONS),
            entries_sent: counter!(ENTRIES_SENT_TOTAL, "node" => node.clone()),
            node,
        }
    }

    /// A submission was answered.
    pub fn answered(&self, outcome: &Outcome, took: Duration) {
        self.outcomes[outcome_index(outcome)].increment(1);
        self.ordering.record(took.as_secs_f64());
    }

    /// A collection of branches was ended. Looks the handle up: not for hot paths.
    pub fn collection_closed(&self, outcome: &'static str, cause: &'static str) {
        counter!(CLOSES_TOTAL, "node" => self.node.clone(), "outcome" => outcome, "cause" => cause)
            .increment(1);
    }

    /// Entries of a shard were given up. Looks the handle up: not for hot paths.
    pub fn pruned(&self, shard: u32, entries: u64) {
        counter!(PRUNED_TOTAL, "node" => self.node.clone(), "shard" => shard.to_string()).increment(entries);
    }

    /// A leadership was moved for this `reason`, or not. Looks the handle up: not for hot paths.
    pub fn leader_moved(&self, shard: u32, reason: &'static str, is_done: bool) {
        let outcome = if is_done { "moved" } else { "failed" };
        let (node, shard) = (self.node.clone(), shard.to_string());
        counter!(LEADER_MOVES_TOTAL, "node" => node, "shard" => shard, "reason" => reason, "outcome" => outcome)
            .increment(1);
    }

    /// What the node knows about the quorum of its shards.
    pub fn quorum(&self, shards: &[ShardQuorum]) {
        for shard in shards {
            let gauge = |name: &'static str| self.shard(name, shard.shard);
            gauge(LEADER).set(shard.leader_node_id as f64);
            gauge(TERM).set(shard.term as f64);
            gauge(QUORUM_AGE_SECONDS).set(shard.quorum_age_ms as f64 / 1000.0);
            gauge(HAS_QUORUM).set(if shard.has_quorum { 1.0 } else { 0.0 });
        }
    }

    /// A gauge of one shard. Looks the handle up: not for hot paths.
    pub fn shard(&self, name: &'static str, shard: u32) -> Gauge {
        gauge!(name, "node" => self.node.clone(), "shard" => shard.to_string())
    }

    /// A gauge of this node. Looks the handle up: not for hot paths.
    pub fn node(&self, name: &'static str) -> Gauge {
        gauge!(name, "node" => self.node.clone())
    }
}

fn outcome_index(outcome: &Outcome) -> usize {
    match &outcome.outcome {
        Some(Kind::Accepted(_)) => 0,
        Some(Kind::Superseded(_)) => 1,
        Some(Kind::Refused(_)) => 2,
        Some(Kind::NotLeader(_)) => 3,
        Some(Kind::Unknown(_)) => 4,
        Some(Kind::GroupAssigned(_)) => 5,
        Some(Kind::KeyPackagesUploaded(_)) => 6,
        Some(Kind::KeyPackageClaimed(_)) => 7,
        Some(Kind::WelcomesAcked(_)) => 8,
        Some(Kind::Overloaded(_)) => 9,
        None => 10,
        Some(Kind::Reconciling(_)) => 11,
        Some(Kind::RemoveFirst(_)) => 12,
        Some(Kind::OnSide(_)) => 13,
        Some(Kind::BranchesReported(_)) => 14,
        Some(Kind::CollectionClosed(_)) => 15,
        Some(Kind::GatewayNoted(_)) => 16,
        Some(Kind::GroupPruned(_)) => 17,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_name_is_described_once_and_follows_the_convention() {
        let names: BTreeSet<_> = DESCRIPTIONS.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), DESCRIPTIONS.len());
        assert!(names.iter().all(|name| name.starts_with("concordat_")));
    }

    #[test]
    fn the_page_about_metrics_lists_every_one() {
        let page = include_str!("../../docs/metrics.md");
        for (name, _) in DESCRIPTIONS.iter().chain(&crate::storage::metrics::DESCRIPTIONS) {
            assert!(page.contains(&format!("`{name}`")), "{name} is not in docs/metrics.md");
        }
    }
}
