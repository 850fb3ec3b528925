//! The tables at the end.

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};

use super::{proof::Proof, steps::Steps};
use crate::limits::SHOWN_FINDINGS;

/// Prints everything on stdout.
pub(super) fn print(steps: &Steps, proofs: &[Proof], findings: &[String]) {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(["step", "took"]);
    for (what, took) in &steps.took {
        table.add_row([*what, took.as_str()]);
    }
    println!("{table}");
    println!("{}", proved(proofs));
    findings.iter().take(SHOWN_FINDINGS).for_each(|finding| println!("WRONG: {finding}"));
    if findings.len() > SHOWN_FINDINGS {
        println!("WRONG: and {} more", findings.len() - SHOWN_FINDINGS);
    }
    if findings.is_empty() {
        println!(
            "PROVED: all members of every group are in one state with one epoch authenticator; every message of every side was read by\n\
             everyone entitled to it; nobody who was removed is back; plain MLS groups never forked; nothing is retained."
        );
    }
}

fn proved(proofs: &[Proof]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header([
        "group",
        "members",
        "epoch",
        "epoch authenticator",
        "commits by a quorum",
        "on branches",
        "messages",
        "readings checked",
        "marks of branches",
    ]);
    for proof in proofs {
        table.add_row([
            proof.name.clone(),
            proof.members.to_string(),
            proof.epoch.to_string(),
            format!("{}...", proof.authenticator),
            proof.ordered.to_string(),
            proof.provisional.to_string(),
            proof.messages.to_string(),
            proof.readings.to_string(),
            proof.marks.to_string(),
        ]);
    }
    table
}
