//! The page of `bench peers`.

use std::{collections::BTreeSet, fmt::Write};

use super::{options::Configuration, rounds::Row};
use crate::{
    page::{self, Mark, bars},
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
        write!(text, "<h2>{title}</h2>")?;
        // A plot for each level: between levels lie orders of magnitude, and only systems at one level compare.
        for level in rows.iter().map(|row| row.in_flight).collect::<BTreeSet<_>>() {
            write!(text, "<h3>{level} in flight</h3>{}", bars(&medians(rows, level, of))?)?;
        }
    }
    page::page(report, "The same appends on Concordat, etcd and NATS JetStream", &text)
}

fn medians(rows: &[Row], level: usize, of: fn(&Row) -> f64) -> Vec<Mark> {
    let systems: BTreeSet<System> = rows.iter().map(|row| row.system).collect();
    let mark = |(colour, system): (usize, System)| {
        let same = rows.iter().filter(|row| row.system == system && row.in_flight == level);
        let spread = Spread::of(same.map(of))?;
        let not = if system.is_durable() { "" } else { " (not durable)" };
        let label = format!("{system}{not}");
        Some(Mark { label, colour, value: spread.median, whisker: Some(spread.max), line: None })
    };
    systems.into_iter().enumerate().filter_map(mark).collect()
}
