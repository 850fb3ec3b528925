//! One command's changes while they come about: later steps see what earlier ones did.

use crate::{
    content::{CommitRef, Content, EntryKind, Record},
    fork::{
        facts::{CommitFacts, LeafId},
        marks::Mark,
        obligations,
        state::{Candidate, Dead, ForkState, Recorded},
        view::{Appended, ForkChange, ForkView, Payload},
    },
    head::Head,
    ids::{ClientId, EntryId, StateId},
    limits::MAX_PENDING_MARKS,
    rules::{Change, Made, NewEntry, leaving_window},
    view::{ReadError, View},
};

pub(super) struct Draft<'a, V: ForkView> {
    view: &'a V,
    before: ForkState,
    pub(super) head: Option<Head>,
    pub(super) fork: ForkState,
    pub(super) change: ForkChange,
}

pub(super) type Read<T, V> = Result<T, ReadError<<V as View>::Error>>;

impl<'a, V: ForkView> Draft<'a, V> {
    pub(super) fn new(view: &'a V) -> Read<Self, V> {
        let (head, fork) = (view.head()?, view.fork()?);
        Ok(Draft { view, before: fork.clone(), head, fork, change: ForkChange::default() })
    }

    /// What to store, if anything changed.
    pub(super) fn finish(mut self) -> Option<ForkChange> {
        if self.fork != self.before {
            self.change.fork = Some(self.fork);
        }
        (self.change != ForkChange::default()).then_some(self.change)
    }

    pub(super) fn recorded(&self, id: &EntryId) -> Read<Option<Recorded>, V> {
        match self.change.recorded.get(id) {
            Some(recorded) => Ok(Some(*recorded)),
            None => Ok(self.view.recorded(id)?),
        }
    }

    /// The epoch of a canonical state.
    pub(super) fn canonical_epoch(&self, state: &StateId) -> Read<Option<u64>, V> {
        Ok(match self.recorded(&(*state).into())? {
            Some(Recorded::Canonical { epoch, is_state: true, .. }) => Some(epoch),
            _ => None,
        })
    }

    /// An entry that waits for the close, as the collection was before this command.
    pub(super) fn candidate(&self, id: &EntryId) -> Read<Option<Candidate>, V> {
        if self.before.collecting.is_some() { Ok(self.view.candidate(id)?) } else { Ok(None) }
    }

    pub(super) fn candidates(&self) -> Read<Vec<Candidate>, V> {
        Ok(self.view.candidates()?)
    }

    pub(super) fn candidate_content(&self, id: &EntryId) -> Read<Content, V> {
        self.view.candidate_content(id)?.ok_or(ReadError::Missing { what: "the payload of a reported entry" })
    }

    pub(super) fn is_member(&self, leaf: &LeafId) -> Read<bool, V> {
        match self.change.members.get(leaf) {
            Some(is_member) => Ok(*is_member),
            None => Ok(self.view.is_member(leaf)?),
        }
    }

    /// Takes over an entry that the ordered rules accepted.
    pub(super) fn take(&mut self, change: Change, facts: &CommitFacts, payload: Payload) -> Read<(), V> {
        let Change { seq, ref record, .. } = change;
        self.head = Some(change.head);
        match record.kind {
            EntryKind::Create => {
                let created = Recorded::Canonical { seq, epoch: record.epoch_after, is_state: true };
                self.change.recorded.insert(record.state_id.into(), created);
                (self.fork.stable, self.fork.stable_epoch) = (seq, record.epoch_after);
                self.change_members(facts)?;
            }
            EntryKind::Commit => {
                let committed = Recorded::Canonical { seq, epoch: record.epoch_after, is_state: true };
                self.change.recorded.insert(record.id, committed);
                self.change_members(facts)?;
                obligations::settle(&mut self.fork, facts);
            }
            EntryKind::Proposal | EntryKind::Application => {
                self.change
                    .recorded
                    .insert(record.id, Recorded::Canonical { seq, epoch: record.epoch, is_state: false });
            }
            EntryKind::PolicyChange | EntryKind::Close => {}
            EntryKind::Side | EntryKind::Late | EntryKind::Stable => {}
        }
        self.change.appended.push(Appended { change, payload });
        Ok(())
    }

