//! What must hold in the end, whatever happened.

use std::collections::BTreeSet;

use group_log::{
    Content, EntryId, GroupId, StateId,
    fork::{Item, LeafId, Mark, Recorded},
};

use super::Net;

/// A message that was accepted, on a branch or by the quorum, and what became of it.
#[derive(Debug, Clone)]
pub(crate) struct Accepted {
    pub(crate) id: EntryId,
    /// The members of the state that it was made in who are members in the end.
    pub(crate) entitled: Vec<Vec<u8>>,
    /// Number of the entry that has it, or says that it is on the side.
    pub(crate) seq: u64,
    pub(crate) side: bool,
}

impl Net {
    /// The log holds one commit for each epoch, each following the one before; everything that was accepted is in the log; nobody is
    /// there who was removed; nothing is owed or collected any more, and everybody has read everything. Returns the members.
    pub(crate) fn check(&self, id: &GroupId) -> Vec<Vec<u8>> {
        let world = self.lock();
        let group = &world.groups[id];
        let (mut head, mut epoch) = (None, 0);
        for (seq, record, item) in group.cluster.items(1) {
            match item {
                Item::Content(Content::Create(_)) => (head, epoch) = (Some(record.state_id), record.epoch),
                Item::Content(content @ Content::Commit(_)) => {
                    assert_eq!(record.epoch, epoch, "entry {seq}: two commits for one epoch");
                    let follows = group_log::hash::entry_id(&head.unwrap(), content);
                    assert_eq!(follows.as_state(), record.state_id, "entry {seq} does not follow");
                    (head, epoch) = (Some(record.state_id), epoch + 1);
                }
                _ => {}
            }
        }
        let head = head.unwrap();
        for accepted in group.accepted.keys() {
            // What a gateway accepted that was lost before it could say so was promised to nobody.
            let promised = world.lost.is_empty() || group.answered.contains(accepted);
            let recorded = group.cluster.verdict(accepted).is_some();
            assert!(recorded || !promised, "accepted, and nowhere: {accepted:?}");
        }
        let state = group.cluster.state();
        assert!(state.owed.is_empty(), "still owed: {:?}", state.owed);
        assert!(state.collecting.is_none());
        let last = group.cluster.items(1).filter(|(_, _, item)| {
            matches!(
                item,
                Item::Content(Content::Commit(_)) | Item::Mark(Mark::Side { .. } | Mark::Late { .. })
            )
        });
        let last = last.last().map_or(0, |(seq, _, _)| seq);
        assert!(state.stable >= last, "stable stays at {} before {last}", state.stable);

        let present: BTreeSet<LeafId> = group.facts.leaves(&head);
        for (accepted, (_, is_commit)) in &group.accepted {
            let facts = group.facts.of.get(&accepted.as_state()).filter(|_| *is_commit);
            let Some(facts) = facts else { continue };
            let still = |leaf: &LeafId| present.contains(leaf);
            match group.cluster.verdict(accepted) {
                Some(Recorded::Canonical { .. }) => {
                    assert!(!facts.removes.iter().any(still), "somebody removed is there");
                }
                Some(Recorded::Dead(dead)) if !dead.late && facts.author.as_ref().is_some_and(still) => {
                    let back = facts.removes.iter().any(still) && present.len() > 1;
                    assert!(!back, "somebody removed on a branch is there");
                }
                _ => {}
            }
        }
        let mut members = group.facts.members(&head);
        members.sort();
        members
    }

    /// Messages that were accepted, except for those that came late.
    pub(crate) fn accepted_messages(&self, id: &GroupId) -> Vec<Accepted> {
        let world = self.lock();
        let group = &world.groups[id];
        let head: StateId = group.cluster.current().unwrap().state_id;
        let mut messages = Vec::new();
        for (accepted, (parent, is_commit)) in &group.accepted {
            let (seq, side) = match group.cluster.verdict(accepted) {
                Some(Recorded::Canonical { seq, .. }) => (seq, false),
                Some(Recorded::Dead(dead)) if !dead.late => (dead.seq, true),
                _ => continue,
            };
            let entitled = group.facts.remaining(parent, &head);
            if !is_commit && !group.is_proposal(accepted) {
                messages.push(Accepted { id: *accepted, entitled, seq, side });
            }
        }
        messages
    }

    /// What the log says about an entry: nothing, that it is canonical, or that it has lost.
    pub(crate) fn verdict(&self, id: &GroupId, entry: &EntryId) -> Option<bool> {
        match self.lock().groups[id].cluster.verdict(entry)? {
            Recorded::Canonical { .. } => Some(true),
            Recorded::Dead(_) => Some(false),
        }
    }

    /// How many entries of a kind the log has.
    pub(crate) fn marks(&self, id: &GroupId) -> (usize, usize, usize) {
        let world = self.lock();
        let mut count = (0, 0, 0);
        for (_, _, item) in world.groups[id].cluster.items(1) {
            match item {
                Item::Mark(Mark::Side { .. }) => count.0 += 1,
                Item::Mark(Mark::Late { .. }) => count.1 += 1,
                Item::Mark(Mark::Stable { .. }) => count.2 += 1,
                Item::Content(_) => {}
            }
        }
        count
    }
}

impl super::Group {
    fn is_proposal(&self, id: &EntryId) -> bool {
        let is = |content: &Content| matches!(content, Content::Proposal { .. });
        let on_branch = self.cluster.reported(id).is_some_and(|entry| is(&entry.content));
        on_branch
            || self
                .cluster
                .items(1)
                .any(|(_, record, item)| record.id == *id && matches!(item, Item::Content(c) if is(c)))
    }
}
