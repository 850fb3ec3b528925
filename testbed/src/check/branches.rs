//! Groups with branches: what submissions were told, held against the canonical chain and what it says about branches.
//!
//! Every entry has an id that follows from the state it was made in, so the log can be asked about each of them: it is canonical, put
//! aside (`Side`, `Late`), or unknown. Checked are, beside that all nodes hold one log whose hashes, epochs and states follow from one
//! another:
//!
//! - one commit an epoch on the canonical chain, and nothing twice, or canonical and put aside;
//! - what was accepted by the quorum is where the answer said; what was accepted on a branch is in the log in the end, on the one or the
//!   other side; what was superseded is not canonical; what was told to be on the side is;
//! - nothing in the log was submitted by nobody.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use group_log::{
    ChainVerifier, EntryId, EntryKind, GroupId,
    fork::{Item, LogEntry, Mark},
    hash::entry_id,
};

use super::{Report, Violation, logs::first_difference};
use crate::{
    history::{BranchCall, Told},
    ordering::WholeLogs,
};

/// What a correct run consisted of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BranchSummary {
    /// Groups.
    pub groups: usize,
    /// Commits of all canonical chains.
    pub commits: usize,
    /// Entries that the logs have put aside.
    pub aside: usize,
    /// Those of them that came late.
    pub late: usize,
    /// Answers of the quorum that accepted something.
    pub accepted: usize,
    /// Entries that were accepted on a branch at first.
    pub provisional: usize,
    /// Those of them that became canonical.
    pub adopted: usize,
    /// Answers that another commit was first.
    pub superseded: usize,
    /// Attempts without an answer.
    pub unknown: usize,
}

/// Where the log has an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Canonical(u64),
    Aside { mark: u64, late: bool },
}

/// Checks a whole run.
pub fn check_branches(calls: &[BranchCall], logs: &WholeLogs) -> Result<BranchSummary, Report> {
    let mut report = Report::default();
    let mut summary = BranchSummary { groups: logs.len(), ..BranchSummary::default() };
    let mut submitted: BTreeMap<&GroupId, HashSet<EntryId>> = BTreeMap::new();
    for call in calls {
        submitted.entry(&call.group).or_default().insert(call.id);
    }
    let mut places = BTreeMap::new();
    for (id, copies) in logs {
        let log = one_log(id, copies, &mut report);
        let found = places_of(id, log, &mut report);
        let known = submitted.remove(id).unwrap_or_default();
        for (entry, place) in &found {
            if !known.contains(entry) {
                let (Place::Canonical(seq) | Place::Aside { mark: seq, .. }) = *place;
                report.add(id, Violation::Invented { seq });
            }
            if let Place::Aside { late, .. } = place {
                summary.aside += 1;
                summary.late += usize::from(*late);
            }
        }
        summary.commits += log.iter().filter(|entry| entry.item.kind() == EntryKind::Commit).count();
        places.insert(id, found);
    }
    let mut provisional = BTreeSet::new();
    for call in calls {
        let Some(found) = places.get(&call.group) else {
            if !matches!(call.told, Told::Refused { .. } | Told::Unknown) {
                report.add(&call.group, Violation::GroupLost);
            }
            continue;
        };
        let place = found.get(&call.id).copied();
        if let Some(violation) = contradiction(call, place) {
            report.add(&call.group, violation);
        }
        match call.told {
            Told::Accepted { .. } => summary.accepted += 1,
            Told::Provisional if provisional.insert((&call.group, call.id)) => {
                summary.provisional += 1;
                summary.adopted += usize::from(matches!(place, Some(Place::Canonical(_))));
            }
            Told::Superseded => summary.superseded += 1,
            Told::Unknown => summary.unknown += 1,
            _ => {}
        }
    }
    if report.is_empty() { Ok(summary) } else { Err(report) }
}

/// Entries that the log of their group does not speak of although they were accepted on a branch.
pub fn unrecorded(calls: &[BranchCall], logs: &WholeLogs) -> usize {
    let mut ignored = Report::default();
    let places: BTreeMap<_, _> = logs
        .iter()
        .map(|(id, copies)| {
            let log = copies.values().next().map(Vec::as_slice).unwrap_or_default();
            (id, places_of(id, log, &mut ignored))
        })
        .collect();
    let missing = calls.iter().filter(|call| matches!(call.told, Told::Provisional));
    missing.filter(|call| !places.get(&call.group).is_some_and(|found| found.contains_key(&call.id))).count()
}

fn contradiction(call: &BranchCall, place: Option<Place>) -> Option<Violation> {
    match (&call.told, place) {
        (Told::Accepted { seq }, Some(Place::Canonical(found))) if *seq == found => None,
        (Told::Accepted { seq }, Some(Place::Canonical(_))) => {
            Some(Violation::AcceptedOther { seq: *seq, what: "number" })
        }
        (Told::Accepted { seq }, _) => Some(Violation::AcceptedLost { seq: *seq, last: 0 }),
        (Told::Provisional, None) => Some(Violation::ProvisionalLost { entry: call.id }),
        (Told::Superseded | Told::OnSide, Some(Place::Canonical(seq))) => {
            Some(Violation::SupersededInLog { seq })
        }
        (Told::OnSide, None) => Some(Violation::ProvisionalLost { entry: call.id }),
        _ => None,
    }
}

/// The log, if all nodes hold the same and it follows from its own contents.
fn one_log<'a>(
    id: &GroupId,
    copies: &'a BTreeMap<String, Vec<LogEntry>>,
    report: &mut Report,
) -> &'a [LogEntry] {
    let mut copies = copies.iter();
    let Some((first, log)) = copies.next() else { return &[] };
    for (name, other) in copies {
        if let Some(seq) = first_difference(log, other) {
            report.add(id, Violation::NodesDiffer { a: first.clone(), b: name.clone(), seq });
        }
    }
    let mut verifier = ChainVerifier::new();
    let mut ended = HashMap::new();
    for entry in log {
        if entry.item.kind() == EntryKind::Commit
            && let Some(first) = ended.insert(entry.epoch, entry.seq)
        {
            report.add(id, Violation::TwoCommits { epoch: entry.epoch, first, second: entry.seq });
        }
        if let Err(error) = verifier.push_item(entry) {
            report.add(id, Violation::BrokenLog { seq: entry.seq, cause: error.to_string() });
            break;
        }
    }
    log
}

fn places_of(id: &GroupId, log: &[LogEntry], report: &mut Report) -> HashMap<EntryId, Place> {
    let mut places: HashMap<EntryId, Place> = HashMap::new();
    let mut note = |entry, place: Place, seq| {
        if let Some(Place::Canonical(first) | Place::Aside { mark: first, .. }) = places.insert(entry, place)
        {
            report.add(id, Violation::Duplicate { first, second: seq });
        }
    };
    for LogEntry { seq, state_id, item, .. } in log {
        match item {
            Item::Content(content) => {
                // A commit is named by the state it leads to.
                let is_commit = content.kind() == EntryKind::Commit;
                let entry = if is_commit { EntryId::from(*state_id) } else { entry_id(state_id, content) };
                note(entry, Place::Canonical(*seq), *seq);
            }
            Item::Mark(mark @ (Mark::Side { ids, .. } | Mark::Late { ids })) => {
                let late = matches!(mark, Mark::Late { .. });
                ids.iter().for_each(|entry| note(*entry, Place::Aside { mark: *seq, late }, *seq));
            }
            Item::Mark(Mark::Stable { .. }) => {}
        }
    }
    places
}