    /// Appends a commit, a proposal or an application message.
    pub(super) fn append(
        &mut self,
        id: EntryId,
        state_id: StateId,
        made: &Made<'_>,
        facts: &CommitFacts,
        payload: Payload,
    ) -> Read<Record, V> {
        let new = NewEntry { head: self.head, id, state_id };
        // Every entry of a DeMLS group is recorded for good: the window of recent ids has nothing to add.
        let change = Change { recent_put: None, ..new.change(self, made)? };
        let record = change.record.clone();
        self.take(change, facts, payload)?;
        Ok(record)
    }

    /// Appends an entry of the cluster's own. Returns its number.
    pub(super) fn append_mark(&mut self, head: Head, mark: Mark) -> Read<u64, V> {
        let seq = head.seq + 1;
        let Head { epoch, state_id, .. } = head;
        let chain = mark.chain_hash(&head.chain, seq, epoch, &state_id);
        let record = Record {
            id: mark.id(seq),
            kind: mark.kind(),
            epoch,
            state_id,
            chain,
            author: None,
            epoch_after: epoch,
            state_after: state_id,
        };
        let change = Change {
            head: Head { seq, chain, ..head },
            seq,
            record,
            commit_ending: None,
            recent_put: None,
            recent_delete: leaving_window(self, seq)?,
            turn_order: None,
            welcomes: Vec::new(),
        };
        self.take(change, &CommitFacts::default(), Payload::Mark(mark))?;
        Ok(seq)
    }

    /// Notes that an entry is dead, in the entry `dead.seq`.
    pub(super) fn bury(&mut self, id: EntryId, parent: &StateId, dead: Dead) -> Read<(), V> {
        let since = match self.recorded(&(*parent).into())? {
            Some(Recorded::Dead(parent)) => parent.oldest,
            _ => dead.seq,
        };
        let dead = Dead { oldest: dead.oldest.min(dead.seq).min(since), ..dead };
        self.change.recorded.insert(id, Recorded::Dead(dead));
        self.fork.pending_marks.insert(dead.seq);
        // Forgetting one that is not the last only makes `Stable` come with a later one.
        if self.fork.pending_marks.len() > MAX_PENDING_MARKS {
            self.fork.pending_marks.pop_first();
        }
        Ok(())
    }

    /// The stable position has moved.
    pub(super) fn stand_at(&mut self, position: u64, epoch: u64) {
        (self.fork.stable, self.fork.stable_epoch) = (position, epoch);
        self.fork.pending_marks = self.fork.pending_marks.split_off(&(position + 1));
    }

    fn change_members(&mut self, facts: &CommitFacts) -> Read<(), V> {
        for leaf in &facts.removes {
            if self.is_member(leaf)? {
                self.change.members.insert(*leaf, false);
                self.fork.members = self.fork.members.saturating_sub(1);
            }
        }
        for leaf in &facts.adds {
            if !self.is_member(leaf)? {
                self.change.members.insert(*leaf, true);
                self.fork.members = self.fork.members.saturating_add(1);
            }
        }
        Ok(())
    }
}

impl<V: ForkView> View for Draft<'_, V> {
    type Error = V::Error;

    fn head(&self) -> Result<Option<Head>, V::Error> {
        Ok(self.head)
    }

    fn commit_ending(&self, epoch: u64) -> Result<Option<CommitRef>, V::Error> {
        let new = self.change.appended.iter().filter_map(|appended| appended.change.commit_ending);
        match new.into_iter().find(|(ended, _)| *ended == epoch) {
            Some((_, commit)) => Ok(Some(commit)),
            None => self.view.commit_ending(epoch),
        }
    }

    fn recent(&self, id: &EntryId) -> Result<Option<u64>, V::Error> {
        self.view.recent(id)
    }

    fn turn_holder(&self, _: u32) -> Result<Option<ClientId>, V::Error> {
        // Groups that may be split take no turns.
        Ok(None)
    }

    fn record(&self, seq: u64) -> Result<Option<Record>, V::Error> {
        let first_new = self.change.appended.first().map_or(u64::MAX, |appended| appended.change.seq);
        let new = seq.checked_sub(first_new).and_then(|index| self.change.appended.get(index as usize));
        match new {
            Some(appended) => Ok(Some(appended.change.record.clone())),
            None => self.view.record(seq),
        }
    }
}
