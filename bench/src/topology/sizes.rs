//! What an update costs by the size of a group, whatever the topology: a commit of a group with an order, and the UPDATE of a DiMLS
//! group with its acknowledgements. Real messages, made in this process.

use anyhow::Context;
use mls_client::dimls::measure::measure;

use super::{chain::Chain, row::Row};

/// Rows for one size: `mls`, and `dimls` where a group of that kind can be as large.
pub(crate) fn run(members: usize) -> anyhow::Result<Vec<Row>> {
    let chain = Chain::build(format!("size-{members}").as_bytes(), members, 4)?;
    let row = |design: &str| Row {
        topology: ANY.into(),
        design: design.into(),
        group_size: members,
        ..Row::default()
    };
    let mls = Row { commit_bytes: chain.commit_bytes(), ..row("mls") };
    let measured = measure(members).with_context(|| format!("a DiMLS group of {members}"))?;
    let dimls = Row {
        commit_bytes: measured.update_bytes,
        acknowledge_bytes: Some(measured.acknowledge_one_bytes),
        update_in_all_bytes: Some(measured.update_bytes + (members - 1) * measured.acknowledge_one_bytes),
        stored_bytes: Some(measured.stored_bytes),
        followed: Some(measured.followed),
        receive_update_us: Some(measured.receive_update_us),
        ..row("dimls")
    };
    Ok(vec![mls, dimls])
}

/// In place of a topology.
pub(crate) const ANY: &str = "any";

/// The smallest measured size from which on a DiMLS update, its acknowledgements by everybody included, takes more bytes than an MLS
/// commit; nothing if it never does.
pub(crate) fn crossover(rows: &[Row]) -> Option<usize> {
    let of =
        |design: &'static str| rows.iter().filter(move |row| row.topology == ANY && row.design == design);
    let mut sizes: Vec<(usize, bool)> = of("dimls")
        .filter_map(|dimls| {
            let mls = of("mls").find(|mls| mls.group_size == dimls.group_size)?;
            Some((dimls.group_size, dimls.update_in_all_bytes? > mls.commit_bytes))
        })
        .collect();
    sizes.sort_unstable();
    let last_below = sizes.iter().rposition(|(_, more)| !more);
    sizes.get(last_below.map_or(0, |at| at + 1)).map(|(size, _)| *size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(sizes: &[(usize, usize, usize)]) -> Vec<Row> {
        let row = |design: &str, group_size| Row {
            topology: ANY.into(),
            design: design.into(),
            group_size,
            ..Row::default()
        };
        let pair = |&(size, mls, dimls): &(usize, usize, usize)| {
            let dimls = Row { update_in_all_bytes: Some(dimls), ..row("dimls", size) };
            [Row { commit_bytes: mls, ..row("mls", size) }, dimls]
        };
        sizes.iter().flat_map(pair).collect()
    }

    #[test]
    fn the_crossover_is_where_it_costs_more_for_good() {
        assert_eq!(crossover(&rows(&[(4, 10, 5), (16, 20, 30), (64, 30, 100)])), Some(16));
        assert_eq!(crossover(&rows(&[(4, 10, 50), (16, 20, 3), (64, 30, 100)])), Some(64));
        assert_eq!(crossover(&rows(&[(4, 10, 5)])), None);
        assert_eq!(crossover(&rows(&[(4, 10, 50)])), Some(4));
    }

    #[test]
    fn real_messages_are_measured() {
        let rows = run(4).unwrap();
        assert_eq!(rows.len(), 2);
        assert!(rows.iter().all(|row| row.commit_bytes > 100));
        assert!(rows[1].update_in_all_bytes.unwrap() > rows[1].commit_bytes);
    }
}
