//! When an owner commits: cheap acknowledgements soon, full replacements seldom. Pure. docs/dimls.md has the bytes of each.

use serde::{Deserialize, Serialize};

use super::error::DimlsError;

/// How often an owner does what. All times in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// How long an UPDATE of another may go without being acknowledged. A longer time takes more of them into one commit.
    /// An acknowledgement has no path and one PSK for each update: 280 bytes, and 88 for each further one, at any group size.
    pub acknowledge_after_ms: u64,
    /// How long after the last one the owner makes a full replacement: its own UPDATE, and a fresh leaf for everybody who has published
    /// a new KeyPackage. About 85 bytes for each member of the group, and some 500 with the Welcome for each one replaced, so seldom. It is also what tells the others that this member is still
    /// there.
    pub replace_every_ms: u64,
    /// How long nothing may be heard of a member before it is removed. At least twice `replace_every_ms`.
    pub offline_after_ms: u64,
}

impl Default for Policy {
    /// Acknowledge after a minute, replace every six hours, remove after 30 days.
    fn default() -> Self {
        const HOUR: u64 = 60 * 60 * 1000;
        Policy {
            acknowledge_after_ms: 60 * 1000,
            replace_every_ms: 6 * HOUR,
            offline_after_ms: 30 * 24 * HOUR,
        }
    }
}

/// What an owner knows when it asks what to do. All times in milliseconds of one clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Now.
    pub now: u64,
    /// When it last made a full replacement, or began.
    pub replaced_at: u64,
    /// Since when the oldest UPDATE that it could take in has been waiting for it.
    pub unacknowledged_since: Option<u64>,
    /// Somebody has to be removed.
    pub removals: bool,
    /// Somebody is not in the Send Group yet and can be added, or has lost it.
    pub additions: bool,
    /// Send Groups were lost, and their owners do not know it yet.
    pub lost: bool,
    /// Whether anybody else is in the Send Group.
    pub alone: bool,
}

/// What an owner does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Nothing,
    /// A commit without a path that adds who is missing, or else takes all PSKs that there are.
    Acknowledge,
    /// An UPDATE that says which Send Groups were lost, with the KeyPackage that it takes to come back.
    Ask,
    /// A commit with a path that removes who has to go, and takes all PSKs that there are.
    Remove,
    /// A full replacement.
    Replace,
}

impl Policy {
    /// Refuses times that would remove members who do nothing wrong.
    pub fn check(&self) -> Result<(), DimlsError> {
        if self.replace_every_ms == 0 {
            return Err(DimlsError::Policy("replace_every_ms must be above 0"));
        }
        if self.offline_after_ms / 2 < self.replace_every_ms {
            return Err(DimlsError::Policy("offline_after_ms must be at least twice replace_every_ms"));
        }
        Ok(())
    }

    /// What to do now. A removal never waits; a full replacement removes and adds, too.
    pub fn next(&self, facts: &Facts) -> Step {
        let since = |then: u64| facts.now.saturating_sub(then);
        if !facts.alone && since(facts.replaced_at) >= self.replace_every_ms {
            return Step::Replace;
        }
        if facts.removals {
            return Step::Remove;
        }
        if facts.lost && !facts.alone {
            return Step::Ask;
        }
        let due = facts.unacknowledged_since.is_some_and(|then| since(then) >= self.acknowledge_after_ms);
        if facts.additions || due { Step::Acknowledge } else { Step::Nothing }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: Policy =
        Policy { acknowledge_after_ms: 10, replace_every_ms: 1000, offline_after_ms: 4000 };

    fn facts(now: u64) -> Facts {
        Facts {
            now,
            replaced_at: 0,
            unacknowledged_since: None,
            removals: false,
            additions: false,
            lost: false,
            alone: false,
        }
    }

    #[test]
    fn each_step_at_its_time() {
        assert_eq!(POLICY.next(&facts(5)), Step::Nothing);
        let waiting = Facts { unacknowledged_since: Some(100), ..facts(109) };
        assert_eq!(POLICY.next(&waiting), Step::Nothing);
        assert_eq!(POLICY.next(&Facts { now: 110, ..waiting }), Step::Acknowledge);
        assert_eq!(POLICY.next(&Facts { removals: true, ..waiting }), Step::Remove);
        assert_eq!(POLICY.next(&Facts { additions: true, ..facts(5) }), Step::Acknowledge);
        assert_eq!(POLICY.next(&Facts { lost: true, ..facts(5) }), Step::Ask);
        assert_eq!(POLICY.next(&facts(1000)), Step::Replace);
        assert_eq!(POLICY.next(&Facts { alone: true, ..facts(1000) }), Step::Nothing);
    }

    #[test]
    fn members_are_not_removed_for_keeping_to_the_policy() {
        assert!(POLICY.check().is_ok());
        assert!(Policy { offline_after_ms: 1999, ..POLICY }.check().is_err());
        assert!(Policy { replace_every_ms: 0, ..POLICY }.check().is_err());
        assert!(Policy::default().check().is_ok());
    }

    proptest! {
        #[test]
        fn nothing_that_is_due_is_forgotten(
            now in 0u64..5000, replaced_at in 0u64..5000, since in proptest::option::of(0u64..5000),
            removals: bool, additions: bool, lost: bool, alone: bool,
        ) {
            let facts = Facts { now, replaced_at, unacknowledged_since: since, removals, additions, lost, alone };
            let step = POLICY.next(&facts);
            prop_assert!(!removals || matches!(step, Step::Remove | Step::Replace));
            prop_assert!(!lost || alone || step != Step::Nothing);
            prop_assert!(!additions || step != Step::Nothing);
            prop_assert!(since.is_none_or(|s| now < s + 10) || step != Step::Nothing);
            prop_assert!(step != Step::Replace || (!alone && now >= replaced_at + 1000));
        }
    }
}
