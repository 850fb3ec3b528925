//! Which rows one segment holds, and where. Pure.

use std::collections::BTreeMap;

use super::format::Slot;
use crate::{raft::types::ShardId, storage::limits::HOLES_IN_A_ROW};

/// The rows of one segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) shards: BTreeMap<ShardId, Rows>,
    /// Gaps are rows that were dropped, and not worth a run of their own.
    pub(super) rewritten: bool,
}

/// The rows of one shard in one segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rows {
    /// Rows of earlier segments from here on are replaced or truncated.
    pub(super) cut: Option<u64>,
    /// In order, without overlap.
    pub(super) runs: Vec<Run>,
}

/// Rows with contiguous indexes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) slots: Vec<Slot>,
}

impl Run {
    pub(super) fn end(&self) -> u64 {
        self.first + self.slots.len() as u64
    }
}

impl Content {
    pub(super) fn new(rewritten: bool) -> Self {
        Content { shards: BTreeMap::new(), rewritten }
    }

    /// A row is stored, and those behind it are replaced. Gives the first index of its run.
    pub(super) fn append(&mut self, shard: ShardId, index: u64, slot: Slot) -> u64 {
        let rewritten = self.rewritten;
        let rows = self.shards.entry(shard).or_default();
        if rows.runs.last().is_none_or(|last| last.end() != index) {
            rows.truncate(index);
        }
        match rows.runs.last_mut() {
            Some(last) if last.end() == index => last.slots.push(slot),
            Some(last) if rewritten && index - last.end() <= HOLES_IN_A_ROW => {
                last.slots.resize((index - last.first) as usize, Slot::HOLE);
                last.slots.push(slot);
            }
            _ => rows.runs.push(Run { first: index, slots: vec![slot] }),
        }
        rows.runs.last().map_or(index, |last| last.first)
    }

    /// Rows from an index on are gone.
    pub(super) fn truncate(&mut self, shard: ShardId, from: u64) {
        self.shards.entry(shard).or_default().truncate(from);
    }

    /// The slot of a row in the run that begins at `first`.
    pub(super) fn slot(&self, shard: ShardId, first: u64, index: u64) -> Option<Slot> {
        let runs = &self.shards.get(&shard)?.runs;
        let run = &runs[runs.binary_search_by_key(&first, |run| run.first).ok()?];
        run.slots.get(usize::try_from(index.checked_sub(first)?).ok()?).copied()
    }
}

impl Rows {
    fn truncate(&mut self, from: u64) {
        self.cut = Some(self.cut.map_or(from, |cut| cut.min(from)));
        while let Some(last) = self.runs.last_mut().filter(|last| last.end() > from) {
            if last.first >= from {
                self.runs.pop();
            } else {
                last.slots.truncate((from - last.first) as usize);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(offset: u32) -> Slot {
        Slot { offset, bytes: 1, checksum: 1 }
    }

    #[test]
    fn rows_that_are_written_again_go_on_in_their_run() {
        let mut content = Content::new(false);
        for index in 5..9 {
            assert_eq!(content.append(1, index, slot(index as u32)), 5);
        }
        content.truncate(1, 7);
        assert_eq!(content.append(1, 7, slot(70)), 5);
        let rows = &content.shards[&1];
        assert_eq!((rows.cut, rows.runs.len(), rows.runs[0].end()), (Some(5), 1, 8));
        assert_eq!(content.slot(1, 5, 7), Some(slot(70)));
        assert_eq!(content.slot(1, 5, 8), None);
        content.truncate(1, 2);
        assert_eq!(content.shards[&1], Rows { cut: Some(2), runs: vec![] });
    }

    #[test]
    fn a_gap_is_a_new_run_unless_rows_were_dropped() {
        let (mut plain, mut rewritten) = (Content::new(false), Content::new(true));
        for content in [&mut plain, &mut rewritten] {
            content.append(1, 0, slot(1));
            content.append(1, 3, slot(2));
            content.append(1, 4 + HOLES_IN_A_ROW + 1, slot(3));
        }
        assert_eq!(plain.shards[&1].runs.len(), 3);
        let runs = &rewritten.shards[&1].runs;
        assert_eq!((runs.len(), runs[0].end()), (2, 4));
        assert!(runs[0].slots[1].is_hole() && runs[0].slots[2].is_hole());
        assert_eq!(rewritten.slot(1, 0, 3), Some(slot(2)));
    }
}
