//! The names of all metrics of the gateway, and the only place that records them. Group ids and client ids are never labels.

use std::time::Duration;

use group_log::fork::Mode;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::modes::mode_name;

const SUBMISSIONS: &str = "concordat_gateway_submissions_total";
const ORDERING_SECONDS: &str = "concordat_gateway_ordering_seconds";
const RETRIES: &str = "concordat_gateway_retries_total";
const LEADER_CHANGES: &str = "concordat_gateway_leader_changes_total";
const NODE_IN_FLIGHT: &str = "concordat_gateway_node_in_flight_submissions";
const NODE_QUEUED: &str = "concordat_gateway_node_queued_submissions";
const BATCH_ENTRIES: &str = "concordat_gateway_batch_entries";
const VALIDATIONS: &str = "concordat_gateway_validations_total";
const VALIDATION_REBUILDS: &str = "concordat_gateway_validation_rebuilds_total";
const PUBLIC_STATES: &str = "concordat_gateway_public_states";
const PUBLIC_STATES_BYTES: &str = "concordat_gateway_public_states_size_bytes";
const SUBSCRIPTIONS: &str = "concordat_gateway_subscriptions";
const FOLLOWED_GROUPS: &str = "concordat_gateway_followed_groups";
const RING_BYTES: &str = "concordat_gateway_ring_size_bytes";
const ENTRIES_DELIVERED: &str = "concordat_gateway_entries_delivered_total";
const FOLLOW_SWITCHES: &str = "concordat_gateway_follow_switches_total";
const LOG_MISMATCHES: &str = "concordat_gateway_log_mismatches_total";
const TOKEN_KEYS_RELOADS: &str = "concordat_gateway_token_keys_reloads_total";
const REFUSALS: &str = "concordat_gateway_access_refusals_total";
const ROSTERS: &str = "concordat_gateway_rosters";
const ROSTER_READS: &str = "concordat_gateway_roster_reads_total";
const MODE: &str = "concordat_gateway_shard_mode";
const MODE_CHANGES: &str = "concordat_gateway_mode_changes_total";
const GROUPS_IN_MODE: &str = "concordat_gateway_groups";
const GROUP_MODE_CHANGES: &str = "concordat_gateway_group_mode_changes_total";
const OPEN_BRANCHES: &str = "concordat_gateway_open_branches";
const GROUPS_RELEASED: &str = "concordat_gateway_groups_released_total";
const RETAINED_STATES: &str = "concordat_gateway_retained_states";
const FORKED_SECONDS: &str = "concordat_gateway_forked_seconds";
const BRANCH_ENTRIES: &str = "concordat_gateway_branch_entries_total";
const REPORTED: &str = "concordat_gateway_reported_entries_total";
const RELAY_LINKS: &str = "concordat_gateway_relay_links";
const RELAY_REFUSED: &str = "concordat_gateway_relay_refused_total";
const MESH_ITEMS: &str = "concordat_gateway_mesh_items_total";
const MESH_DROPPED: &str = "concordat_gateway_mesh_dropped_items_total";
const MESH_SKIPPED: &str = "concordat_gateway_mesh_skipped_streams_total";
const MESH_BYTES: &str = "concordat_gateway_mesh_stored_bytes";
const MESH_LINKS: &str = "concordat_gateway_mesh_links";

