//! A gateway's own copy of the canonical log. Every entry is checked against what it must follow from; nothing is taken on trust but
//! the facts about members, which a gateway derives itself.

use std::collections::BTreeMap;

use crate::{
    chain::ChainError,
    content::{Entry, EntryKind, GroupKind, Submission},
    fork::{
        close::{Loser, put_aside},
        draft::{Draft, Read},
        facts::CommitFacts,
        marks::{Item, Mark},
        report::{Place, place},
        state::{BranchEntry, Dead},
        view::{ForkChange, ForkView, Payload},
    },
    hash::entry_id,
    head::Head,
    ids::{ChainHash, ClientId, EntryId, GroupId, StateId},
    refusal::Refusal,
    rules::{Decision, Made, apply},
    turns::Offer,
};

/// One entry of a group's canonical log, whoever wrote it, with what is needed to follow it by the rules. For a reader that only
/// checks hashes `facts` and `bodies` may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its number.
    pub seq: u64,
    /// Hash over the log up to and including this entry.
    pub chain: ChainHash,
    /// The epoch it was made in.
    pub epoch: u64,
    /// For a commit (and the create) the state it leads to, else the state it was made in.
    pub state_id: StateId,
    /// Who submitted it; nobody for a mark.
    pub author: Option<ClientId>,
    /// What it carries.
    pub item: Item,
    /// For a commit or a create, what it does to the membership.
    pub facts: CommitFacts,
    /// The entries that a Side or Late mark names, in its order.
    pub bodies: Vec<BranchEntry>,
}

impl LogEntry {
    /// What the cluster wrote, if it did.
    pub fn mark(&self) -> Option<&Mark> {
        match &self.item {
            Item::Mark(mark) => Some(mark),
            Item::Content(_) => None,
        }
    }

    /// The entry as a client submitted it, or nothing if the cluster wrote it.
    pub fn into_entry(self) -> Option<Entry> {
        let LogEntry { seq, chain, epoch, state_id, author, item, .. } = self;
        match item {
            Item::Content(content) => Some(Entry { seq, chain, epoch, state_id, author, content }),
            Item::Mark(_) => None,
        }
    }
}

/// An entry does not follow from the log before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FollowError {
    /// A number, an epoch, a state or a hash does not fit.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The rules would not have accepted it.
    #[error("entry {seq} can not be in this log: {refusal}")]
    Refused {
        /// The entry.
        seq: u64,
        /// Why.
        refusal: Refusal,
    },
    /// A mark came without the entries that it names, or with others.
    #[error("entry {seq} names {id}, which did not come with it: ask for the entries of this mark again")]
    MissingBody {
        /// The mark.
        seq: u64,
        /// The entry it names.
        id: EntryId,
    },
    /// A mark names an entry that follows from nothing known.
    #[error("entry {seq} names {id}, which follows from no known state: do not trust this log")]
    Gap {
        /// The mark.
        seq: u64,
        /// The entry it names.
        id: EntryId,
    },
    /// The group has no branches, or the log does not begin with a create.
    #[error("entry {seq} can not be followed here: only DeMLS groups, from their create on")]
    WrongKind {
        /// The entry.
        seq: u64,
    },
}

/// Takes in the next entry of the canonical log. Gives what to store, or why the entry does not fit.
///
/// What is owed is computed here too; as it is part of the hash, a cluster that computes otherwise is noticed.
pub fn follow<V: ForkView>(
    view: &V,
    group_id: &GroupId,
    entry: &LogEntry,
) -> Read<Result<ForkChange, FollowError>, V> {
    let mut draft = Draft::new(view)?;
    if let Err(error) = step(&mut draft, group_id, entry)? {
        return Ok(Err(error));
    }
    Ok(check(&draft, entry).map(|()| draft.finish().unwrap_or_default()))
}

