//! The Prometheus recorder of a process.

use std::sync::Mutex;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Bucket bounds of every duration histogram, in seconds: 50 us to 10 s, about three a decade's third where latencies are decided.
pub const SECONDS_BUCKETS: &[f64] = &[
    50e-6, 100e-6, 200e-6, 350e-6, 500e-6, 700e-6, 1e-3, 1.5e-3, 2e-3, 3e-3, 5e-3, 7e-3, 10e-3, 15e-3, 20e-3,
    30e-3, 50e-3, 70e-3, 0.1, 0.15, 0.2, 0.35, 0.5, 1.0, 2.0, 5.0, 10.0,
];

/// Bucket bounds of histograms whose name ends in `_bytes`: 64 B to 16 MiB.
pub const BYTES_BUCKETS: &[f64] =
    &[64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];

/// Bucket bounds of histograms whose name ends in `_entries` (batch sizes, queue lengths): 1 to 4096.
pub const ENTRIES_BUCKETS: &[f64] =
    &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0];

/// The recorder could not be installed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot record metrics: {0}")]
pub struct RecorderError(String);

/// Installs the recorder of this process, or returns the one that is installed: several services may share a process.
pub fn recorder() -> Result<PrometheusHandle, RecorderError> {
    static INSTALLED: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut installed = INSTALLED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(handle) = &*installed {
        return Ok(handle.clone());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets(SECONDS_BUCKETS)
        .and_then(|b| b.set_buckets_for_metric(Matcher::Suffix("_bytes".into()), BYTES_BUCKETS))
        .and_then(|b| b.set_buckets_for_metric(Matcher::Suffix("_entries".into()), ENTRIES_BUCKETS))
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|error| RecorderError(error.to_string()))?;
    *installed = Some(handle.clone());
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installing_twice_gives_the_same_recorder() {
        let first = recorder().unwrap();
        let second = recorder().unwrap();
        metrics::counter!("concordat_test_recorder_total").increment(3);
        metrics::histogram!("concordat_test_latency_seconds").record(60e-6);
        metrics::histogram!("concordat_test_batch_entries").record(3.0);
        for text in [first.render(), second.render()] {
            assert!(text.contains("concordat_test_recorder_total 3"), "{text}");
            assert!(text.contains("concordat_test_latency_seconds_bucket{le=\"0.0001\"} 1"), "{text}");
            assert!(text.contains("concordat_test_batch_entries_bucket{le=\"4\"} 1"), "{text}");
        }
    }

    #[test]
    fn bucket_bounds_ascend() {
        for bounds in [SECONDS_BUCKETS, BYTES_BUCKETS, ENTRIES_BUCKETS] {
            assert!(bounds.is_sorted_by(|a, b| a < b));
        }
    }
}
