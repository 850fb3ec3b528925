//! The page of `bench peers`.

use std::{collections::BTreeSet, fmt::Write};

use super::{options::Configuration, rounds::Row};
use crate::{
    page::{self, Bar, bars},
    report::{Report, Spread},
    systems::System,
};

/// The whole page.
pub(super) fn page(report: &Report<Configuration, Row>) -> anyhow::Result<String> {
    let rows = &report.results;
    let mut text = String::from(
        "<p>The same work, clients and machine: each client appends to a group of its own, only if nobody else has appended since, in a closed \
         loop. Bars are medians over the rounds, whiskers the largest round.</p>",
    );
    for (title, of) in [
        ("Appends a second", (|row| row.per_second) as fn(&Row) -> f64),
        ("Latency at the median, ms", |row| row.p50_ms),
        ("Latency at p99, ms", |row| row.p99_ms),
        ("Processor time of all servers for each append, us", |row| row.server_cpu_us),
    ] {
        write!(text, "<h2>{title}</h2>{}", bars(&medians(rows, of))?)?;
    }
    page::page(report, "The same appends on Concordat, etcd and NATS JetStream", &text)
}

fn medians(rows: &[Row], of: fn(&Row) -> f64) -> Vec<Bar> {
    let cells: BTreeSet<(usize, System)> = rows.iter().map(|row| (row.in_flight, row.system)).collect();
    let systems: BTreeSet<System> = rows.iter().map(|row| row.system).collect();
    let bar = |(level, system): (usize, System)| {
        let same = rows.iter().filter(|row| row.system == system && row.in_flight == level);
        let spread = Spread::of(same.map(of))?;
        let colour = systems.iter().position(|other| *other == system).unwrap_or(0);
        let not = if system.is_durable() { "" } else { " (not durable)" };
        let label = format!("{level} · {system}{not}");
        Some(Bar { label, colour, value: spread.median, whisker: Some(spread.max), line: None })
    };
    cells.into_iter().filter_map(bar).collect()
}
