//! What submissions were told.

use std::collections::{BTreeMap, HashMap};

use group_log::{Entry, GroupId};

use super::{GroupView, Report, Violation, is_commit};
use crate::history::{Answer, Call, ContentKey, Record};

pub(super) fn check(record: &Record, groups: &BTreeMap<&GroupId, GroupView<'_>>, report: &mut Report) {
    // A refusal is final only if no other attempt of the same submission could have put it into the log.
    let mut may_be_in_log: HashMap<(&GroupId, &ContentKey), bool> = HashMap::new();
    for call in &record.calls {
        *may_be_in_log.entry((&call.group, &call.key)).or_default() |=
            !matches!(call.answer, Answer::Refused { .. });
    }
    for call in &record.calls {
        let Some(group) = groups.get(&call.group) else {
            if matches!(call.answer, Answer::Accepted { .. } | Answer::Superseded { .. }) {
                report.add(&call.group, Violation::GroupLost);
            }
            continue;
        };
        let wrong = match &call.answer {
            Answer::Accepted { seq, .. } => accepted(call, *seq, group),
            Answer::Superseded { winner } => superseded(call, winner, group),
            Answer::Refused { reason } => {
                refused(call, reason, group, may_be_in_log[&(&call.group, &call.key)])
            }
            Answer::Unknown => None,
        };
        if let Some(violation) = wrong {
            report.add(&call.group, violation);
        }
    }
}

fn accepted(call: &Call, seq: u64, group: &GroupView<'_>) -> Option<Violation> {
    let Answer::Accepted { epoch, state_id, chain, .. } = &call.answer else { return None };
    let Some(entry) = group.entry(seq) else {
        return Some(Violation::AcceptedLost { seq, last: group.entries.len() as u64 });
    };
    let after = usize::try_from(seq).ok().and_then(|seq| group.after.get(seq - 1));
    let what = if ContentKey::of(&entry.content) != call.key {
        "content"
    } else if entry.chain != *chain {
        "chain hash"
    } else if entry.epoch != call.epoch {
        "epoch"
    } else if after.is_some_and(|after| *after != (*epoch, *state_id)) {
        "resulting state"
    } else {
        return None;
    };
    Some(Violation::AcceptedOther { seq, what })
}

fn superseded(call: &Call, winner: &Entry, group: &GroupView<'_>) -> Option<Violation> {
    if let Some(seq) = group.by_key.get(&call.key) {
        return Some(Violation::SupersededInLog { seq: *seq });
    }
    let cause = if group.entry(winner.seq) != Some(winner) {
        "the log holds another entry there"
    } else if !is_commit(winner) {
        "it is no commit"
    } else if winner.epoch != call.epoch {
        "it ended another epoch"
    } else if group.is_from_the_future(winner.seq, call.end) {
        "it was not submitted yet"
    } else {
        return None;
    };
    Some(Violation::WrongWinner { seq: winner.seq, epoch: call.epoch, cause })
}

fn refused(call: &Call, reason: &str, group: &GroupView<'_>, may_be_in_log: bool) -> Option<Violation> {
    if let Some(seq) = group.by_key.get(&call.key)
        && !may_be_in_log
    {
        return Some(Violation::RefusedInLog { seq: *seq });
    }
    let known = group.known_before(call.start);
    let reached =
        usize::try_from(known).ok().and_then(|k| group.after.get(k.checked_sub(1)?)).map(|after| after.0);
    let stale = match reason {
        "GROUP_NOT_FOUND" => known > 0,
        "EPOCH_AHEAD" => reached.is_some_and(|epoch| epoch >= call.epoch),
        _ => false,
    };
    stale.then(|| Violation::StaleRefusal { reason: reason.to_owned(), known })
}
