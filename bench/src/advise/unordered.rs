//! What is expected of a group without an order (DiMLS), and how that compares with one that has an order.

use super::{Options, nearest_size};
use crate::topology::{ANY, MESSAGES, Row, Topology, UPDATES};

/// What is expected of a group without an order.
pub(super) struct Unordered<'a> {
    /// What an update costs, in the size that is nearest.
    pub(super) cost: &'a Row,
    /// A commit of a group with an order, in the same size.
    commit: Option<&'a Row>,
    /// UPDATEs over the links, and what the median comes to here, in milliseconds.
    update: Option<(&'a Row, f64)>,
    /// The same for messages.
    message: Option<(&'a Row, f64)>,
    /// MLS on the same topology in the size that is nearest.
    mls: Option<&'a Row>,
}

impl<'a> Unordered<'a> {
    pub(super) fn of(rows: &'a [Row], topology: &Topology, group_size: usize) -> Option<Self> {
        let cost = nearest_size(rows, UPDATES, group_size)?;
        let floor = topology.longest_way().as_secs_f64() * 1e3;
        let over_links = |design: &str| {
            let row = nearest_delivery(rows, design, &topology.name, floor, group_size)?;
            let p50 = row.delivery_p50_ms;
            let measured_at = row.delivery_floor_ms.unwrap_or_default();
            // On another topology the network takes another time, and everything else the same.
            let moved = if row.topology == topology.name { 0.0 } else { floor - measured_at };
            Some((row, p50 + moved.max(-p50 / 2.0)))
        };
        let update = over_links(UPDATES);
        let beside = |row: &&Row| {
            update.is_some_and(|(update, _)| row.topology == update.topology) && row.design == "consensus"
        };
        let mls = rows.iter().filter(beside).min_by_key(|row| row.group_size.abs_diff(group_size));
        let commit = nearest_size(rows, "mls", cost.group_size);
        Some(Self { cost, commit, update, message: over_links(MESSAGES), mls })
    }

    /// How many times the bytes of a commit an update with everybody's acknowledgement takes.
    pub(super) fn times_the_bytes(&self) -> Option<f64> {
        let commit = self.commit?.commit_bytes.max(1) as f64;
        Some(self.cost.update_in_all_bytes? as f64 / commit)
    }

    /// Whether an update is at the last member before a commit of MLS is at the last site.
    pub(super) fn is_sooner(&self) -> Option<bool> {
        Some(self.update?.0.delivery_p50_ms < self.mls?.delivery_p50_ms)
    }

    pub(super) fn line(&self, options: &Options) -> String {
        let (row, in_all) = (self.cost, self.cost.update_in_all_bytes.unwrap_or_default());
        let mls = self.commit.map_or(String::new(), |mls| {
            format!(" (a commit of a group with an order: {})", mls.commit_bytes)
        });
        format!(
            "dimls: needs no order and no quorum; an update takes {} bytes, {in_all} with everybody's acknowledgement{mls}, and a member stores {} bytes to \
             follow {} others (measured with {} members); at {}/s that is {:.1} kB/s for each member",
            row.commit_bytes,
            row.stored_bytes.unwrap_or_default(),
            row.followed.unwrap_or_default(),
            row.group_size,
            options.update_rate,
            options.update_rate * in_all as f64 / 1e3
        )
    }

    pub(super) fn delivery_line(&self) -> Option<String> {
        let (row, p50) = self.update?;
        let message = self.message.map_or(String::new(), |(_, p50)| format!(", a message after {p50:.0} ms"));
        let mls = self.mls.map_or(String::new(), |mls| {
            format!("; a commit of MLS was at the last site there after {:.1} ms", mls.delivery_p50_ms)
        });
        Some(format!(
            "dimls: an update is at the last member after about {p50:.0} ms at the median{message} (measured on `{}` with groups of {}: {:.1} ms, {:.2} \
             times its floor){mls}",
            row.topology,
            row.group_size,
            row.delivery_p50_ms,
            row.delivery_p50_to_floor.unwrap_or_default()
        ))
    }

    /// How it compares with MLS, as an aside.
    pub(super) fn aside(&self) -> Option<String> {
        let sooner = if self.is_sooner()? { "sooner" } else { "later" };
        let (update, mls) = (self.update?.0.delivery_p50_ms, self.mls?.delivery_p50_ms);
        Some(format!(
            "; dimls never stops and delivers {sooner} ({update:.0} ms, mls {mls:.0} ms), at {:.1} times the bytes",
            self.times_the_bytes()?
        ))
    }
}

/// UPDATEs or messages over links: on this topology if it was measured, else on the one with the most similar ways.
fn nearest_delivery<'a>(
    rows: &'a [Row],
    design: &str,
    topology: &str,
    floor_ms: f64,
    group_size: usize,
) -> Option<&'a Row> {
    let distance = |row: &Row| {
        let floor = row.delivery_floor_ms.unwrap_or(floor_ms).max(0.1);
        let elsewhere =
            if row.topology == topology { 0.0 } else { 1.0 + (floor / floor_ms.max(0.1)).ln().abs() };
        elsewhere * 1000.0 + (row.group_size as f64 / group_size as f64).ln().abs()
    };
    let measured = rows.iter().filter(|row| row.design == design && row.topology != ANY && row.commits > 0);
    measured.min_by(|a, b| distance(a).total_cmp(&distance(b)))
}
