//! What is where, in memory: the marks of every shard, and which segment holds which of its rows. Pure. It grows with the number of
//! segments, not with that of rows.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    block::Effect,
    content::Content,
    format::{Marks, Record, Slot},
    index::Lists,
};
use crate::raft::types::ShardId;

/// All segments and what they hold.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    shards: BTreeMap<ShardId, Shard>,
    closed: BTreeMap<u64, Closed>,
    /// Number of the segment that is written to.
    pub(super) active: u64,
    /// Its rows.
    pub(super) content: Content,
    /// Segments in which something died since they were last looked at.
    pub(super) dirty: BTreeSet<u64>,
}

#[derive(Debug, Default)]
struct Shard {
    marks: Marks,
    /// By the index of their first row.
    extents: BTreeMap<u64, Extent>,
}

/// Rows of one shard that lie in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// Index behind the last row.
    pub(super) end: u64,
    pub(super) segment: u64,
    /// First index of the run in the segment that the rows belong to.
    pub(super) run: u64,
    /// Where in the index file the slots of that run begin. Means nothing for the active segment.
    pub(super) table: u64,
}

impl Extent {
    /// Where in the index file the slot of a row is.
    pub(super) fn slot_at(&self, index: u64) -> u64 {
        self.table + (index - self.run) * Slot::ENCODED_BYTES as u64
    }
}

/// A segment that is written no more.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Closed {
    bytes: u64,
    spans: Vec<Span>,
}

/// What a segment means for one shard, whatever became of its rows since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    shard: ShardId,
    cut: Option<u64>,
    /// Index behind its last row.
    end: u64,
}

impl Catalog {
    /// Nothing yet, and the number of the segment that is written to.
    pub(super) fn new(active: u64) -> Self {
        Catalog { active, ..Catalog::default() }
    }

    pub(super) fn set_marks(&mut self, marks: BTreeMap<ShardId, Marks>) {
        for (shard, marks) in marks {
            self.shards.entry(shard).or_default().marks = marks;
        }
    }

    /// The marks of every shard.
    pub(super) fn all_marks(&self) -> BTreeMap<ShardId, Marks> {
        self.shards.iter().map(|(shard, of)| (*shard, of.marks)).collect()
    }

    pub(super) fn marks(&self, shard: ShardId) -> Marks {
        self.shards.get(&shard).map(|of| of.marks).unwrap_or_default()
    }

    /// The extents of a shard, with their first indexes.
    pub(super) fn extents(&self, shard: ShardId) -> impl DoubleEndedIterator<Item = (u64, Extent)> {
        let of = self.shards.get(&shard);
        of.into_iter().flat_map(|of| &of.extents).map(|(first, extent)| (*first, *extent))
    }

    /// The extent that holds a row.
    pub(super) fn find(&self, shard: ShardId, index: u64) -> Option<Extent> {
        let (_, extent) = self.shards.get(&shard)?.extents.range(..=index).next_back()?;
        (index < extent.end).then_some(*extent)
    }

    /// The extents that lie in one segment.
    pub(super) fn extents_in(&self, segment: u64) -> Vec<(ShardId, u64, Extent)> {
        let of_shard = |(shard, of): (&ShardId, &Shard)| {
            let shard = *shard;
            let extents: Vec<_> = of.extents.iter().map(|(first, extent)| (shard, *first, *extent)).collect();
            extents
        };
        let all = self.shards.iter().flat_map(of_shard);
        all.filter(|(_, _, extent)| extent.segment == segment).collect()
    }

    /// A record of the active segment takes effect.
    pub(super) fn apply(&mut self, effect: Effect) {
        let Effect { shard, record, slot } = effect;
        match record {
            Record::Entry { index } => {
                let run = self.content.append(shard, index, slot);
                let active = self.active;
                let goes_on = |last: &Extent| last.end == index && last.segment == active && last.run == run;
                let extents = &mut self.shards.entry(shard).or_default().extents;
                if let Some(mut last) = extents.last_entry()
                    && goes_on(last.get())
                {
                    last.get_mut().end += 1;
                    return;
                }
                self.cut(shard, index);
                let extent = Extent { end: index + 1, segment: active, run, table: 0 };
                self.shards.entry(shard).or_default().extents.insert(index, extent);
            }
            Record::Truncate { from } => {
                self.content.truncate(shard, from);
                self.cut(shard, from);
            }
            Record::Vote(vote) => self.marks_of(shard).vote = Some(vote),
            Record::Committed(log_id) => self.marks_of(shard).committed = Some(log_id),
            Record::Purged(log_id) => self.marks_of(shard).purged = Some(log_id),
            Record::Forgotten { upto } => {
                let forgotten = &mut self.marks_of(shard).forgotten;
                *forgotten = (*forgotten).max(Some(upto));
            }
            Record::Generation(generation) => self.marks_of(shard).generation = generation,
        }
    }

    fn marks_of(&mut self, shard: ShardId) -> &mut Marks {
        &mut self.shards.entry(shard).or_default().marks
    }

    /// Rows from an index on are gone.
    fn cut(&mut self, shard: ShardId, from: u64) {
        let extents = &mut self.shards.entry(shard).or_default().extents;
        while let Some(mut last) = extents.last_entry().filter(|last| last.get().end > from) {
            self.dirty.insert(last.get().segment);
            if *last.key() >= from {
                last.remove();
            } else {
                last.get_mut().end = from;
            }
        }
    }

