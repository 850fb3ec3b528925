//! Commands to the cluster, and a follower that computes everything again.

use std::rc::Rc;

use group_log::{
    Content, Submission,
    fork::{Answer, Command, CommitFacts, Item, Mark, MemoryFork, Report},
};

use super::world::{Checked, Ent, It, Mask, World, bits, gateway_id, group_id};

impl World {
    /// Gives a command to the cluster, and checks everything that must hold about what it appends.
    pub fn command(&mut self, command: Command) -> Result<Answer, String> {
        let before = self.cluster.current().map_or(0, |head| head.seq);
        let answer = Rc::make_mut(&mut self.cluster).apply(&command);
        let after = self.cluster.current().map_or(0, |head| head.seq);
        for seq in before + 1..=after {
            self.follow(seq)?;
        }
        let follower = self.views.last().expect("the create is there");
        let (ours, theirs) = (self.cluster.state(), follower.state());
        let same = (&ours.owed, ours.members, ours.stable, ours.stable_epoch, &ours.pending_marks)
            == (&theirs.owed, theirs.members, theirs.stable, theirs.stable_epoch, &theirs.pending_marks);
        if !same
            || self.cluster.current() != follower.current()
            || self.cluster.members() != follower.members()
        {
            return Err(format!("FOLLOWER: the log says something else: {ours:?} {theirs:?}"));
        }
        if let Some(ent) =
            self.ents[1..].iter().find(|ent| self.cluster.verdict(&ent.id) != follower.verdict(&ent.id))
        {
            return Err(format!("FOLLOWER: another verdict about {:?}", ent.id));
        }
        Ok(answer)
    }

    pub(super) fn follow(&mut self, seq: u64) -> Checked {
        let (_, record, item) = self.cluster.items(seq).next().expect("it was just appended");
        let id = record.id;
        let item = match item {
            Item::Content(Content::Create(_)) => None,
            Item::Content(Content::Commit(_)) => Some(It::Commit(self.index_of(&id) as u8)),
            Item::Content(_) => Some(It::App(self.index_of(&id) as u8)),
            Item::Mark(Mark::Side { ids, .. }) => Some(It::Side(self.mask_of(ids))),
            Item::Mark(Mark::Late { ids }) => Some(It::Late(self.mask_of(ids))),
            Item::Mark(Mark::Stable { position }) => Some(It::Stable((*position - 1) as u8)),
        };
        let new: Mask = match item {
            Some(It::Commit(index) | It::App(index)) => 1 << index,
            Some(It::Side(ids) | It::Late(ids)) => ids,
            _ => 0,
        };
        if new & self.recorded() != 0 {
            return Err(format!("TWICE: {:b} is recorded again", new & self.recorded()));
        }
        if let Some(It::Commit(index)) = item
            && self.parent(index as usize) != self.head()
        {
            return Err(format!("ORDER: commit {index} does not follow head {}", self.head()));
        }
        let facts = match item {
            None => self.ents[0].entry.facts.clone(),
            Some(It::Commit(index)) => self.ents[index as usize].entry.facts.clone(),
            _ => CommitFacts::default(),
        };
        let entry = self.cluster.log_entry(seq, facts).expect("it was just appended");
        let mut view = self.views.last().map_or_else(MemoryFork::new, |view| (**view).clone());
        view.follow(&group_id(), &entry).map_err(|error| format!("FOLLOWER: {error}"))?;
        Rc::make_mut(&mut self.views).push(Rc::new(view));
        self.log.extend(item);
        Ok(())
    }

    pub fn submission(&self, index: usize) -> Command {
        let Ent { parent, entry, .. } = &self.ents[index];
        let submission = Submission {
            group_id: group_id(),
            author: entry.author.clone(),
            epoch: self.epoch(*parent),
            parent_state_id: Some(entry.parent),
            content: entry.content.clone(),
        };
        Command::Submit { submission, facts: entry.facts.clone() }
    }

    pub fn report(&mut self, gateway: usize, entries: Mask) -> Checked {
        let entries = bits(entries).map(|index| (*self.ents[index].entry).clone()).collect();
        let report = Report { gateway: gateway_id(gateway), entries, complete: true };
        match self.command(Command::Report(report))? {
            Answer::Reported { .. } => Ok(()),
            other => Err(format!("REPORT: not taken in: {other:?}")),
        }
    }
}