fn step<V: ForkView>(
    draft: &mut Draft<'_, V>,
    group_id: &GroupId,
    entry: &LogEntry,
) -> Read<Result<(), FollowError>, V> {
    let LogEntry { seq, epoch, state_id, ref author, ref item, ref facts, .. } = *entry;
    let head = match (draft.head, item) {
        (Some(head), _) if head.kind == GroupKind::Demls => Some(head),
        (None, Item::Content(content)) if content.kind() == EntryKind::Create => None,
        _ => return Ok(Err(FollowError::WrongKind { seq })),
    };
    let content = match (item, head) {
        (Item::Content(content), _) => content,
        (Item::Mark(mark), Some(head)) => return follow_mark(draft, head, entry, mark),
        (Item::Mark(_), None) => return Ok(Err(FollowError::WrongKind { seq })),
    };
    let made = Made { epoch, author: author.as_ref(), content, offer: Offer::default() };
    match (content.kind(), head) {
        (EntryKind::Commit, Some(head)) => {
            let id = entry_id(&head.state_id, content);
            if epoch != head.epoch {
                return Ok(Err(ChainError::Epoch { seq, expected: head.epoch, got: epoch }.into()));
            }
            draft.append(id, id.as_state(), &made, facts, Payload::Submission)?;
        }
        (EntryKind::Proposal | EntryKind::Application, Some(head)) => {
            if draft.canonical_epoch(&state_id)? != Some(epoch) {
                let expected = head.state_id;
                return Ok(Err(ChainError::State { seq, expected, got: state_id }.into()));
            }
            draft.append(entry_id(&state_id, content), state_id, &made, facts, Payload::Submission)?;
        }
        _ => {
            let Some(author) = author.clone() else {
                return Ok(Err(FollowError::WrongKind { seq }));
            };
            let content = content.clone();
            let group_id = group_id.clone();
            let submission = Submission { group_id, author, epoch, parent_state_id: None, content };
            match apply(draft, &submission, Offer::default())? {
                (_, Some(change)) => draft.take(change, facts, Payload::Submission)?,
                (Decision::Refused(refusal), None) => {
                    return Ok(Err(FollowError::Refused { seq, refusal }));
                }
                (_, None) => {
                    let expected = draft.head.map_or(1, |head| head.seq.saturating_add(1));
                    return Ok(Err(ChainError::Seq { expected, got: seq }.into()));
                }
            }
        }
    }
    Ok(Ok(()))
}

fn follow_mark<V: ForkView>(
    draft: &mut Draft<'_, V>,
    head: Head,
    entry: &LogEntry,
    mark: &Mark,
) -> Read<Result<(), FollowError>, V> {
    let seq = entry.seq;
    match mark {
        Mark::Stable { position } => {
            if *position > head.seq {
                return Ok(Err(ChainError::Seq { expected: head.seq, got: *position }.into()));
            }
            let epoch = crate::rules::record(draft, *position)?.epoch_after;
            draft.append_mark(head, mark.clone())?;
            draft.stand_at(*position, epoch);
        }
        Mark::Side { ids, .. } | Mark::Late { ids } => {
            let mut placed = Vec::new();
            let mut places: BTreeMap<EntryId, (Place, bool)> = BTreeMap::new();
            for (index, id) in ids.iter().enumerate() {
                let Some(body) = entry.bodies.get(index).filter(|body| body.id() == *id) else {
                    return Ok(Err(FollowError::MissingBody { seq, id: *id }));
                };
                let Some(found) = place(draft, body, &places)? else {
                    return Ok(Err(FollowError::Gap { seq, id: *id }));
                };
                places.insert(*id, (found, body.is_commit()));
                placed.push(found.loser(*id, body));
            }
            if matches!(mark, Mark::Side { .. }) {
                put_aside(draft, &placed)?;
            } else {
                draft.append_mark(head, mark.clone())?;
                for Loser { id, parent, dead, .. } in placed {
                    draft.bury(id, &parent, Dead { seq, late: true, ..dead })?;
                }
            }
        }
    }
    Ok(Ok(()))
}

/// What was computed is what the entry states.
fn check<V: ForkView>(draft: &Draft<'_, V>, entry: &LogEntry) -> Result<(), FollowError> {
    let LogEntry { seq, chain, state_id, .. } = *entry;
    let Some(appended) = draft.change.appended.first() else { return Err(FollowError::WrongKind { seq }) };
    let record = &appended.change.record;
    if appended.change.seq != seq || draft.change.appended.len() > 1 {
        return Err(ChainError::Seq { expected: appended.change.seq, got: seq }.into());
    }
    if record.state_id != state_id {
        return Err(ChainError::State { seq, expected: record.state_id, got: state_id }.into());
    }
    if record.chain != chain {
        return Err(ChainError::Chain { seq, expected: record.chain, got: chain }.into());
    }
    Ok(())
}
