//! The rules once more, as naively as possible: a plain list of what was accepted, scanned from its beginning for every question.
//! It shares no code with the crate. States are lists of what led to them, not hashes.

use std::collections::BTreeMap;

use group_log::{Content, StateId, Submission};

/// A state, written out: the create and every commit since.
pub type Path = Vec<Content>;

/// One group, as a list.
#[derive(Clone, Default)]
pub struct Oracle {
    pub accepted: Vec<Submission>,
}

/// What the oracle expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// In the log under this number, which may be an old one.
    Accepted {
        seq: u64,
        new: bool,
        epoch: u64,
        state: Path,
    },
    Superseded {
        winner_seq: u64,
    },
    Refused(&'static str),
}

impl Oracle {
    /// What must become of the submission. `names` says which written-out state a state id stands for.
    pub fn decide(&self, submission: &Submission, names: &BTreeMap<StateId, Path>) -> Expected {
        let is_create = matches!(submission.content, Content::Create(_));
        if self.accepted.is_empty() {
            let (epoch, state) = (submission.epoch, vec![submission.content.clone()]);
            return match is_create {
                true => Expected::Accepted { seq: 1, new: true, epoch, state },
                false => Expected::Refused("not found"),
            };
        }
        if is_create {
            let first = &self.accepted[0];
            return match first.content == submission.content && first.epoch == submission.epoch {
                true => self.found(0),
                false => Expected::Refused("exists"),
            };
        }

        let (epoch, state) = self.position(self.accepted.len());
        if submission.epoch > epoch {
            return Expected::Refused("ahead");
        }
        if submission.epoch < self.accepted[0].epoch {
            return Expected::Refused("too old");
        }
        let commits_since_create = (submission.epoch - self.accepted[0].epoch) as usize;
        let state_then: Path = state[..=commits_since_create].to_vec();
        let other_parent = submission.parent_state_id.is_some_and(|id| names.get(&id) != Some(&state_then));
        let same = self.accepted.iter().position(|old| {
            old.content == submission.content && self.state_made_in(old) == state_then && !other_parent
        });
        let closed = self.accepted.iter().any(|old| old.content == Content::Close);

        if matches!(submission.content, Content::Commit(_)) {
            if let Some(index) = same {
                return self.found(index);
            }
            if submission.epoch < epoch {
                let is_winner = |old: &Submission| {
                    matches!(old.content, Content::Commit(_)) && old.epoch == submission.epoch
                };
                let winner = self.accepted.iter().position(is_winner).unwrap();
                return Expected::Superseded { winner_seq: winner as u64 + 1 };
            }
            if closed {
                return Expected::Refused("closed");
            }
            if other_parent {
                return Expected::Refused("wrong state");
            }
            let state = [state, vec![submission.content.clone()]].concat();
            return Expected::Accepted { seq: self.next(), new: true, epoch: epoch + 1, state };
        }

        if other_parent {
            return Expected::Refused("wrong state");
        }
        if let Some(index) = same {
            return self.found(index);
        }
        if closed {
            return Expected::Refused("closed");
        }
        let behind = epoch - submission.epoch;
        let allowed = match submission.content {
            Content::Application { .. } => self.past_epochs(),
            _ => 0,
        };
        if behind > allowed {
            return Expected::Refused("too old");
        }
        Expected::Accepted { seq: self.next(), new: true, epoch, state }
    }

    fn next(&self) -> u64 {
        self.accepted.len() as u64 + 1
    }

    fn found(&self, index: usize) -> Expected {
        let (epoch, state) = self.position(index + 1);
        Expected::Accepted { seq: index as u64 + 1, new: false, epoch, state }
    }

    /// Epoch and state after the first `count` entries.
    fn position(&self, count: usize) -> (u64, Path) {
        let steps = self.accepted[..count].iter().map(|old| &old.content);
        let path: Path = steps
            .filter(|content| matches!(content, Content::Create(_) | Content::Commit(_)))
            .cloned()
            .collect();
        (self.accepted[0].epoch + path.len() as u64 - 1, path)
    }

    fn state_made_in(&self, old: &Submission) -> Path {
        let (_, state) = self.position(self.accepted.len());
        state[..=(old.epoch - self.accepted[0].epoch) as usize].to_vec()
    }

    fn past_epochs(&self) -> u64 {
        let policies = self.accepted.iter().filter_map(|old| match &old.content {
            Content::Create(create) => Some(create.policy),
            Content::PolicyChange { policy, .. } => Some(*policy),
            _ => None,
        });
        policies.last().unwrap().past_epochs.into()
    }
}
