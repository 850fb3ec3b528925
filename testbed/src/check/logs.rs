//! The final logs: the same everywhere, and right in themselves.

use std::collections::{BTreeMap, HashMap};

use group_log::{ChainVerifier, Entry, GroupId};

use super::{GroupView, Report, Violation, is_commit};
use crate::history::ContentKey;

pub(super) fn check<'a>(
    id: &GroupId,
    copies: &'a BTreeMap<String, Vec<Entry>>,
    report: &mut Report,
) -> GroupView<'a> {
    let mut copies = copies.iter();
    let (first_name, entries) =
        copies.next().map_or(("", [].as_slice()), |(name, log)| (name.as_str(), log.as_slice()));
    for (name, other) in copies {
        if let Some(seq) = first_difference(entries, other) {
            report.add(id, Violation::NodesDiffer { a: first_name.to_owned(), b: name.clone(), seq });
        }
    }
    let view = GroupView {
        after: follow(id, entries, report),
        by_key: index(id, entries, report),
        first_start: vec![None; entries.len()],
        first_seen: vec![None; entries.len()],
        known: Vec::new(),
        latest_start: Vec::new(),
        entries,
    };
    one_commit_per_epoch(id, entries, report);
    view
}

pub(super) fn first_difference<T: PartialEq>(a: &[T], b: &[T]) -> Option<u64> {
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    (same < a.len().max(b.len())).then_some(same as u64 + 1)
}

fn follow(id: &GroupId, entries: &[Entry], report: &mut Report) -> Vec<(u64, group_log::StateId)> {
    let mut verifier = ChainVerifier::new();
    let mut after = Vec::with_capacity(entries.len());
    for entry in entries {
        if let Err(error) = verifier.push(entry) {
            // Everything after a break would be reported once more.
            report.add(id, Violation::BrokenLog { seq: entry.seq, cause: error.to_string() });
            break;
        }
        match verifier.position() {
            Some(position) => after.push(position),
            None => {
                report.add(
                    id,
                    Violation::BrokenLog { seq: entry.seq, cause: "the log begins without a create".into() },
                );
                break;
            }
        }
    }
    after
}

fn index(id: &GroupId, entries: &[Entry], report: &mut Report) -> HashMap<ContentKey, u64> {
    let mut by_key = HashMap::with_capacity(entries.len());
    for entry in entries {
        if let Some(first) = by_key.insert(ContentKey::of(&entry.content), entry.seq) {
            report.add(id, Violation::Duplicate { first, second: entry.seq });
        }
    }
    by_key
}

fn one_commit_per_epoch(id: &GroupId, entries: &[Entry], report: &mut Report) {
    let mut ended = HashMap::new();
    for entry in entries.iter().filter(|entry| is_commit(entry)) {
        if let Some(first) = ended.insert(entry.epoch, entry.seq) {
            report.add(id, Violation::TwoCommits { epoch: entry.epoch, first, second: entry.seq });
        }
    }
}
