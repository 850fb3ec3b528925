//! A gateway reports what it accepted, or heard of, without a quorum. Idempotent, in any number and order.

use std::collections::BTreeMap;

use crate::{
    content::{EntryKind, GroupKind},
    fork::{
        answer::{Answer, Rejection},
        close::{Loser, put_aside},
        draft::{Draft, Read},
        facts::{CommitFacts, GatewayId, validate_branch_content},
        marks::Mark,
        state::{BranchEntry, Candidate, Collecting, Dead, Recorded},
        view::{ForkView, Payload},
    },
    head::Head,
    ids::EntryId,
    limits::{MAX_CANDIDATES, MAX_MARK_IDS, MAX_REPORT_ENTRIES},
    rules::Made,
    turns::Offer,
};

/// What a gateway knows and the log does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Who reports.
    pub gateway: GatewayId,
    /// Entries, parents before children, at most [`MAX_REPORT_ENTRIES`]. Those that are known already are skipped.
    pub entries: Vec<BranchEntry>,
    /// Nothing is left to report: the gateway need not be waited for.
    pub complete: bool,
}

/// Where an entry hangs.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Epoch of the nearest canonical ancestor.
    anchor_epoch: u64,
    /// The least number of an entry that calls an ancestor dead.
    dead_since: Option<u64>,
    /// The epoch it was made in.
    epoch: u64,
    /// The state it was made in is canonical.
    on_canonical: bool,
}

enum Class {
    Late,
    Side,
    Message,
    Candidate,
}

pub(super) fn report<V: ForkView>(draft: &mut Draft<'_, V>, report: &Report) -> Read<Answer, V> {
    let head = match demls_head(draft) {
        Ok(head) => head,
        Err(rejection) => return Ok(Answer::Rejected(rejection)),
    };
    let new = match place_all(draft, &report.entries)? {
        Ok(new) => new,
        Err(rejection) => return Ok(Answer::Rejected(rejection)),
    };
    let candidates = new.iter().filter(|new| matches!(class(draft, &head, new), Class::Candidate)).count();
    let waiting = draft.fork.collecting.as_ref().map_or(0, |collecting| collecting.candidates as usize);
    if waiting + candidates > MAX_CANDIDATES {
        let (limit, got) = (MAX_CANDIDATES as u64, (waiting + candidates) as u64);
        let what = "entries that wait for the close";
        return Ok(Answer::Rejected(Rejection::Full { what, limit, got }));
    }

    draft.change.kept = new.iter().map(|new| (new.id, new.index)).collect();
    let count = new.len() as u64;
    let (mut late, mut side, mut messages, mut waiting) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for new in new {
        match class(draft, &head, &new) {
            Class::Late => late.push(new),
            Class::Side => side.push(new),
            Class::Message => messages.push(new),
            Class::Candidate => waiting.push(new),
        }
    }
    record_late(draft, &late)?;
    for new in &messages {
        let made = Made {
            epoch: new.place.epoch,
            author: Some(&new.entry.author),
            content: &new.entry.content,
            offer: Offer::default(),
        };
        let payload = Payload::Reported(new.id);
        draft.append(new.id, new.entry.parent, &made, &CommitFacts::default(), payload)?;
    }
    let side: Vec<_> = side.iter().map(|new| new.place.loser(new.id, new.entry)).collect();
    put_aside(draft, &side)?;
    collect(draft, report, waiting);
    Ok(Answer::Reported {
        new: count,
        collecting: draft.fork.collecting.as_ref().map(|collecting| collecting.number),
    })
}

/// The head of a group that has branches.
pub(super) fn demls_head<V: ForkView>(draft: &Draft<'_, V>) -> Result<Head, Rejection> {
    match draft.head {
        None => Err(Rejection::GroupNotFound),
        Some(head) if head.kind != GroupKind::Demls => Err(Rejection::WrongKind { got: head.kind }),
        Some(head) => Ok(head),
    }
}

struct New<'r> {
    /// Position in the report.
    index: usize,
    id: EntryId,
    entry: &'r BranchEntry,
    place: Place,
}

impl Place {
    /// The entry here as one that is dead.
    pub(super) fn loser<'e>(&self, id: EntryId, entry: &'e BranchEntry) -> Loser<'e> {
        let Place { anchor_epoch, dead_since, epoch, .. } = *self;
        let is_state = entry.is_commit();
        let (epoch, oldest) = (epoch + u64::from(is_state), dead_since.unwrap_or(u64::MAX));
        let dead = Dead { seq: 0, late: false, oldest, anchor_epoch, epoch, is_state };
        Loser { id, parent: entry.parent, dead, facts: &entry.facts }
    }
}

