//! The tables at the end.

use std::{sync::Arc, sync::atomic::Ordering};

use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use hdrhistogram::Histogram;
use mls_client::Counters;

use crate::{
    activity::Tally,
    crash::Crash,
    limits::SHOWN_FINDINGS,
    proof::{Findings, Proof},
    world::Group,
};

/// Prints everything on stdout.
pub(crate) fn print(
    groups: &[Arc<Group>],
    tally: &Tally,
    crash: &Crash,
    retried: u64,
    proofs: &[Proof],
    findings: &Findings,
) {
    println!("{}", figures(groups, tally, crash, retried));
    println!("{}", proved(proofs));
    for finding in findings.all().iter().take(SHOWN_FINDINGS) {
        println!("WRONG: {finding}");
    }
    let count = findings.all().len();
    if count > SHOWN_FINDINGS {
        println!("WRONG: and {} more", count - SHOWN_FINDINGS);
    }
    if count == 0 {
        let readings: usize = proofs.iter().map(|proof| proof.read.readings).sum();
        println!(
            "PROVED: all members of each of the {} groups are in one epoch with one epoch authenticator, all nodes hold the same logs,\n\
             and every application message was decrypted by everyone entitled to it ({readings} readings).",
            proofs.len()
        );
    }
}

fn figures(groups: &[Arc<Group>], tally: &Tally, crash: &Crash, retried: u64) -> Table {
    let counters: Vec<Counters> =
        groups.iter().flat_map(|g| &g.members).map(|m| m.client.counters()).collect();
    let sum = |field: fn(&Counters) -> u64| counters.iter().map(field).sum::<u64>().to_string();
    // Microseconds, up to ten minutes.
    let mut latency = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3).expect("the bounds are valid");
    for sample in counters.iter().flat_map(|c| &c.ordering_latency) {
        latency.saturating_record(sample.as_micros().try_into().unwrap_or(u64::MAX));
    }
    let at = |quantile| format!("{:.1} ms", latency.value_at_quantile(quantile) as f64 / 1000.0);
    let longest = crash.leaderless.values().max().copied().unwrap_or_default();
    let mut table = table(["what", "figure"]);
    for (what, figure) in [
        ("commits accepted (creates included)", sum(|c| c.commits_accepted)),
        ("commits superseded", sum(|c| c.commits_superseded)),
        ("commits made again on the winner", sum(|c| c.commits_rebased)),
        ("submissions retried by the gateways", retried.to_string()),
        ("calls retried by the clients", sum(|c| c.calls_retried)),
        ("adds, updates, removes, messages", tally.line()),
        ("operations given up for now", tally.given_up.load(Ordering::Relaxed).to_string()),
        ("messages encrypted again in a newer epoch", sum(|c| c.messages_renewed)),
        ("ordering as clients see it, retries included: p50", at(0.5)),
        ("ordering as clients see it, retries included: p99", at(0.99)),
        ("the same, longest", format!("{:.1} ms", latency.max() as f64 / 1000.0)),
        ("time without a leader (longest of its shards)", format!("{} ms", longest.as_millis())),
        (
            "killed node: restart until ready",
            format!("node {}, {} ms", crash.node, crash.rejoined_after.as_millis()),
        ),
    ] {
        table.add_row([what, &figure]);
    }
    table
}

fn proved(proofs: &[Proof]) -> Table {
    let mut table =
        table(["group", "members", "epoch", "epoch authenticator", "log entries", "messages", "readings"]);
    for proof in proofs {
        table.add_row([
            proof.name.clone(),
            proof.members.to_string(),
            proof.epoch.to_string(),
            format!("{}...", proof.authenticator),
            proof.entries.to_string(),
            proof.read.messages.to_string(),
            proof.read.readings.to_string(),
        ]);
    }
    table
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
