//! The results as tables.

use std::collections::BTreeSet;

use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};

use super::rounds::Row;
use crate::{machine::Machine, report::Spread, systems::System};

/// Every system at every level: medians over the rounds, with their extremes.
pub(super) fn levels(rows: &[Row]) -> Table {
    let mut table =
        new_table(&["in flight", "system", "appends/s", "p50 ms", "p99 ms", "server CPU us", "refused"]);
    for (level, system) in cells(rows) {
        let of = |value: fn(&Row) -> f64, digits| spread(rows, system, level, value, digits);
        let refused: u64 = select(rows, system, level).map(|row| row.refused).sum();
        let name = if system.is_durable() { system.to_string() } else { format!("{system} (not durable)") };
        table.add_row([
            level.to_string(),
            name,
            of(|row| row.per_second, 0),
            of(|row| row.p50_ms, 2),
            of(|row| row.p99_ms, 2),
            of(|row| row.server_cpu_us, 0),
            refused.to_string(),
        ]);
    }
    table
}

/// What we build against everything else, within each round.
pub(super) fn ratios(rows: &[Row]) -> Table {
    let mut table = new_table(&["in flight", "of", "to", "throughput", "p50", "p99"]);
    let all = cells(rows);
    for (level, ours) in all.iter().filter(|(_, system)| system.is_ours()) {
        for (_, other) in all.iter().filter(|(l, system)| l == level && !system.is_ours()) {
            let of = |value: fn(&Row) -> f64| ratio(rows, *ours, *other, *level, value);
            table.add_row([
                level.to_string(),
                ours.to_string(),
                other.to_string(),
                of(|row| row.per_second),
                of(|row| row.p50_ms),
                of(|row| row.p99_ms),
            ]);
        }
    }
    table
}

/// The latency of one append alone, against the disk's own. Beside it what it takes to wake another core, which hops do.
pub(super) fn alone(rows: &[Row], machine: &Machine) -> Table {
    let mut table = new_table(&[
        "system",
        "p50 ms alone",
        "times fdatasync",
        "fdatasync ms (appending)",
        "waking another core us",
    ]);
    for (level, system) in cells(rows).into_iter().filter(|(level, _)| *level == 1) {
        let Some(p50) = Spread::of(select(rows, system, level).map(|row| row.p50_ms)) else { continue };
        let sync = machine.disk.append_p50_us / 1e3;
        table.add_row([
            system.to_string(),
            format!("{:.2}", p50.median),
            format!("{:.1}", p50.median / sync),
            format!("{sync:.3}"),
            machine.wake_p50_us.map_or_else(String::new, |us| format!("{us:.0}")),
        ]);
    }
    table
}

fn new_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(ASCII_MARKDOWN).set_header(header);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn cells(rows: &[Row]) -> BTreeSet<(usize, System)> {
    rows.iter().map(|row| (row.in_flight, row.system)).collect()
}

fn select(rows: &[Row], system: System, level: usize) -> impl Iterator<Item = &Row> {
    rows.iter().filter(move |row| row.system == system && row.in_flight == level)
}

fn spread(rows: &[Row], system: System, level: usize, value: fn(&Row) -> f64, digits: usize) -> String {
    show(Spread::of(select(rows, system, level).map(value)), digits)
}

fn ratio(rows: &[Row], ours: System, other: System, level: usize, value: fn(&Row) -> f64) -> String {
    let pairs = select(rows, ours, level).filter_map(|our| {
        let their = select(rows, other, level).find(|row| row.round == our.round)?;
        Some(value(our) / value(their))
    });
    show(Spread::of(pairs), 2)
}

fn show(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or_else(String::new, |Spread { median, min, max }| {
        format!("{median:.digits$} ({min:.digits$} to {max:.digits$})")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(system: System, round: u32, per_second: f64) -> Row {
        Row {
            system,
            durable: system.is_durable(),
            in_flight: 64,
            round,
            accepted: 1,
            per_second,
            p50_ms: 1.0,
            p90_ms: 1.0,
            p99_ms: 1.0,
            p999_ms: 1.0,
            max_ms: 1.0,
            refused: 0,
            server_cpu_us: 1.0,
            client_cpu_us: 1.0,
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let rows = [
            row(System::Concordat, 1, 20.0),
            row(System::Etcd, 1, 10.0),
            row(System::Etcd, 2, 100.0),
            row(System::Concordat, 2, 400.0),
        ];
        let shown = ratio(&rows, System::Concordat, System::Etcd, 64, |row| row.per_second);
        assert_eq!(shown, "3.00 (2.00 to 4.00)");
    }
}
