//! The ordered rules: what becomes of a submission, and what it changes.
//!
//! [`admit`] and [`apply`] decide alike. `admit` is for asking before anything is replicated, `apply` for the replicated log; what
//! `apply` decides is what happened.

mod change;
mod decide;

pub use change::{Change, WelcomeNote};
pub(crate) use change::{Made, NewEntry, leaving_window};
use decide::{Verdict, decide};
pub(crate) use decide::{closed, commit_ending, outside, record};

use crate::{
    content::{Record, Submission},
    ids::{ChainHash, StateId},
    limits::Limits,
    refusal::Refusal,
    turns::Offer,
    validate::validate,
    view::{ReadError, View},
};

/// What became of a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is in the log. The same bytes again get the same answer.
    Accepted(Accepted),
    /// A commit lost its epoch to this entry. Forever.
    Superseded {
        /// Number of the commit that ended the epoch.
        winner_seq: u64,
    },
    /// It is in no log.
    Refused(Refusal),
}

/// Where an accepted submission is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Number of the entry.
    pub seq: u64,
    /// The group's epoch after the entry.
    pub epoch: u64,
    /// The group's state after the entry.
    pub state_id: StateId,
    /// Chain hash of the entry.
    pub chain: ChainHash,
}

impl Accepted {
    /// The answer for an entry that is in the log.
    pub fn from_record(seq: u64, record: &Record) -> Accepted {
        Accepted { seq, epoch: record.epoch_after, state_id: record.state_after, chain: record.chain }
    }
}

/// What would become of the submission now. Changes nothing.
pub fn admit<V: View>(
    view: &V,
    submission: &Submission,
    offer: Offer,
    limits: &Limits,
) -> Result<Decision, ReadError<V::Error>> {
    if let Err(refusal) = validate(submission, &limits.capped()) {
        return Ok(Decision::Refused(refusal));
    }
    Ok(match decide(view, submission, offer)? {
        Verdict::Known(decision) => decision,
        Verdict::New(new) => Decision::Accepted(new.accepted(&submission.into())),
    })
}

/// What becomes of the submission, and what to store if it is a new entry.
pub fn apply<V: View>(
    view: &V,
    submission: &Submission,
    offer: Offer,
) -> Result<(Decision, Option<Change>), ReadError<V::Error>> {
    if let Err(refusal) = validate(submission, &Limits::REPLICATED) {
        return Ok((Decision::Refused(refusal), None));
    }
    match decide(view, submission, offer)? {
        Verdict::Known(decision) => Ok((decision, None)),
        Verdict::New(new) => {
            let change = new.change(view, &Made { offer, ..submission.into() })?;
            Ok((Decision::Accepted(Accepted::from_record(change.seq, &change.record)), Some(change)))
        }
    }
}
