//! Reading what `/metrics` says.

use std::{collections::BTreeMap, io};

use crate::http;

/// The samples of one scrape.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics {
    samples: BTreeMap<String, f64>,
}

impl Metrics {
    /// What `/metrics` of the process with this admin address says now.
    pub async fn of(address: &str) -> io::Result<Self> {
        let (_, text) = http::get(address, "/metrics").await?;
        Ok(Self::parse(&text))
    }

    /// Reads the Prometheus text format. Lines that are no samples are skipped.
    pub fn parse(text: &str) -> Self {
        let samples = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect();
        Self { samples }
    }

    /// The sum over all label sets of the metric `name`; nothing if there is no sample of it.
    pub fn sum(&self, name: &str) -> Option<f64> {
        self.series(name).map(|(_, value)| value).reduce(|a, b| a + b)
    }

    /// The samples of the metric `name` with their labels as written, such as `{shard="1"}`.
    pub fn series<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> + 'a {
        self.samples.iter().filter_map(move |(sample, value)| {
            let labels = sample.strip_prefix(name)?;
            (labels.is_empty() || labels.starts_with('{')).then_some((labels, *value))
        })
    }

    /// The names of all metrics, without labels.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.samples.keys().map(|sample| sample.split('{').next().unwrap_or(sample))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_over_their_labels() {
        let metrics =
            Metrics::parse("# TYPE a counter\na{shard=\"1\"} 2\na{shard=\"2\"} 3.5\nab 9\n\nnonsense\n");
        assert_eq!(metrics.sum("a"), Some(5.5));
        assert_eq!(metrics.sum("ab"), Some(9.0));
        assert_eq!(metrics.sum("b"), None);
        assert_eq!(metrics.names().count(), 3);
    }
}
