//! The tables on stdout.

use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};

use super::{crossover::pairs, row::Row};

/// Ordering and delivery.
pub(crate) fn latencies(rows: &[Row]) -> Table {
    let mut table = table([
        "topology",
        "design",
        "members",
        "floor ms",
        "p50 ms",
        "p90",
        "p99",
        "p99.9",
        "p50/floor",
        "delivery floor",
        "p50",
        "p90",
        "p99",
        "p50/floor",
    ]);
    for row in rows.iter().filter(|row| row.commits > 0) {
        table.add_row([
            row.topology.clone(),
            row.design.clone(),
            row.group_size.to_string(),
            ms(row.floor_ms),
            ms(row.ordering_p50_ms),
            ms(row.ordering_p90_ms),
            ms(row.ordering_p99_ms),
            ms(row.ordering_p999_ms),
            format!("{:.2}", row.ordering_p50_to_floor),
            row.delivery_floor_ms.map_or("-".into(), ms),
            ms(row.delivery_p50_ms),
            ms(row.delivery_p90_ms),
            ms(row.delivery_p99_ms),
            row.delivery_p50_to_floor.map_or("-".into(), |ratio| format!("{ratio:.2}")),
        ]);
    }
    table
}

/// MLS beside DiMLS for every size that was measured both ways.
pub(crate) fn crossover(rows: &[Row]) -> Table {
    let mut table = table([
        "topology",
        "members",
        "MLS delivery p50",
        "DiMLS",
        "sooner",
        "MLS commit B",
        "DiMLS with all acknowledgements B",
        "smaller",
        "MLS in vain above /s",
        "sessions",
        "DiMLS undelivered",
    ]);
    for pair in pairs(rows) {
        let winner = |dimls: bool| if dimls { "DiMLS" } else { "MLS" }.to_owned();
        let or = |value: Option<usize>| value.map_or("-".to_owned(), |value| value.to_string());
        table.add_row([
            pair.dimls.topology.clone(),
            pair.dimls.group_size.to_string(),
            ms(pair.mls.delivery_p50_ms),
            ms(pair.dimls.delivery_p50_ms),
            winner(pair.dimls_is_sooner()),
            or(pair.commit_bytes),
            or(pair.update_bytes),
            pair.dimls_is_smaller().map_or("-".into(), winner),
            format!("{:.1}", pair.mls_rate()),
            or(pair.dimls.sessions),
            pair.dimls.undelivered.to_string(),
        ]);
    }
    table
}

/// What it costs, and what faults do.
pub(crate) fn costs(rows: &[Row]) -> Table {
    let mut table = table([
        "topology",
        "design",
        "members",
        "B between sites",
        "cpu ms",
        "leader dies ms",
        "home cut: others ms",
        "commits home",
        "commits others",
        "healed ms",
        "at once/wasted/ms",
    ]);
    for row in rows.iter().filter(|row| row.commits > 0) {
        let fault = |value: Option<f64>| match (value, row.fault_lasted_s) {
            (Some(value), _) => format!("{value:.0}"),
            (None, Some(lasted)) => format!("all {lasted:.0} s"),
            (None, None) => "-".into(),
        };
        let count = |value: Option<u64>| value.map_or("-".into(), |value| value.to_string());
        table.add_row([
            row.topology.clone(),
            row.design.clone(),
            row.group_size.to_string(),
            format!("{:.0}", row.site_bytes_per_commit),
            format!("{:.2}", row.cpu_ms_per_commit),
            fault(row.leader_death_ms),
            fault(row.cut_others_ms),
            count(row.cut_home_commits),
            count(row.cut_others_commits),
            fault(row.healed_ms),
            row.contention.clone(),
        ]);
    }
    table
}

/// DeMLS groups while the home site was cut off.
pub(crate) fn splits(rows: &[Row]) -> Table {
    let mut table = table([
        "topology",
        "design",
        "members",
        "first on a branch ms",
        "commits home",
        "commits others",
        "converged ms",
        "client B/commit",
        "B/commit in the split",
    ]);
    for row in rows.iter().filter(|row| row.design == "demls" && row.topology != super::sizes::ANY) {
        let or =
            |value: Option<f64>, none: &str| value.map_or(none.to_owned(), |value| format!("{value:.0}"));
        table.add_row([
            row.topology.clone(),
            row.design.clone(),
            row.group_size.to_string(),
            or(row.branch_ms, "never"),
            row.cut_home_commits.unwrap_or(0).to_string(),
            row.cut_others_commits.unwrap_or(0).to_string(),
            or(row.healed_ms, "not in time"),
            or(row.client_bytes_per_commit, "-"),
            or(row.split_client_bytes_per_commit, "-"),
        ]);
    }
    table
}

/// Updates by the size of the group.
pub(crate) fn sizes(rows: &[Row]) -> Table {
    let mut table = table([
        "design",
        "members",
        "update B",
        "acknowledgement B",
        "with all acknowledgements B",
        "stored B",
        "kept B/commit",
        "others followed",
        "taken in us",
    ]);
    for row in rows.iter().filter(|row| row.topology == super::sizes::ANY) {
        let or = |value: Option<usize>| value.map_or("-".to_owned(), |value| value.to_string());
        table.add_row([
            row.design.clone(),
            row.group_size.to_string(),
            row.commit_bytes.to_string(),
            or(row.acknowledge_bytes),
            or(row.update_in_all_bytes),
            or(row.stored_bytes),
            or(row.client_bytes_per_commit.map(|bytes| bytes as usize)),
            or(row.followed),
            or(row.receive_update_us.map(|us| us as usize)),
        ]);
    }
    table
}

fn ms(value: f64) -> String {
    format!("{value:.1}")
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(header);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
