//! Who saw what, and when: the moments that the order is checked with, and the promises to readers.

use std::collections::BTreeMap;

use group_log::{ChainHash, GroupId};

use super::{GroupView, Report, Violation};
use crate::history::{Answer, Record, Subscription};

type Groups<'a> = BTreeMap<&'a GroupId, GroupView<'a>>;

/// Notes for every entry when it was first submitted and when it was first known.
pub(super) fn collect(record: &Record, groups: &mut Groups<'_>, report: &mut Report) {
    for call in &record.calls {
        let Some(group) = groups.get_mut(&call.group) else { continue };
        if let Some(seq) = group.by_key.get(&call.key) {
            earliest(&mut group.first_start, *seq, call.start);
        }
        match &call.answer {
            Answer::Accepted { seq, .. } => earliest(&mut group.first_seen, *seq, call.end),
            Answer::Superseded { winner } => earliest(&mut group.first_seen, winner.seq, call.end),
            Answer::Refused { .. } | Answer::Unknown => {}
        }
    }
    for subscription in &record.subscriptions {
        let Some(group) = groups.get_mut(&subscription.group) else {
            if !subscription.delivered.is_empty() {
                report.add(&subscription.group, Violation::GroupLost);
            }
            continue;
        };
        for delivered in &subscription.delivered {
            earliest(&mut group.first_seen, delivered.seq, delivered.at);
        }
    }
    for read in &record.reads {
        match groups.get_mut(&read.group) {
            Some(group) => earliest(&mut group.first_seen, read.seq, read.end),
            None => report.add(&read.group, Violation::GroupLost),
        }
    }
}

fn earliest(moments: &mut [Option<u64>], seq: u64, moment: u64) {
    // Numbers beyond the log are reported where the answer itself is checked.
    if let Some(slot) = usize::try_from(seq).ok().and_then(|seq| moments.get_mut(seq.checked_sub(1)?)) {
        *slot = Some(slot.map_or(moment, |before| before.min(moment)));
    }
}

pub(super) fn check(record: &Record, groups: &Groups<'_>, report: &mut Report) {
    for subscription in &record.subscriptions {
        if let Some(group) = groups.get(&subscription.group) {
            deliveries(subscription, group, report);
        }
    }
    for read in &record.reads {
        let Some(group) = groups.get(&read.group) else { continue };
        let known = group.known_before(read.start);
        if read.seq < known {
            report.add(&read.group, Violation::StaleRead { seq: read.seq, known });
        } else if let Some(violation) = seen("a linearizable read", read.seq, &read.chain, read.end, group) {
            report.add(&read.group, violation);
        }
    }
}

fn deliveries(subscription: &Subscription, group: &GroupView<'_>, report: &mut Report) {
    for (expected, delivered) in (subscription.after_seq + 1..).zip(&subscription.delivered) {
        let (reader, got) = (subscription.reader.clone(), delivered.seq);
        if got != expected {
            report.add(&subscription.group, Violation::NotContiguous { reader, expected, got });
            return;
        }
        if let Some(violation) = seen(&reader, got, &delivered.chain, delivered.at, group) {
            report.add(&subscription.group, violation);
            return;
        }
    }
}

fn seen(reader: &str, seq: u64, chain: &ChainHash, at: u64, group: &GroupView<'_>) -> Option<Violation> {
    let reader = reader.to_owned();
    if group.entry(seq).is_none_or(|entry| entry.chain != *chain) {
        return Some(Violation::NotInLog { reader, seq });
    }
    group.is_from_the_future(seq, at).then_some(Violation::FromTheFuture { reader, seq })
}
