//! One point of a curve.

use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};
use serde::Serialize;

/// What was measured at one size.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Point {
    /// What grows: groups, entries, subscribers, shards.
    pub(crate) of: &'static str,
    /// How many of them.
    pub(crate) size: u64,
    /// What was measured, with its unit.
    pub(crate) measure: &'static str,
    pub(crate) value: f64,
    /// How it should grow with the size.
    pub(crate) expected: &'static str,
}

impl Point {
    /// All points, curve by curve.
    pub(super) fn table(points: &[Self]) -> Table {
        let mut table = Table::new();
        table.load_preset(ASCII_MARKDOWN).set_header(["of", "size", "measure", "value", "expected growth"]);
        let mut curves: Vec<(&str, &str)> = Vec::new();
        for point in points {
            if !curves.contains(&(point.of, point.measure)) {
                curves.push((point.of, point.measure));
            }
        }
        for (of, measure) in curves {
            for point in points.iter().filter(|p| p.of == of && p.measure == measure) {
                let digits = if point.value.abs() < 100.0 { 2 } else { 0 };
                table.add_row([
                    point.of.to_owned(),
                    point.size.to_string(),
                    point.measure.to_owned(),
                    format!("{:.digits$}", point.value),
                    point.expected.to_owned(),
                ]);
            }
        }
        for column in [1, 3] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }
}