/// Every metric: its name, what kind it is, and what it says. `docs/metrics.md` lists them.
pub const DESCRIPTIONS: &[(&str, Kind, &str)] = &[
    (SUBMISSIONS, Kind::Counter, "Submissions by kind and outcome"),
    (
        ORDERING_SECONDS,
        Kind::Seconds,
        "From handing a command to the cluster until its final outcome, retries included",
    ),
    (RETRIES, Kind::Counter, "Attempts that had to be repeated, by cause"),
    (LEADER_CHANGES, Kind::Counter, "Times that another node was found to lead, by shard"),
    (NODE_IN_FLIGHT, Kind::Gauge, "Unanswered submissions on the stream to a node"),
    (NODE_QUEUED, Kind::Gauge, "Submissions that wait for the stream to a node"),
    (BATCH_ENTRIES, Kind::Histogram, "Submissions in one batch to a node"),
    (VALIDATIONS, Kind::Counter, "Public handshakes validated, by result"),
    (VALIDATION_REBUILDS, Kind::Counter, "Public states rebuilt from the newest GroupInfo before a refusal"),
    (PUBLIC_STATES, Kind::Gauge, "Groups whose public state is kept"),
    (PUBLIC_STATES_BYTES, Kind::Gauge, "Estimated memory of the public states that are kept, in bytes"),
    (SUBSCRIPTIONS, Kind::Gauge, "Open subscriptions, by what they follow"),
    (FOLLOWED_GROUPS, Kind::Gauge, "Groups followed upstream"),
    (RING_BYTES, Kind::Gauge, "Recent entries kept for subscribers, in bytes"),
    (ENTRIES_DELIVERED, Kind::Counter, "Entries delivered to subscribers, by where they came from"),
    (FOLLOW_SWITCHES, Kind::Counter, "Times that another node was followed, by cause"),
    (LOG_MISMATCHES, Kind::Counter, "Logs that a node showed and that did not fit their hashes"),
    (
        TOKEN_KEYS_RELOADS,
        Kind::Counter,
        "Changed token keys that were read again, by result (published, refused)",
    ),
    (REFUSALS, Kind::Counter, "Calls refused, by why (unauthenticated, denied, not_a_member, quota)"),
    (ROSTERS, Kind::Gauge, "Groups whose members are remembered"),
    (
        ROSTER_READS,
        Kind::Counter,
        "Times that a group's members were looked up in its log, by need (shown, confirmed)",
    ),
    (MODE, Kind::Gauge, "Mode of a shard: 1 ordered, 2 suspect, 3 unavailable"),
    (MODE_CHANGES, Kind::Counter, "Changes of a shard's mode, by the mode entered"),
    (GROUPS_IN_MODE, Kind::Gauge, "DeMLS groups served, by mode"),
    (GROUPS_RELEASED, Kind::Counter, "DeMLS groups that nobody used and that the gateway has let go"),
    (GROUP_MODE_CHANGES, Kind::Counter, "Changes of a DeMLS group's mode, by the mode entered"),
    (
        OPEN_BRANCHES,
        Kind::Gauge,
        "DeMLS groups that are not simply ordered: without a quorum, or with entries that the log lacks",
    ),
    (
        RETAINED_STATES,
        Kind::Gauge,
        "States of DeMLS groups that are kept beside their heads: branches may depart from them until the log says Stable",
    ),
    (FORKED_SECONDS, Kind::Seconds, "How long a DeMLS group carried on without a quorum"),
    (
        BRANCH_ENTRIES,
        Kind::Counter,
        "Branch entries accepted, by who has them: here alone, or a second gateway, too",
    ),
    (REPORTED, Kind::Counter, "Branch entries that the cluster learnt from this gateway"),
    (RELAY_LINKS, Kind::Gauge, "Other gateways that are heard"),
    (RELAY_REFUSED, Kind::Counter, "What other gateways brought and was refused, by reason"),
    (MESH_ITEMS, Kind::Counter, "Items of DiMLS groups that came, by from whom: a client or another gateway"),
    (MESH_DROPPED, Kind::Counter, "Items of DiMLS groups that were dropped at a bound"),
    (MESH_SKIPPED, Kind::Counter, "Times that a stream went on without items that no gateway had any more"),
    (MESH_BYTES, Kind::Gauge, "Items of DiMLS groups that are kept, in bytes"),
    (MESH_LINKS, Kind::Gauge, "Other gateways from which items of DiMLS groups are pulled now"),
];

/// What kind a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only ever grows.
    Counter,
    /// A current value.
    Gauge,
    /// A distribution of counts.
    Histogram,
    /// A distribution of durations, in seconds.
    Seconds,
}

/// Registers every description with the recorder of this process.
pub fn describe() {
    for &(name, kind, text) in DESCRIPTIONS {
        match kind {
            Kind::Counter => describe_counter!(name, text),
            Kind::Gauge => describe_gauge!(name, text),
            Kind::Histogram => describe_histogram!(name, text),
            Kind::Seconds => describe_histogram!(name, Unit::Seconds, text),
        }
    }
}