    /// Lets go of the rows that nothing refers to because all of their shard up to some index were forgotten.
    pub(super) fn drop_forgotten(&mut self) {
        for of in self.shards.values_mut() {
            let Some(upto) = of.marks.forgotten else { continue };
            while let Some(first) = of.extents.first_entry().filter(|first| *first.key() <= upto) {
                self.dirty.insert(first.get().segment);
                let extent = first.remove();
                if extent.end > upto + 1 {
                    of.extents.insert(upto + 1, extent);
                }
            }
        }
    }

    /// A closed segment, in the order of their numbers.
    pub(super) fn add_closed(&mut self, segment: u64, lists: &Lists) {
        for list in &lists.shards {
            if let Some(cut) = list.cut {
                self.cut(list.shard, cut);
            }
            self.insert_runs(segment, lists, list.shard);
        }
        self.set_closed(segment, lists);
    }

    /// The active segment is written no more, and `next` is begun.
    pub(super) fn close_active(&mut self, lists: &Lists, next: u64) {
        let (closed, mut rows) = (self.active, false);
        for list in &lists.shards {
            let Some(of) = self.shards.get_mut(&list.shard) else { continue };
            for extent in of.extents.values_mut().filter(|extent| extent.segment == closed) {
                rows = true;
                if let Some(run) = list.runs.iter().find(|run| run.first == extent.run) {
                    extent.table = run.table;
                }
            }
        }
        if !rows {
            self.dirty.insert(closed);
        }
        self.set_closed(closed, lists);
        self.active = next;
        self.content = Content::default();
    }

    /// A closed segment was rewritten.
    pub(super) fn replace_closed(&mut self, segment: u64, lists: &Lists) {
        for of in self.shards.values_mut() {
            of.extents.retain(|_, extent| extent.segment != segment);
        }
        for list in &lists.shards {
            self.insert_runs(segment, lists, list.shard);
        }
        self.set_closed(segment, lists);
    }

    fn insert_runs(&mut self, segment: u64, lists: &Lists, shard: ShardId) {
        let extents = &mut self.shards.entry(shard).or_default().extents;
        for run in lists.shards.iter().filter(|list| list.shard == shard).flat_map(|list| &list.runs) {
            let end = run.first + u64::from(run.slots);
            extents.insert(run.first, Extent { end, segment, run: run.first, table: run.table });
        }
    }

    fn set_closed(&mut self, segment: u64, lists: &Lists) {
        let end =
            |list: &super::index::List| list.runs.last().map_or(0, |run| run.first + u64::from(run.slots));
        let spans = lists.shards.iter().map(|list| Span { shard: list.shard, cut: list.cut, end: end(list) });
        self.closed.insert(segment, Closed { bytes: lists.segment_bytes, spans: spans.collect() });
    }

    /// A closed segment is deleted, with what is left of its rows.
    pub(super) fn remove_closed(&mut self, segment: u64) {
        for of in self.shards.values_mut() {
            of.extents.retain(|_, extent| extent.segment != segment);
        }
        self.closed.remove(&segment);
    }

    /// Bytes of a closed segment.
    pub(super) fn closed_bytes(&self, segment: u64) -> Option<u64> {
        self.closed.get(&segment).map(|closed| closed.bytes)
    }

    /// Closed segments with the number of their rows.
    pub(super) fn rows_by_segment(&self) -> BTreeMap<u64, u64> {
        let mut rows: BTreeMap<u64, u64> = self.closed.keys().map(|segment| (*segment, 0)).collect();
        for (first, extent) in self.shards.values().flat_map(|of| &of.extents) {
            if let Some(rows) = rows.get_mut(&extent.segment) {
                *rows += extent.end - first;
            }
        }
        rows
    }

    /// Bytes of all closed segments.
    pub(super) fn closed_total(&self) -> u64 {
        self.closed.values().map(|closed| closed.bytes).sum()
    }

    /// Where a segment cuts rows that older segments still hold on the disk: without it they would come back.
    pub(super) fn needed_cuts(&self, segment: u64) -> Vec<(ShardId, u64)> {
        let Some(closed) = self.closed.get(&segment) else { return Vec::new() };
        let cuts = closed.spans.iter().filter_map(|span| Some((span.shard, span.cut?)));
        let held = |shard: ShardId, cut: u64| {
            let older = self.closed.range(..segment).flat_map(|(_, older)| &older.spans);
            older.clone().any(|span| span.shard == shard && span.end > cut)
        };
        cuts.filter(|(shard, cut)| held(*shard, *cut)).collect()
    }

    /// The first index of the last rows of a shard behind what is purged among which none is missing, and the index behind them.
    pub(super) fn tail(&self, shard: ShardId) -> Option<(u64, u64)> {
        let begin = self.marks(shard).purged.map_or(0, |purged| purged.index + 1);
        let mut extents = self.extents(shard).rev().filter(|(_, extent)| extent.end > begin);
        let (mut first, last) = extents.next()?;
        for (earlier, extent) in extents {
            if extent.end != first {
                break;
            }
            first = earlier;
        }
        Some((first.max(begin), last.end))
    }
}
