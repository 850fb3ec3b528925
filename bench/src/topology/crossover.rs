//! Where each of MLS, DeMLS and DiMLS wins, from what was measured. Pure.

use super::{dimls::UPDATES, row::Row, sizes::ANY};

/// The same group, with an order (MLS) and without (DiMLS), on one topology.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair<'a> {
    /// Consensus, and what it costs.
    pub(crate) mls: &'a Row,
    /// UPDATEs of a DGroup.
    pub(crate) dimls: &'a Row,
    /// Bytes of a commit; nothing if they were not measured for this size.
    pub(crate) commit_bytes: Option<usize>,
    /// Bytes of an UPDATE with everybody's acknowledgement.
    pub(crate) update_bytes: Option<usize>,
}

impl Pair<'_> {
    /// An UPDATE is at the last member before a commit is at the last site.
    pub(crate) fn dimls_is_sooner(&self) -> bool {
        self.dimls.delivery_p50_ms < self.mls.delivery_p50_ms
    }

    /// An UPDATE with everybody's acknowledgement is smaller than a commit.
    pub(crate) fn dimls_is_smaller(&self) -> Option<bool> {
        Some(self.update_bytes? < self.commit_bytes?)
    }

    /// Commits of one group in a second of which a fifth meets another one under way, and is made in vain.
    pub(crate) fn mls_rate(&self) -> f64 {
        rate_of_overlap(OVERLAP_HIGH, self.mls.ordering_p50_ms)
    }
}

/// Updates of a group that overlap more often than this waste much work.
pub(crate) const OVERLAP_HIGH: f64 = 0.2;

/// The share of commits that meet another one under way, at so many a second that take `p50_ms` each.
pub(crate) fn overlap(rate: f64, p50_ms: f64) -> f64 {
    1.0 - (-rate * p50_ms / 1e3).exp()
}

/// The inverse of [`overlap`]: at which rate that share is reached.
fn rate_of_overlap(share: f64, p50_ms: f64) -> f64 {
    -(1.0 - share).ln() / (p50_ms / 1e3).max(f64::EPSILON)
}

/// Every size that was measured both ways, by topology and size.
pub(crate) fn pairs(rows: &[Row]) -> Vec<Pair<'_>> {
    let dimls = rows.iter().filter(|row| row.design == UPDATES && row.topology != ANY && row.commits > 0);
    dimls.filter_map(|dimls| pair(rows, dimls)).collect()
}

fn pair<'a>(rows: &'a [Row], dimls: &'a Row) -> Option<Pair<'a>> {
    let same = |row: &&Row| row.topology == dimls.topology && row.group_size == dimls.group_size;
    let mls = rows.iter().filter(same).find(|row| row.design == "consensus")?;
    let any = |design: &str| {
        rows.iter()
            .find(|row| row.topology == ANY && row.design == design && row.group_size == dimls.group_size)
    };
    Some(Pair {
        mls,
        dimls,
        commit_bytes: any("mls").map(|row| row.commit_bytes),
        update_bytes: any(UPDATES).and_then(|row| row.update_in_all_bytes),
    })
}

/// The smallest measured size from which on a DiMLS update, its acknowledgements by everybody included, takes more bytes than an MLS
/// commit; nothing if it never does.
fn bytes_cross_at(rows: &[Row]) -> Option<usize> {
    let of =
        |design: &'static str| rows.iter().filter(move |row| row.topology == ANY && row.design == design);
    let sizes = of(UPDATES).filter_map(|dimls| {
        let mls = of("mls").find(|mls| mls.group_size == dimls.group_size)?;
        Some((dimls.group_size, dimls.update_in_all_bytes? > mls.commit_bytes))
    });
    cross_at(sizes.collect())
}

/// The smallest size from which on something holds, up to the largest; nothing if it does not hold there.
fn cross_at(mut sizes: Vec<(usize, bool)>) -> Option<usize> {
    sizes.sort_unstable();
    let last_not = sizes.iter().rposition(|(_, holds)| !holds);
    sizes.get(last_not.map_or(0, |at| at + 1)).map(|(size, _)| *size)
}

/// What that comes to, in sentences.
pub(crate) fn told(rows: &[Row]) -> Vec<String> {
    let mut told = vec![match bytes_cross_at(rows) {
        Some(size) => format!(
            "bytes: from {size} members on (of the sizes measured) a DiMLS update with everybody's acknowledgement takes more than an MLS commit"
        ),
        None => {
            "bytes: at no measured size a DiMLS update with everybody's acknowledgement takes more than an MLS commit".into()
        }
    }];
    let pairs = pairs(rows);
    let mut topologies: Vec<&str> = pairs.iter().map(|pair| pair.dimls.topology.as_str()).collect();
    topologies.dedup();
    for topology in topologies {
        let here: Vec<&Pair<'_>> = pairs.iter().filter(|pair| pair.dimls.topology == topology).collect();
        told.push(format!("{topology}: {}; {}; {}", delivery(&here), rate(&here), in_a_split(rows, &here)));
    }
    told
}

