//! Dashboards and alerts name only metrics that exist.

#![allow(clippy::unwrap_used)] // A panic in a test is its report.

use std::{collections::BTreeSet, fs, path::Path};

/// Every name that a node or a gateway describes, with what the exporter makes of it.
fn exported() -> BTreeSet<String> {
    let ordering = ordering_service::metrics::DESCRIPTIONS.iter().map(|(name, ..)| *name);
    let storage = ordering_service::storage::metrics::DESCRIPTIONS.iter().map(|(name, ..)| *name);
    let tls = service_kit::tls::DESCRIPTIONS.iter().map(|(name, ..)| *name);
    let gateway = mls_gateway::metrics::DESCRIPTIONS.iter().map(|(name, ..)| *name);
    ordering
        .chain(storage)
        .chain(gateway)
        .chain(tls)
        .flat_map(|name| ["", "_bucket", "_sum", "_count"].map(|suffix| format!("{name}{suffix}")))
        .collect()
}

fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("concordat_") && *word != "concordat_").collect()
}

#[test]
fn dashboards_and_alerts_name_only_metrics_that_exist() {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../helm/concordat");
    let exported = exported();
    let mut files = 0;
    for folder in ["dashboards", "alerts"] {
        for file in fs::read_dir(chart.join(folder)).unwrap() {
            let path = file.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let names = named(&text);
            assert!(!names.is_empty(), "{} names no metric", path.display());
            for name in names {
                assert!(exported.contains(name), "{} names {name}, which nobody exports", path.display());
            }
            files += 1;
        }
    }
    assert!(files >= 4, "expected three dashboards and the alerts, found {files} files");
}
