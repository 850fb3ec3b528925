//! Refusals: the reason, one sentence, and the facts for machines.

use std::collections::HashMap;

use group_log::{CursorError, Refusal};

use super::WireError;
use crate::log::v1::{Reason, Refused};

/// A refusal from its parts.
pub fn refused<'a>(
    reason: Reason,
    message: impl ToString,
    facts: impl IntoIterator<Item = (&'a str, String)>,
) -> Refused {
    let metadata: HashMap<String, String> =
        facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Refused { reason: reason.into(), message: message.to_string(), metadata }
}

impl From<&Refusal> for Refused {
    fn from(refusal: &Refusal) -> Self {
        let (reason, facts) = reason_and_facts(refusal);
        refused(reason, refusal, facts)
    }
}

pub(super) fn reason_and_facts(refusal: &Refusal) -> (Reason, Vec<(&'static str, String)>) {
    let facts = |facts: &[(&'static str, &dyn ToString)]| {
        facts.iter().map(|(name, value)| (*name, value.to_string())).collect()
    };
    match refusal {
        Refusal::GroupNotFound => (Reason::GroupNotFound, Vec::new()),
        Refusal::GroupExists { expected, got } => {
            (Reason::GroupExists, facts(&[("expected", expected), ("got", got)]))
        }
        Refusal::GroupClosed { closed_seq } => (Reason::GroupClosed, facts(&[("closed_seq", closed_seq)])),
        Refusal::EpochAhead { head_epoch, got } => {
            (Reason::EpochAhead, facts(&[("head_epoch", head_epoch), ("expected", head_epoch), ("got", got)]))
        }
        Refusal::EpochTooOld { oldest, head_epoch, got } => {
            (Reason::EpochTooOld, facts(&[("head_epoch", head_epoch), ("expected", oldest), ("got", got)]))
        }
        Refusal::WrongState { expected, got } => {
            (Reason::WrongState, facts(&[("expected", expected), ("got", got)]))
        }
        Refusal::NotYourTurn { holder, left_ms, retry_after_ms } => (
            Reason::NotYourTurn,
            facts(&[("expected", holder), ("left_ms", left_ms), ("retry_after_ms", retry_after_ms)]),
        ),
        Refusal::TooLarge { field, limit, got } => {
            (Reason::TooLarge, facts(&[("field", field), ("limit", limit), ("got", got)]))
        }
        Refusal::Malformed { kind: _, field, expected, got } => {
            (Reason::Malformed, facts(&[("field", field), ("expected", expected), ("got", got)]))
        }
        Refusal::EpochOutOfRange { limit, got } => {
            (Reason::Malformed, facts(&[("field", &"epoch"), ("limit", limit), ("got", got)]))
        }
        Refusal::PolicyInvalid { field, min, max, got } => (
            Reason::PolicyInvalid,
            facts(&[
                ("field", field),
                ("expected", &format!("{min} to {max}")),
                ("limit", max),
                ("got", got),
            ]),
        ),
    }
}

impl From<&CursorError> for Refused {
    fn from(error: &CursorError) -> Self {
        let (reason, facts) = match error {
            CursorError::Mismatch { seq, expected, got } => (
                Reason::CursorMismatch,
                vec![("seq", seq.to_string()), ("expected", expected.to_string()), ("got", got.to_string())],
            ),
            CursorError::Ahead { head_seq, got } => (
                Reason::CursorAhead,
                vec![
                    ("head_seq", head_seq.to_string()),
                    ("expected", head_seq.to_string()),
                    ("got", got.to_string()),
                ],
            ),
            CursorError::Pruned { oldest, got } => (
                Reason::Pruned,
                vec![
                    ("oldest_seq", oldest.to_string()),
                    ("expected", format!("at least {}", oldest.saturating_sub(1))),
                    ("got", got.to_string()),
                ],
            ),
            CursorError::OtherChain { fork } => (Reason::CursorMismatch, vec![("fork", fork.to_string())]),
        };
        refused(reason, error, facts)
    }
}

impl From<&WireError> for Refused {
    fn from(error: &WireError) -> Self {
        let facts =
            [("field", error.field.into()), ("expected", error.expected.into()), ("got", error.got.clone())];
        refused(Reason::Malformed, error, facts)
    }
}