fn delivery(here: &[&Pair<'_>]) -> String {
    let all: Vec<String> = here.iter().map(|pair| pair.dimls.group_size.to_string()).collect();
    let later = here.iter().map(|pair| (pair.dimls.group_size, !pair.dimls_is_sooner())).collect();
    match cross_at(later) {
        None if here.iter().all(|pair| pair.dimls_is_sooner()) => {
            format!("DiMLS delivers an update sooner than MLS with {} members", all.join(", "))
        }
        None => format!(
            "of {} members, whether MLS or DiMLS delivers sooner changes more than once",
            all.join(", ")
        ),
        Some(size) if here.first().is_some_and(|first| first.dimls.group_size == size) => {
            format!("MLS delivers an update sooner than DiMLS with {} members", all.join(", "))
        }
        Some(size) => {
            format!("DiMLS delivers an update sooner than MLS below {size} members, MLS from there on")
        }
    }
}

fn rate(here: &[&Pair<'_>]) -> String {
    let rate = here.iter().map(|pair| pair.mls_rate()).fold(f64::INFINITY, f64::min);
    format!(
        "above {rate:.1} updates a second of one group {:.0} % of MLS commits are made in vain, and DiMLS or turns win",
        OVERLAP_HIGH * 100.0
    )
}

fn in_a_split(rows: &[Row], here: &[&Pair<'_>]) -> String {
    let topology = here.first().map(|pair| pair.dimls.topology.as_str());
    let of = |design: &str| {
        let mut rows =
            rows.iter().filter(|row| Some(row.topology.as_str()) == topology && row.design == design);
        rows.find(|row| row.fault_lasted_s.is_some())
    };
    let after = |ms: Option<f64>| ms.map_or("never".to_owned(), |ms| format!("after {ms:.0} ms"));
    let mls = of("consensus").map(|row| {
        format!("with a quorum MLS goes on {}, without one it does not", after(row.cut_others_ms))
    });
    let demls = of("demls").map(|row| format!("DeMLS goes on there {}", after(row.branch_ms)));
    let dimls = of(UPDATES).map(|row| {
        format!("DiMLS never stops ({:.0} ms at the longest)", row.cut_others_ms.unwrap_or_default())
    });
    let all: Vec<String> = [mls, demls, dimls].into_iter().flatten().collect();
    if all.is_empty() { "no split was measured".into() } else { format!("in a split {}", all.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(topology: &str, design: &str, group_size: usize) -> Row {
        Row { topology: topology.into(), design: design.into(), group_size, ..Row::default() }
    }

    fn sizes(sizes: &[(usize, usize, usize)]) -> Vec<Row> {
        let pair = |&(size, mls, dimls): &(usize, usize, usize)| {
            let dimls = Row { update_in_all_bytes: Some(dimls), ..row(ANY, UPDATES, size) };
            [Row { commit_bytes: mls, ..row(ANY, "mls", size) }, dimls]
        };
        sizes.iter().flat_map(pair).collect()
    }

    fn delivered(design: &str, group_size: usize, ms: f64) -> Row {
        Row { delivery_p50_ms: ms, ordering_p50_ms: ms, commits: 1, ..row("here", design, group_size) }
    }

    #[test]
    fn the_crossover_is_where_it_costs_more_for_good() {
        assert_eq!(bytes_cross_at(&sizes(&[(4, 10, 5), (16, 20, 30), (64, 30, 100)])), Some(16));
        assert_eq!(bytes_cross_at(&sizes(&[(4, 10, 50), (16, 20, 3), (64, 30, 100)])), Some(64));
        assert_eq!(bytes_cross_at(&sizes(&[(4, 10, 5)])), None);
        assert_eq!(bytes_cross_at(&sizes(&[(4, 10, 50)])), Some(4));
    }

    #[test]
    fn who_delivers_sooner_is_told_with_the_size_where_that_changes() {
        let rows = |dimls: [f64; 3]| -> Vec<Row> {
            let both = |(size, ms)| [delivered("consensus", size, 100.0), delivered(UPDATES, size, ms)];
            [4, 16, 64].into_iter().zip(dimls).flat_map(both).collect()
        };
        let line = |dimls| told(&rows(dimls)).pop().unwrap();
        assert!(line([50.0, 60.0, 70.0]).contains("DiMLS delivers an update sooner than MLS with 4, 16, 64"));
        assert!(line([50.0, 160.0, 170.0]).contains("sooner than MLS below 16 members, MLS from there on"));
        assert!(
            line([150.0, 160.0, 170.0]).contains("MLS delivers an update sooner than DiMLS with 4, 16, 64")
        );
        assert!(line([150.0, 160.0, 70.0]).contains("changes more than once"));
        assert!(
            line([50.0, 60.0, 70.0]).contains("above 2.2 updates a second"),
            "{}",
            line([50.0, 60.0, 70.0])
        );
    }

    #[test]
    fn only_what_was_measured_both_ways_is_compared() {
        let mut rows = vec![delivered("consensus", 4, 1.0), delivered(UPDATES, 16, 1.0)];
        assert!(pairs(&rows).is_empty());
        rows.push(delivered("consensus", 16, 1.0));
        rows.extend(sizes(&[(16, 10, 5)]));
        let [pair] = pairs(&rows)[..] else { panic!() };
        assert_eq!(pair.dimls_is_smaller(), Some(true));
    }

    #[test]
    fn the_rate_of_an_overlap_has_that_overlap() {
        for p50 in [1.0, 100.0, 2000.0] {
            assert!((overlap(rate_of_overlap(OVERLAP_HIGH, p50), p50) - OVERLAP_HIGH).abs() < 1e-9);
        }
    }
}
