//! The end of a collection: the best path becomes canonical, everything else goes to the side.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    content::EntryKind,
    fork::{
        answer::Answer,
        draft::{Draft, Read},
        facts::{CommitFacts, LeafId},
        marks::Mark,
        obligations,
        rank::best_path,
        report::demls_head,
        state::{Candidate, Dead},
        view::{ForkView, Payload},
    },
    ids::{EntryId, StateId},
    limits::MAX_MARK_IDS,
    rules::Made,
    turns::Offer,
};

/// Proposed by the leader when every live registered gateway has reported, or the deadline has passed. Never put off again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// [`Collecting::number`](super::Collecting::number)
    pub collection: u64,
    /// Drawn at random by the leader at this moment, so that nobody could prepare for it.
    pub nonce: [u8; 32],
}

pub(super) fn close<V: ForkView>(draft: &mut Draft<'_, V>, close: &Close) -> Read<Answer, V> {
    let head = match demls_head(draft) {
        Ok(head) => head,
        Err(rejection) => return Ok(Answer::Rejected(rejection)),
    };
    if draft.fork.collecting.as_ref().is_none_or(|collecting| collecting.number != close.collection) {
        return Ok(Answer::NotOpen);
    }
    let candidates = draft.candidates()?;
    let members = members(draft, &candidates)?;
    let best = best_path(&candidates, &head.state_id, &members, &close.nonce, |first| {
        obligations::covers(&draft.fork, &first.facts)
    });
    draft.fork.collecting = None;
    draft.change.candidates_cleared = true;

    let path = best.map_or_else(Vec::new, |(path, _)| path);
    let adopted = adopt(draft, &candidates, &path)?;
    let losers = losers(&candidates, &adopted, head.epoch);
    put_aside(draft, &losers)?;
    Ok(Answer::Closed { adopted: adopted.len() as u64, sides: losers.len() as u64 })
}

fn members<V: ForkView>(draft: &Draft<'_, V>, candidates: &[Candidate]) -> Read<BTreeSet<LeafId>, V> {
    let mut members = BTreeSet::new();
    for author in candidates.iter().filter_map(|candidate| candidate.facts.author) {
        if draft.is_member(&author)? {
            members.insert(author);
        }
    }
    Ok(members)
}

/// Appends the path: each commit, then the messages made in the state it leads to. Returns what became canonical.
fn adopt<V: ForkView>(
    draft: &mut Draft<'_, V>,
    candidates: &[Candidate],
    path: &[usize],
) -> Read<BTreeSet<EntryId>, V> {
    let mut messages: BTreeMap<StateId, Vec<&Candidate>> = BTreeMap::new();
    for candidate in candidates.iter().filter(|candidate| candidate.kind != EntryKind::Commit) {
        messages.entry(candidate.parent).or_default().push(candidate);
    }
    let mut adopted = BTreeSet::new();
    for commit in path.iter().map(|index| &candidates[*index]) {
        let state = commit.id.as_state();
        adopt_one(draft, commit, state, &commit.facts)?;
        adopted.insert(commit.id);
        for message in messages.remove(&state).unwrap_or_default() {
            adopt_one(draft, message, state, &CommitFacts::default())?;
            adopted.insert(message.id);
        }
    }
    Ok(adopted)
}

fn adopt_one<V: ForkView>(
    draft: &mut Draft<'_, V>,
    candidate: &Candidate,
    state_id: StateId,
    facts: &CommitFacts,
) -> Read<(), V> {
    let content = draft.candidate_content(&candidate.id)?;
    let made = Made {
        epoch: candidate.epoch,
        author: Some(&candidate.author),
        content: &content,
        offer: Offer::default(),
    };
    draft.append(candidate.id, state_id, &made, facts, Payload::Reported(candidate.id))?;
    Ok(())
}

/// An entry that is put aside.
pub(super) struct Loser<'a> {
    pub(super) id: EntryId,
    pub(super) parent: StateId,
    /// But for `seq`, and for `oldest` as far as ancestors say.
    pub(super) dead: Dead,
    pub(super) facts: &'a CommitFacts,
}

/// Whatever was not adopted, with its nearest canonical ancestor: that may be a state that was adopted just now.
fn losers<'c>(candidates: &'c [Candidate], adopted: &BTreeSet<EntryId>, fork_epoch: u64) -> Vec<Loser<'c>> {
    let mut anchors: BTreeMap<EntryId, u64> = BTreeMap::new();
    let mut losers = Vec::new();
    for candidate in candidates.iter().filter(|candidate| !adopted.contains(&candidate.id)) {
        let Candidate { id, kind, parent, epoch, ref facts, .. } = *candidate;
        let parent_id = EntryId::from(parent);
        let anchor_epoch = match anchors.get(&parent_id) {
            Some(anchor_epoch) => *anchor_epoch,
            None if adopted.contains(&parent_id) => epoch,
            None => fork_epoch,
        };
        anchors.insert(id, anchor_epoch);
        let is_state = kind == EntryKind::Commit;
        let epoch = epoch + u64::from(is_state);
        let dead = Dead { seq: 0, late: false, oldest: u64::MAX, anchor_epoch, epoch, is_state };
        losers.push(Loser { id, parent, dead, facts });
    }
    losers
}

/// Records entries as readable, but lost, and what is owed because of them.
pub(super) fn put_aside<V: ForkView>(draft: &mut Draft<'_, V>, losers: &[Loser<'_>]) -> Read<(), V> {
    for chunk in losers.chunks(MAX_MARK_IDS) {
        for loser in chunk {
            obligations::add(draft, loser.facts)?;
        }
        let Some(head) = draft.head else { return Ok(()) };
        let ids = chunk.iter().map(|loser| loser.id).collect();
        let owed = draft.fork.owed.iter().copied().collect();
        let seq = draft.append_mark(head, Mark::Side { ids, owed })?;
        for Loser { id, parent, dead, .. } in chunk {
            draft.bury(*id, parent, Dead { seq, ..*dead })?;
        }
    }
    Ok(())
}
