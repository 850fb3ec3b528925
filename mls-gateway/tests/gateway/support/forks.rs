//! The DeMLS groups of the fake cluster: the real rules, in memory.

use std::collections::BTreeMap;

use bytes::Bytes;
use concordat_proto::{
    convert::{self, GroupCommand},
    log::v1 as log,
    ordering::v1::outcome::Outcome,
};
use group_log::{
    Content, Decision, EntryId, GroupKind,
    fork::{Answer, BranchEntry, Close, Command, CommitFacts, Item, MemoryFork},
};

#[derive(Default)]
pub struct Forks {
    pub groups: BTreeMap<Bytes, Group>,
    /// Collections are not closed.
    pub keep_open: bool,
}

#[derive(Default)]
pub struct Group {
    pub fork: MemoryFork,
    /// Of every commit and the create, by id.
    facts: BTreeMap<EntryId, CommitFacts>,
}

impl Forks {
    /// The command is for a DeMLS group, or begins one.
    pub fn concerns(&self, command: &GroupCommand) -> bool {
        let begins = matches!(&command.command, Command::Submit { submission, .. }
            if matches!(&submission.content, Content::Create(create) if create.kind == GroupKind::Demls));
        begins || self.groups.contains_key(&command.group_id.to_bytes())
    }

    pub fn apply(&mut self, GroupCommand { group_id, command }: GroupCommand) -> Outcome {
        let group = self.groups.entry(group_id.to_bytes()).or_default();
        if let Command::Submit { submission, facts } = &command {
            let state = submission.parent_state_id.unwrap_or_else(|| match &submission.content {
                Content::Create(c) => {
                    group_log::hash::create_state_id(&group_id, submission.epoch, &c.group_info)
                }
                _ => group_log::StateId([0; 32]),
            });
            group.facts.insert(group_log::hash::entry_id(&state, &submission.content), facts.clone());
        }
        let answer = group.fork.apply(&command);
        if !self.keep_open {
            group.close();
        }
        match answer {
            Answer::Decided(Decision::Superseded { winner_seq }) => {
                Outcome::Superseded(log::Superseded { winner: group.entry(winner_seq) })
            }
            answer => answer.into(),
        }
    }
}

impl Group {
    /// Ends a collection once every registered gateway has reported.
    fn close(&mut self) {
        let state = self.fork.state();
        let all: Vec<_> = state.gateways.keys().copied().collect();
        if let Some(collecting) = &state.collecting
            && state.ready_to_close(all.iter())
        {
            let close = Close { collection: collecting.number, nonce: [7; 32] };
            self.fork.apply(&Command::Close(close));
        }
    }

    /// As gateways see it.
    pub fn entry(&self, seq: u64) -> Option<log::Entry> {
        let (_, record, _) = self.fork.items(seq).next().filter(|(found, ..)| *found == seq)?;
        let facts = match self.fork.reported(&record.id) {
            Some(entry) => entry.facts.clone(),
            None => self.facts.get(&record.id).cloned().unwrap_or_default(),
        };
        self.fork.log_entry(seq, facts).map(Into::into)
    }

    pub fn entries(&self, after: u64, max: usize) -> Vec<log::Entry> {
        self.fork.items(after + 1).take(max).filter_map(|(seq, ..)| self.entry(seq)).collect()
    }

    pub fn items(&self) -> Vec<Item> {
        self.fork.items(1).map(|(.., item)| item.clone()).collect()
    }

    /// Of what clients submitted, in the order of the log. Marks of the cluster may stand between.
    pub fn facts(&self) -> Vec<CommitFacts> {
        let submitted = self.fork.items(1).filter(|(.., item)| matches!(item, Item::Content(_)));
        let entries = submitted.filter_map(|(seq, ..)| self.entry(seq));
        entries.map(|entry| convert::facts_in(entry.facts.as_ref()).unwrap()).collect()
    }

    pub fn bodies(&self, ids: &[Bytes]) -> Vec<log::BranchEntry> {
        let ids = ids.iter().map(|id| convert::entry_id("ids", id).unwrap());
        ids.filter_map(|id| self.fork.reported(&id)).map(|body: &BranchEntry| body.clone().into()).collect()
    }
}
