//! Real time: what was known to be in a log before something else was submitted stands before it.

use group_log::GroupId;

use super::{GroupView, Report, Violation};

pub(super) fn check(id: &GroupId, group: &mut GroupView<'_>, report: &mut Report) {
    let mut latest = 0;
    for (entry, start) in group.entries.iter().zip(&group.first_start) {
        match start {
            Some(start) => latest = latest.max(*start),
            None => report.add(id, Violation::Invented { seq: entry.seq }),
        }
        group.latest_start.push(latest);
    }

    // From the end: the earliest moment at which any later entry was known.
    let mut earliest: Option<(u64, u64)> = None;
    for (index, entry) in group.entries.iter().enumerate().rev() {
        if let (Some(start), Some((seen, later))) = (group.first_start[index], earliest)
            && seen < start
        {
            report.add(id, Violation::RealTime { earlier: entry.seq, later });
        }
        if let Some(seen) = group.first_seen[index]
            && earliest.is_none_or(|(moment, _)| seen < moment)
        {
            earliest = Some((seen, entry.seq));
        }
    }

    let mut seen: Vec<_> =
        group.entries.iter().zip(&group.first_seen).filter_map(|(e, seen)| Some(((*seen)?, e.seq))).collect();
    seen.sort_unstable();
    let mut furthest = 0;
    for (moment, seq) in seen {
        if seq > furthest {
            furthest = seq;
            group.known.push((moment, seq));
        }
    }
}