/// Registers what comes late or never while all is well, with zero: a counter that first appears with its first event shows no increase,
/// and an alert on it would be silent. Install the recorder first.
pub fn begin() {
    describe();
    for name in [LOG_MISMATCHES, VALIDATION_REBUILDS, REPORTED, MESH_DROPPED, MESH_SKIPPED] {
        counter!(name).increment(0);
    }
    for cause in ["unreachable", "broken", "no_quorum", "lagging", "mismatch"] {
        counter!(FOLLOW_SWITCHES, "cause" => cause).increment(0);
    }
    for cause in ["no_leader", "not_leader", "not_sent", "lost", "overloaded"] {
        counter!(RETRIES, "cause" => cause).increment(0);
    }
    for from in ["client", "gateway"] {
        counter!(MESH_ITEMS, "from" => from).increment(0);
    }
    for held in ["one", "two"] {
        counter!(BRANCH_ENTRIES, "copies" => held).increment(0);
    }
    for mode in [Mode::Ordered, Mode::Suspect, Mode::Forked, Mode::Reconciling] {
        counter!(GROUP_MODE_CHANGES, "mode" => mode_name(mode)).increment(0);
        gauge!(GROUPS_IN_MODE, "mode" => mode_name(mode)).increment(0.0);
    }
    counter!(GROUPS_RELEASED).increment(0);
    counter!(RELAY_REFUSED, "reason" => "OTHER").increment(0);
    let _ = histogram!(FORKED_SECONDS);
}

/// What validating a public handshake came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validation {
    /// It can be processed.
    Passed,
    /// Nobody could process it, or what came with it does not fit.
    Refused,
    /// Its epoch is over: the cluster answers.
    Stale,
    /// The group cannot be followed from the outside.
    Unchecked,
    /// It could not be decided (the cluster did not answer).
    Failed,
}

pub(crate) fn submission(kind: &'static str, outcome: &'static str) {
    counter!(SUBMISSIONS, "kind" => kind, "outcome" => outcome).increment(1);
}

pub(crate) fn ordered(took: Duration) {
    histogram!(ORDERING_SECONDS).record(took);
}

pub(crate) fn retry(cause: &'static str) {
    counter!(RETRIES, "cause" => cause).increment(1);
}

pub(crate) fn leader_change(shard: u32) {
    counter!(LEADER_CHANGES, "shard" => shard.to_string()).increment(1);
}

pub(crate) fn node_load(address: &str, in_flight: usize, queued: usize) {
    gauge!(NODE_IN_FLIGHT, "node" => address.to_owned()).set(in_flight as f64);
    gauge!(NODE_QUEUED, "node" => address.to_owned()).set(queued as f64);
}

pub(crate) fn batch(entries: usize) {
    histogram!(BATCH_ENTRIES).record(entries as f64);
}

pub(crate) fn validation(result: Validation) {
    let result = match result {
        Validation::Passed => "passed",
        Validation::Refused => "refused",
        Validation::Stale => "stale",
        Validation::Unchecked => "unchecked",
        Validation::Failed => "failed",
    };
    counter!(VALIDATIONS, "result" => result).increment(1);
}

pub(crate) fn validation_rebuild() {
    counter!(VALIDATION_REBUILDS).increment(1);
}

pub(crate) fn public_states(count: usize, bytes: usize) {
    gauge!(PUBLIC_STATES).set(count as f64);
    gauge!(PUBLIC_STATES_BYTES).set(bytes as f64);
}

pub(crate) fn subscriptions(of: &'static str, change: f64) {
    gauge!(SUBSCRIPTIONS, "of" => of).increment(change);
}

pub(crate) fn followed_groups(count: usize) {
    gauge!(FOLLOWED_GROUPS).set(count as f64);
}

pub(crate) fn ring_bytes(bytes: usize) {
    gauge!(RING_BYTES).set(bytes as f64);
}

pub(crate) fn delivered(from: &'static str, entries: usize) {
    counter!(ENTRIES_DELIVERED, "from" => from).increment(entries as u64);
}

pub(crate) fn follow_switch(cause: &'static str) {
    counter!(FOLLOW_SWITCHES, "cause" => cause).increment(1);
}

