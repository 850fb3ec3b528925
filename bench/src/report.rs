//! Results on disk: a page to look at, JSON with everything about the run, CSV with one line a measurement.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use serde::Serialize;

use crate::machine::Machine;

/// A run and what came out of it.
#[derive(Debug, Serialize)]
pub(crate) struct Report<C, R> {
    /// Which benchmark.
    pub(crate) benchmark: String,
    /// Seconds since 1970.
    pub(crate) started_at: u64,
    /// Of the payloads and of the order of the runs.
    pub(crate) seed: u64,
    pub(crate) machine: Machine,
    /// What was measured, by name.
    pub(crate) versions: std::collections::BTreeMap<String, String>,
    pub(crate) configuration: C,
    pub(crate) results: Vec<R>,
}

impl<C: Serialize, R: Serialize> Report<C, R> {
    /// Writes `<benchmark>-<started_at>.html` (the given page), `.json` and `.csv`. Returns their paths.
    pub(crate) fn write(&self, dir: &Path, page: &str) -> anyhow::Result<[PathBuf; 3]> {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        let name = format!("{}-{}", self.benchmark, self.started_at);
        let [html, json, csv] = ["html", "json", "csv"].map(|kind| dir.join(format!("{name}.{kind}")));
        fs::write(&html, page).with_context(|| format!("writing {}", html.display()))?;
        let text = serde_json::to_string_pretty(self)?;
        fs::write(&json, text).with_context(|| format!("writing {}", json.display()))?;
        let mut table = csv::Writer::from_path(&csv).with_context(|| format!("writing {}", csv.display()))?;
        for row in &self.results {
            table.serialize(row)?;
        }
        table.flush()?;
        Ok([html, json, csv])
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The middle of some values, and their extremes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Nothing if there are no values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { median, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_median_between_the_extremes() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
    }
}
