//! The checker accepts every correct run, and rejects every run with one lie in it.

mod branching;
mod lies;
mod simulated;

use proptest::prelude::*;

use super::check;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_correct_run_passes(seed: u64) {
        let (record, logs) = simulated::run(seed);
        let summary = check(&record, &logs).map_err(|report| TestCaseError::fail(report.to_string()))?;
        prop_assert!(summary.entries > 50 && summary.superseded > 0 && summary.unknown_in_log > 0 && summary.reads > 0);
    }
}

#[test]
fn the_report_counts_what_it_does_not_show() {
    let (mut record, logs) = simulated::run(1);
    record.calls.clear();
    let report = check(&record, &logs).unwrap_err();
    assert!(report.total > report.violations.len());
    assert!(report.to_string().contains("more"));
}
