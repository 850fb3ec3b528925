//! One line of the results: a design on a topology with groups of one size.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::{contention::Contention, faults::Faults, load::Loaded, spec::Topology};

/// What was measured. Nothing where it was not, or where there was nothing to measure.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Row {
    pub(crate) topology: String,
    pub(crate) design: String,
    pub(crate) group_size: usize,
    pub(crate) sites: usize,
    pub(crate) rate_per_s: f64,
    pub(crate) commits: u64,
    pub(crate) achieved_per_s: f64,
    pub(crate) floor_ms: f64,
    pub(crate) ordering_p50_ms: f64,
    pub(crate) ordering_p90_ms: f64,
    pub(crate) ordering_p99_ms: f64,
    pub(crate) ordering_p999_ms: f64,
    /// Median of each latency by the floor of its own site.
    pub(crate) ordering_p50_to_floor: f64,
    pub(crate) delivery_p50_ms: f64,
    pub(crate) delivery_p90_ms: f64,
    pub(crate) delivery_p99_ms: f64,
    pub(crate) delivery_p999_ms: f64,
    /// Groups without an order: what delivery cannot be faster than.
    pub(crate) delivery_floor_ms: Option<f64>,
    /// Median of each delivery by the floor of its own sender's site.
    pub(crate) delivery_p50_to_floor: Option<f64>,
    /// Until it had reached the last member, which may have to decrypt it still.
    pub(crate) arrival_p50_ms: Option<f64>,
    /// Members that decrypt; all others get every item and leave it at that.
    pub(crate) sessions: Option<usize>,
    pub(crate) undelivered: u64,
    pub(crate) commit_bytes: usize,
    pub(crate) site_bytes_per_commit: f64,
    pub(crate) cpu_ms_per_commit: f64,
    pub(crate) fault_lasted_s: Option<f64>,
    pub(crate) leader_death_ms: Option<f64>,
    pub(crate) cut_others_ms: Option<f64>,
    pub(crate) cut_home_commits: Option<u64>,
    pub(crate) cut_others_commits: Option<u64>,
    pub(crate) healed_ms: Option<f64>,
    /// Groups that go on in a split: from the cut until the side without a quorum had a commit.
    pub(crate) branch_ms: Option<f64>,
    /// What a member's file grows by for each commit, in bytes ...
    pub(crate) client_bytes_per_commit: Option<f64>,
    /// ... and while states of several branches are kept.
    pub(crate) split_client_bytes_per_commit: Option<f64>,
    /// Groups without an order: one acknowledgement, in bytes.
    pub(crate) acknowledge_bytes: Option<usize>,
    /// An update with the acknowledgements of all others.
    pub(crate) update_in_all_bytes: Option<usize>,
    /// What a member stores that follows `followed` others.
    pub(crate) stored_bytes: Option<usize>,
    pub(crate) followed: Option<usize>,
    /// Time to take in one update.
    pub(crate) receive_update_us: Option<u64>,
    /// Members take turns of this length.
    pub(crate) turn_ms: Option<f64>,
    /// Contention: members at once, wasted for each commit, milliseconds until all are done; separated by `/`, levels by a blank.
    pub(crate) contention: String,
}

impl Row {
    pub(crate) fn new(
        topology: &Topology,
        design: &str,
        group_size: usize,
        rate: f64,
        loaded: &Loaded,
    ) -> Self {
        let at = |histogram: &Histogram<u64>, quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        let commits = loaded.commits.max(1) as f64;
        Self {
            topology: topology.name.clone(),
            design: design.into(),
            group_size,
            sites: topology.sites.len(),
            rate_per_s: rate,
            commits: loaded.commits,
            achieved_per_s: loaded.commits as f64 / loaded.elapsed.as_secs_f64(),
            floor_ms: loaded.floor_ms,
            ordering_p50_ms: at(&loaded.ordering, 0.5),
            ordering_p90_ms: at(&loaded.ordering, 0.9),
            ordering_p99_ms: at(&loaded.ordering, 0.99),
            ordering_p999_ms: at(&loaded.ordering, 0.999),
            ordering_p50_to_floor: at(&loaded.to_floor, 0.5),
            delivery_p50_ms: at(&loaded.delivery, 0.5),
            delivery_p90_ms: at(&loaded.delivery, 0.9),
            delivery_p99_ms: at(&loaded.delivery, 0.99),
            delivery_p999_ms: at(&loaded.delivery, 0.999),
            undelivered: loaded.undelivered,
            commit_bytes: loaded.commit_bytes,
            site_bytes_per_commit: loaded.site_bytes as f64 / commits,
            cpu_ms_per_commit: loaded.server_cpu.as_secs_f64() * 1e3 / commits,
            ..Self::default()
        }
    }

    pub(crate) fn add_faults(&mut self, faults: &Faults) {
        self.fault_lasted_s = Some(faults.lasted_s);
        self.leader_death_ms = faults.leader_death_ms;
        self.cut_others_ms = faults.cut_others_ms;
        self.cut_home_commits = Some(faults.cut_home_commits);
        self.cut_others_commits = Some(faults.cut_others_commits);
        self.healed_ms = faults.healed_ms;
    }

    pub(crate) fn add_contention(&mut self, contention: &[Contention]) {
        let levels = contention
            .iter()
            .map(|c| format!("{}/{:.2}/{:.0}", c.members, c.wasted_per_commit, c.all_done_ms));
        self.contention = levels.collect::<Vec<_>>().join(" ");
    }
}