pub(crate) fn log_mismatch() {
    counter!(LOG_MISMATCHES).increment(1);
}

pub(crate) fn token_keys_reload(result: &'static str) {
    counter!(TOKEN_KEYS_RELOADS, "result" => result).increment(1);
}

pub(crate) fn refusal(why: &'static str) {
    counter!(REFUSALS, "why" => why).increment(1);
}

pub(crate) fn rosters(count: usize) {
    gauge!(ROSTERS).set(count as f64);
}

pub(crate) fn roster_read(need: &'static str) {
    counter!(ROSTER_READS, "need" => need).increment(1);
}

pub(crate) fn mode(shard: u32, number: u8, name: &'static str) {
    gauge!(MODE, "shard" => shard.to_string()).set(f64::from(number));
    counter!(MODE_CHANGES, "shard" => shard.to_string(), "mode" => name).increment(1);
}

/// A DeMLS group is in another mode now; before, it was in none if it is new.
pub(crate) fn group_mode(from: Option<&'static str>, to: &'static str) {
    if let Some(from) = from {
        gauge!(GROUPS_IN_MODE, "mode" => from).decrement(1.0);
    }
    gauge!(GROUPS_IN_MODE, "mode" => to).increment(1.0);
    counter!(GROUP_MODE_CHANGES, "mode" => to).increment(1);
}

/// A DeMLS group is not served any more.
pub(crate) fn group_gone(mode: &'static str) {
    gauge!(GROUPS_IN_MODE, "mode" => mode).decrement(1.0);
}

/// The cluster does not wait for this gateway any more in a DeMLS group that nobody uses.
pub(crate) fn group_released() {
    counter!(GROUPS_RELEASED).increment(1);
}

pub(crate) fn open_branches(groups: usize) {
    gauge!(OPEN_BRANCHES).set(groups as f64);
}

/// So many states more, or fewer.
pub(crate) fn retained_states(change: f64) {
    gauge!(RETAINED_STATES).increment(change);
}

pub(crate) fn forked_for(time: Duration) {
    histogram!(FORKED_SECONDS).record(time);
}

pub(crate) fn branch_entry(copies: u32) {
    let held = if copies > 1 { "two" } else { "one" };
    counter!(BRANCH_ENTRIES, "copies" => held).increment(1);
}

pub(crate) fn reported(entries: u64) {
    counter!(REPORTED).increment(entries);
}

pub(crate) fn relay_links(links: usize) {
    gauge!(RELAY_LINKS).set(links as f64);
}

pub(crate) fn relay_refused(reason: &'static str) {
    counter!(RELAY_REFUSED, "reason" => reason).increment(1);
}

/// Items of DiMLS groups have come from a `client` or another `gateway`; some may have been here before.
pub(crate) fn mesh_items(from: &'static str, items: usize) {
    counter!(MESH_ITEMS, "from" => from).increment(items as u64);
}

pub(crate) fn mesh_dropped(items: u64) {
    counter!(MESH_DROPPED).increment(items);
}

pub(crate) fn mesh_skipped() {
    counter!(MESH_SKIPPED).increment(1);
}

pub(crate) fn mesh_bytes(bytes: u64) {
    gauge!(MESH_BYTES).set(bytes as f64);
}

/// A link to another gateway is up for as long as this is held.
#[must_use]
pub(crate) struct MeshLink(());

pub(crate) fn mesh_link() -> MeshLink {
    gauge!(MESH_LINKS).increment(1.0);
    MeshLink(())
}

impl Drop for MeshLink {
    fn drop(&mut self) {
        gauge!(MESH_LINKS).decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_of_one_family() {
        let mut names: Vec<_> = DESCRIPTIONS.iter().map(|(name, ..)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DESCRIPTIONS.len());
        assert!(names.iter().all(|name| name.starts_with("concordat_gateway_")));
    }

    #[test]
    fn the_page_about_metrics_lists_every_one() {
        let page = include_str!("../../docs/metrics.md");
        for (name, ..) in DESCRIPTIONS {
            assert!(page.contains(&format!("`{name}`")), "{name} is not in docs/metrics.md");
        }
    }
}
