//! Retention: which entries at the beginning of a log are given up, and what is kept so that no promise is broken.
//!
//! A leader finds what is [due](Retention::due) by the time of day and proposes a number; [`prune`] decides from the replicated state
//! alone, so every replica gives up the same. What stays:
//!
//! - the entry with the newest GroupInfo and everything after it: whoever is told that its place is gone comes back from there by an
//!   external commit (RFC 9420 section 12.4.3.2). While that GroupInfo is behind the head, nothing is given up at all;
//! - which commit ended which epoch, forever, so the same commit again gets the same answer;
//! - records of the last [`DEDUPE_WINDOW`] entries and of the first, by which submissions are recognised when they come again;
//! - the chain hash of the last entry given up: what is left is checked against it;
//! - every log of a DeMLS group: a gateway that is to carry on without a quorum needs it from the beginning.

use std::ops::RangeInclusive;

use crate::{
    codec::{DecodeError, Reader, Writer},
    content::{GroupKind, Policy},
    head::Head,
    ids::ChainHash,
    limits::{DEDUPE_WINDOW, MAX_PRUNED_AT_ONCE, MAX_SEQ},
    rules::record,
    view::{ReadError, View},
};

const VERSION: u8 = 1;
const SEQ_BOUND: &str = "a number of at most 2^62";

/// How long the entries of each group are kept at least. What is set can only give up more, never what must stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// So many of a group's newest entries are kept; None for all.
    pub max_entries: Option<u64>,
    /// Entries are kept for so long, in milliseconds; None for ever.
    pub max_age_ms: Option<u64>,
}

/// What was given up of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pruned {
    /// The last entry whose content is gone, and that of all before it; 0 if nothing is.
    pub seq: u64,
    /// Its chain hash.
    pub chain: ChainHash,
    /// The last entry whose record is gone, too, and that of all before it but the first's.
    pub records: u64,
}

impl Default for Pruned {
    fn default() -> Self {
        Pruned { seq: 0, chain: ChainHash::START, records: 0 }
    }
}

/// What one step gives up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prune {
    /// Entries whose content goes. Never empty.
    pub contents: RangeInclusive<u64>,
    /// Entries whose record goes. May be empty.
    pub records: RangeInclusive<u64>,
    /// What is gone then.
    pub pruned: Pruned,
}

const HOUR_MS: u64 = 60 * 60 * 1000;

impl Retention {
    /// What is kept of a group with this policy: what it chooses, or this if it chooses nothing; but no more than `most`.
    pub fn of_group(&self, policy: &Policy, most: &Retention) -> Retention {
        let chosen = |own: u64| (own > 0).then_some(own);
        let bounded = |kept: Option<u64>, most: Option<u64>| kept.into_iter().chain(most).min();
        let own_age = chosen(policy.retain_hours.into()).map(|hours| hours.saturating_mul(HOUR_MS));
        Retention {
            max_entries: bounded(chosen(policy.retain_entries).or(self.max_entries), most.max_entries),
            max_age_ms: bounded(own_age.or(self.max_age_ms), most.max_age_ms),
        }
    }

    /// Nothing is ever given up.
    pub fn is_forever(&self) -> bool {
        self.max_entries.is_none() && self.max_age_ms.is_none()
    }

    /// The last entry to be given up now, if there is one. `made_at` says when an entry came into the log, in milliseconds since
    /// 1970; it is asked only for entries that are kept now, and only if there is a limit of age: about twenty times.
    pub fn due<E>(
        &self,
        head: &Head,
        pruned: &Pruned,
        now_ms: u64,
        mut made_at: impl FnMut(u64) -> Result<Option<u64>, E>,
    ) -> Result<Option<u64>, E> {
        let by_entries = self.max_entries.map_or(0, |kept| head.seq.saturating_sub(kept));
        let last = prunable(head);
        let mut due = by_entries.min(last);
        if let Some(max_age) = self.max_age_ms {
            // Entries lie in the order of their times, but for what the clocks of two leaders differ: a little early or late.
            let (mut old, mut young) = (due.max(pruned.seq), last.saturating_add(1));
            while old + 1 < young {
                let middle = old + (young - old) / 2;
                let is_old = made_at(middle)?.is_some_and(|at| at.saturating_add(max_age) <= now_ms);
                if is_old { old = middle } else { young = middle }
            }
            due = old;
        }
        Ok((due > pruned.seq).then_some(due))
    }
}

/// The last entry that may be given up.
pub fn prunable(head: &Head) -> u64 {
    let can_come_back = head.group_info_epoch == head.epoch;
    match head.kind {
        GroupKind::Mls if can_come_back => head.group_info_seq.saturating_sub(1),
        GroupKind::Mls | GroupKind::Demls | GroupKind::Dimls => 0,
    }
}

/// What is given up of the entries up to `upto`: at most [`MAX_PRUNED_AT_ONCE`] at once. Nothing if there is no such group, or nothing
/// that may go.
pub fn prune<V: View>(view: &V, upto: u64) -> Result<Option<Prune>, ReadError<V::Error>> {
    let Some(head) = view.head()? else { return Ok(None) };
    let before = view.pruned()?;
    let last = upto.min(prunable(&head)).min(before.seq.saturating_add(MAX_PRUNED_AT_ONCE));
    if last <= before.seq {
        return Ok(None);
    }
    let chain = record(view, last)?.chain;
    let outside_window = head.seq.saturating_sub(DEDUPE_WINDOW);
    let some = before.records.saturating_add(2 * MAX_PRUNED_AT_ONCE);
    let records = last.min(outside_window).min(some).max(before.records);
    Ok(Some(Prune {
        contents: before.seq + 1..=last,
        records: before.records.max(1) + 1..=records,
        pruned: Pruned { seq: last, chain, records },
    }))
}

impl Pruned {
    /// For storage. About 40 bytes.
    pub fn encode(&self) -> Vec<u8> {
        Writer::new(VERSION).int(self.seq).fixed(&self.chain.0).int(self.records).finish()
    }

    /// Reads [`Pruned::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Pruned, DecodeError> {
        let mut reader = Reader::new("what was pruned", VERSION, bytes)?;
        let seq = reader.int_to("seq", MAX_SEQ, SEQ_BOUND)?;
        let chain = ChainHash(reader.fixed("chain")?);
        let records = reader.int_to("records", MAX_SEQ, SEQ_BOUND)?;
        reader.finish("what was pruned")?;
        Ok(Pruned { seq, chain, records })
    }
}
