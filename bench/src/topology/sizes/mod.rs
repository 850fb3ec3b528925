//! What an update costs by the size of a group, whatever the topology: a commit of a group with an order (MLS), of one that may fork
//! (DeMLS), and the UPDATE of a DiMLS group with its acknowledgements. Real messages, made in this process.

mod demls;

use std::time::Duration;

use anyhow::Context;
use mls_client::dimls::measure::measure;

use super::{
    chain::{Chain, public_key_package},
    dimls::UPDATES,
    row::Row,
};

/// Commits that are measured in each group.
const COMMITS: usize = 4;

/// Rows for one size: `mls`, `demls` and `dimls`.
pub(crate) fn run(members: usize) -> anyhow::Result<Vec<Row>> {
    let others = (1..members).map(public_key_package).collect::<anyhow::Result<Vec<_>>>()?;
    let chain = Chain::build(format!("size-{members}").as_bytes(), &others, COMMITS)?;
    let row = |design: &str| Row {
        topology: ANY.into(),
        design: design.into(),
        group_size: members,
        ..Row::default()
    };
    let (commit_bytes, stored_bytes) = (chain.commit_bytes(), Some(chain.stored_bytes));
    let mls = Row { commit_bytes, stored_bytes, ..row("mls") };
    let measured = demls::measure(members, COMMITS).with_context(|| format!("a DeMLS group of {members}"))?;
    let demls = Row {
        commit_bytes: measured.commit_bytes,
        stored_bytes: Some(measured.stored_bytes),
        client_bytes_per_commit: Some(measured.kept_bytes_per_commit as f64),
        receive_update_us: Some(measured.receive_update_us),
        ..row("demls")
    };
    let measured = measure(members).with_context(|| format!("a DiMLS group of {members}"))?;
    let dimls = Row {
        commit_bytes: measured.update_bytes,
        acknowledge_bytes: Some(measured.acknowledge_one_bytes),
        update_in_all_bytes: Some(measured.update_bytes + (members - 1) * measured.acknowledge_one_bytes),
        stored_bytes: Some(measured.stored_bytes),
        followed: Some(measured.followed),
        receive_update_us: Some(measured.receive_update_us),
        ..row(UPDATES)
    };
    Ok(vec![mls, demls, dimls])
}

/// What taking in an UPDATE of a DGroup of so many members was measured to cost.
pub(crate) fn taken_in(rows: &[Row], members: usize) -> Duration {
    let of_size = |row: &&Row| row.topology == ANY && row.design == UPDATES && row.group_size == members;
    let us = rows.iter().filter(of_size).find_map(|row| row.receive_update_us);
    Duration::from_micros(us.unwrap_or_default())
}

/// In place of a topology.
pub(crate) const ANY: &str = "any";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_messages_are_measured() {
        let rows = run(4).unwrap();
        assert_eq!(rows.iter().map(|row| row.design.as_str()).collect::<Vec<_>>(), ["mls", "demls", UPDATES]);
        assert!(rows.iter().all(|row| row.commit_bytes > 100 && row.stored_bytes.unwrap() > 1000));
        // The epoch's name goes with every message.
        assert!(rows[1].commit_bytes > rows[0].commit_bytes);
        assert!(rows[2].update_in_all_bytes.unwrap() > rows[2].commit_bytes);
    }
}