/// Finds the place of every entry that is not known yet, or why the report can not be.
fn place_all<'r, V: ForkView>(
    draft: &Draft<'_, V>,
    entries: &'r [BranchEntry],
) -> Read<Result<Vec<New<'r>>, Rejection>, V> {
    if entries.len() > MAX_REPORT_ENTRIES {
        let (limit, got) = (MAX_REPORT_ENTRIES as u64, entries.len() as u64);
        return Ok(Err(Rejection::TooMany { limit, got }));
    }
    let mut places: BTreeMap<EntryId, (Place, bool)> = BTreeMap::new();
    let mut new = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let id = entry.id();
        let known = draft.recorded(&id)?.is_some() || draft.candidate(&id)?.is_some();
        if known || places.contains_key(&id) {
            continue;
        }
        if let Err(refusal) = validate_branch_content(&entry.content, &entry.facts) {
            return Ok(Err(Rejection::Impossible { entry: id, refusal }));
        }
        let Some(place) = place(draft, entry, &places)? else {
            return Ok(Err(Rejection::Gap { entry: id, parent: entry.parent }));
        };
        places.insert(id, (place, entry.is_commit()));
        new.push(New { index, id, entry, place });
    }
    Ok(Ok(new))
}

pub(super) fn place<V: ForkView>(
    draft: &Draft<'_, V>,
    entry: &BranchEntry,
    reported: &BTreeMap<EntryId, (Place, bool)>,
) -> Read<Option<Place>, V> {
    let parent = EntryId::from(entry.parent);
    if let Some((place, true)) = reported.get(&parent) {
        return Ok(Some(Place { epoch: place.epoch + 1, on_canonical: false, ..*place }));
    }
    if let Some(candidate) = draft.candidate(&parent)? {
        let anchor_epoch = draft.head.map_or(0, |head| head.epoch);
        let is_commit = candidate.kind == EntryKind::Commit;
        let place = Place { anchor_epoch, dead_since: None, epoch: candidate.epoch + 1, on_canonical: false };
        return Ok(is_commit.then_some(place));
    }
    Ok(match draft.recorded(&parent)? {
        Some(Recorded::Canonical { epoch, is_state: true, .. }) => {
            Some(Place { anchor_epoch: epoch, dead_since: None, epoch, on_canonical: true })
        }
        Some(Recorded::Dead(dead)) if dead.is_state => Some(Place {
            anchor_epoch: dead.anchor_epoch,
            dead_since: Some(dead.oldest),
            epoch: dead.epoch,
            on_canonical: false,
        }),
        _ => None,
    })
}

fn class<V: ForkView>(draft: &Draft<'_, V>, head: &Head, new: &New<'_>) -> Class {
    let Place { anchor_epoch, dead_since, on_canonical, .. } = new.place;
    let may_be_forgotten = dead_since.is_some_and(|seq| seq <= draft.fork.stable);
    if anchor_epoch < draft.fork.stable_epoch || may_be_forgotten {
        Class::Late
    } else if dead_since.is_some() {
        Class::Side
    } else if on_canonical && !new.entry.is_commit() {
        // It was acknowledged before, so nothing that is owed since can keep it out.
        Class::Message
    } else if anchor_epoch == head.epoch && !head.is_closed() {
        Class::Candidate
    } else {
        Class::Side
    }
}

fn record_late<V: ForkView>(draft: &mut Draft<'_, V>, late: &[New<'_>]) -> Read<(), V> {
    for chunk in late.chunks(MAX_MARK_IDS) {
        let Some(head) = draft.head else { return Ok(()) };
        let ids = chunk.iter().map(|new| new.id).collect();
        let seq = draft.append_mark(head, Mark::Late { ids })?;
        for New { id, entry, place, .. } in chunk {
            let dead = place.loser(*id, entry).dead;
            draft.bury(*id, &entry.parent, Dead { seq, late: true, ..dead })?;
        }
    }
    Ok(())
}

/// Opens a collection for the first candidates, and notes who has reported.
fn collect<V: ForkView>(draft: &mut Draft<'_, V>, report: &Report, new: Vec<New<'_>>) {
    if new.is_empty() && draft.fork.collecting.is_none() {
        return;
    }
    if draft.fork.collecting.is_none() {
        draft.fork.collections += 1;
    }
    let number = draft.fork.collections;
    let collecting =
        draft.fork.collecting.get_or_insert_with(|| Collecting { number, ..Collecting::default() });
    if report.complete {
        collecting.reported.insert(report.gateway);
    }
    for New { id, entry, place, .. } in new {
        let ordinal = collecting.candidates;
        collecting.candidates += 1;
        draft.change.candidates.push(Candidate {
            id,
            ordinal,
            kind: entry.content.kind(),
            parent: entry.parent,
            epoch: place.epoch,
            author: entry.author.clone(),
            facts: entry.facts.clone(),
        });
    }
}
