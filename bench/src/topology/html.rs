//! The page of `bench topology`.

use std::fmt::Write;

use super::{
    crossover::{Pair, pairs, told as crossover},
    dimls::UPDATES,
    options::Configuration,
    row::Row,
    sizes::ANY,
};
use crate::{
    page::{self, Mark, dots, escape, lines},
    report::Report,
};

/// A value, its whisker and its line.
type Lengths = (f64, Option<f64>, Option<f64>);

/// The whole page.
pub(crate) fn page(report: &Report<Configuration, Row>) -> anyhow::Result<String> {
    let rows = &report.results;
    let configuration = &report.configuration;
    let loaded: Vec<&Row> = rows.iter().filter(|row| row.commits > 0).collect();
    let all = |of: &dyn Fn(&Row) -> Lengths| {
        let mark = |row: &&Row| {
            let (value, whisker, line) = of(row);
            Mark { label: label(row), colour: colour(&row.design), value, whisker, line }
        };
        dots(&loaded.iter().map(mark).collect::<Vec<_>>())
    };
    let mut text = format!(
        "<p>Real processes on one machine, links emulated in user space, real MLS commits, {} commits a second in an open loop for {} s each.</p>",
        configuration.rate_per_s, configuration.seconds
    );
    write!(
        text,
        "<h2>Ordering latency, ms</h2><p>From the moment that a commit was due until its sender knew that it was accepted: dot at the \
         median, whisker to p99, line at the floor (round trip to the leader + round trip to the quorum-th fastest voter + one measured \
         sync). With <i>turns</i> it contains the wait for the member's turn.</p>{}",
        all(&|row| (row.ordering_p50_ms, Some(row.ordering_p99_ms), Some(row.floor_ms)))?
    )?;
    write!(
        text,
        "<h2>Delivery latency, ms</h2><p>Until the last site had it; one subscriber at each site stands for its members. For <i>dimls</i>: until the last member had taken it \
         in; line at the floor (the longest of the shortest ways from the sender's site + one measured sync).</p>{}",
        all(&|row| (row.delivery_p50_ms, Some(row.delivery_p99_ms), row.delivery_floor_ms))?
    )?;
    write!(
        text,
        "<h2>Bytes between sites for each commit</h2>{}",
        all(&|row| (row.site_bytes_per_commit, None, None))?
    )?;
    write!(
        text,
        "<h2>Processor time of all servers for each commit, ms</h2>{}",
        all(&|row| (row.cpu_ms_per_commit, None, None))?
    )?;
    write!(
        text,
        "<h2>Without service, ms</h2><p>The longest that a site waited for an accepted commit while the leader was dead (dot) and while the \
         home site was cut off (line); where nothing is drawn, service did not come back. For <i>demls</i>: until the side without a quorum \
         had its first commit (dot), and from the heal to one state everywhere (line). For <i>dimls</i>: the longest that a sender waited for \
         its own gateway (dot), and from the heal until everything was everywhere (line).</p>{}",
        dots(&outages(rows))?
    )?;
    text.push_str("<h2>Where each wins</h2><ul>");
    for line in crossover(rows) {
        write!(text, "<li>{}</li>", escape(&line))?;
    }
    write!(
        text,
        "</ul><h2>Delivery of an update by the size of the group, ms</h2><p>The median until the last site, or for <i>dimls</i> the last \
         member, had it.</p>{}",
        lines(&deliveries(rows))?
    )?;
    let sizes = |design: &str, of: fn(&Row) -> f64| -> Vec<(f64, f64)> {
        let rows = rows.iter().filter(|row| row.topology == ANY && row.design == design);
        rows.map(|row| (row.group_size as f64, of(row))).collect()
    };
    let bytes = |row: &Row| row.commit_bytes as f64;
    let stored = |row: &Row| row.stored_bytes.unwrap_or(0) as f64;
    write!(
        text,
        "<h2>Bytes of an update by the size of the group</h2>{}",
        lines(&[
            ("MLS commit (only one member ever commits)".into(), sizes("mls", bytes)),
            ("DeMLS commit (the same)".into(), sizes("demls", bytes)),
            ("DiMLS UPDATE".into(), sizes("dimls", bytes)),
            (
                "DiMLS UPDATE with all acknowledgements".into(),
                sizes("dimls", |row| row.update_in_all_bytes.unwrap_or(0) as f64)
            ),
            ("stored by an MLS member".into(), sizes("mls", stored)),
            ("stored by a DeMLS member".into(), sizes("demls", stored)),
            ("stored by a DiMLS member".into(), sizes("dimls", stored)),
        ])?
    )?;
    text.push_str("<h2>What was not measured</h2><ul>");
    for (design, why) in &configuration.missing {
        write!(text, "<li>{}: {}</li>", escape(design), escape(why))?;
    }
    text.push_str("</ul><h2>Topologies</h2><ul>");
    for topology in &configuration.topologies {
        write!(
            text,
            "<li>{}: {} sites, home {}. {}</li>",
            escape(&topology.name),
            topology.sites.len(),
            escape(&topology.home),
            escape(&topology.source)
        )?;
    }
    text.push_str(
        "</ul><p>In the table an empty cell was not measured with this size of groups, or service did not come back while the fault lasted. \
         Contention: members at once / wasted commits for each accepted one / ms until all were accepted.</p>",
    );
    page::page(report, "What an order of commits costs as sites move apart", &text)
}

/// Lines of MLS and DiMLS on each topology.
fn deliveries(rows: &[Row]) -> Vec<(String, Vec<(f64, f64)>)> {
    let mut lines: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for Pair { mls, dimls, .. } in pairs(rows) {
        for row in [mls, dimls] {
            let name = format!("{} · {}", row.topology, row.design);
            let point = (row.group_size as f64, row.delivery_p50_ms);
            match lines.iter_mut().find(|(known, _)| *known == name) {
                Some((_, points)) => points.push(point),
                None => lines.push((name, vec![point])),
            }
        }
    }
    lines
}

fn label(row: &Row) -> String {
    format!("{} · {} · {}", row.topology, row.design, row.group_size)
}

fn colour(design: &str) -> usize {
    let design = design.split(' ').next().unwrap_or_default();
    ["consensus", "lead", "turns", "demls", UPDATES].iter().position(|name| *name == design).unwrap_or(5)
}

fn outages(rows: &[Row]) -> Vec<Mark> {
    let mark = |row: &Row| {
        let (value, line) = match row.branch_ms {
            Some(branch) => (branch, row.healed_ms),
            None if row.design == UPDATES => (row.cut_others_ms.unwrap_or(0.0), row.healed_ms),
            None => (row.leader_death_ms.unwrap_or(0.0), row.cut_others_ms),
        };
        Mark { label: label(row), colour: colour(&row.design), value, whisker: None, line }
    };
    rows.iter().filter(|row| row.fault_lasted_s.is_some()).map(mark).collect()
}
