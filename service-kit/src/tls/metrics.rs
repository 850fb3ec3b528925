//! Metrics of TLS.

use metrics::{counter, describe_counter, describe_gauge, gauge};

const EXPIRY: &str = "concordat_tls_certificate_expiry_timestamp_seconds";
const RELOADS: &str = "concordat_tls_reloads_total";
const HANDSHAKES: &str = "concordat_tls_handshakes_total";

/// Every metric: its name, whether it is a gauge (else a counter), and what it says. `docs/metrics.md` lists them.
pub const DESCRIPTIONS: &[(&str, bool, &str)] = &[
    (EXPIRY, true, "When the certificate in use ends, in seconds since 1970, by use (internal, public)"),
    (RELOADS, false, "Changed credentials that were read again, by use and result (published, refused)"),
    (HANDSHAKES, false, "TLS handshakes of incoming connections, by result (done, refused, timeout)"),
];

/// Describes the metrics to the recorder.
pub fn describe() {
    for (name, is_gauge, text) in DESCRIPTIONS {
        if *is_gauge { describe_gauge!(*name, *text) } else { describe_counter!(*name, *text) }
    }
}

/// Credentials are in use: what they may never need is there from the start, with zero.
pub(super) fn begin(usage: &'static str) {
    for result in ["published", "refused"] {
        counter!(RELOADS, "use" => usage, "result" => result).increment(0);
    }
    for result in ["done", "refused", "timeout"] {
        counter!(HANDSHAKES, "result" => result).increment(0);
    }
}

pub(super) fn expiry(usage: &'static str, seconds: u64) {
    gauge!(EXPIRY, "use" => usage).set(seconds as f64);
}

pub(super) fn reload(usage: &'static str, result: &'static str) {
    counter!(RELOADS, "use" => usage, "result" => result).increment(1);
}

pub(super) fn handshake(result: &'static str) {
    counter!(HANDSHAKES, "result" => result).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_documented() {
        let page = include_str!("../../../docs/metrics.md");
        for (name, ..) in DESCRIPTIONS {
            assert!(page.contains(&format!("`{name}`")), "{name} is not in docs/metrics.md");
        }
    }
}
