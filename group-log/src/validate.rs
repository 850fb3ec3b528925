//! What can be refused without looking at the group: sizes, bounds and impossible combinations.

use bytes::Bytes;

use crate::{
    content::{Commit, Content, EntryKind, Policy, Submission},
    limits::{Limits, MAX_EPOCH, RECIPIENT_OVERHEAD_BYTES},
    refusal::Refusal,
    turns::Turns,
};

/// Checks a submission by itself.
pub fn validate(submission: &Submission, limits: &Limits) -> Result<(), Refusal> {
    let kind = submission.content.kind();
    let limit = highest_epoch(kind);
    if submission.epoch > limit {
        return Err(Refusal::EpochOutOfRange { limit, got: submission.epoch });
    }
    if kind == EntryKind::Create && submission.parent_state_id.is_some() {
        return Err(malformed(kind, "parent_state_id", "absent", "present"));
    }
    validate_content(&submission.content, limits)
}

/// Checks a content by itself.
pub(crate) fn validate_content(content: &Content, limits: &Limits) -> Result<(), Refusal> {
    let kind = content.kind();
    match content {
        Content::Create(create) => {
            not_empty(kind, "group_info", &create.group_info)?;
            at_most("group_info", limits.group_info_bytes, create.group_info.len())?;
            policy(&create.policy)
        }
        Content::Proposal { message } | Content::Application { message } => {
            not_empty(kind, "message", message)?;
            at_most("message", limits.message_bytes, message.len())
        }
        Content::Commit(content) => commit(kind, content, limits),
        Content::PolicyChange { policy: wanted, turns } => {
            policy(wanted)?;
            turns.as_ref().map_or(Ok(()), Turns::validate)
        }
        Content::Close => Ok(()),
    }
}

fn commit(kind: EntryKind, commit: &Commit, limits: &Limits) -> Result<(), Refusal> {
    not_empty(kind, "message", &commit.message)?;
    if commit.welcome.is_empty() && !commit.recipients.is_empty() {
        return Err(malformed(kind, "welcome", "present when recipients are named", "absent"));
    }
    at_most("recipients", limits.welcome_recipients, commit.recipients.len())?;
    at_most("message, welcome, group_info and recipients together", limits.commit_bytes, size(commit))
}

/// What a commit counts for against [`Limits::commit_bytes`], in bytes.
pub fn size(commit: &Commit) -> usize {
    let recipients = commit.recipients.iter().map(|to| {
        to.client_id.as_bytes().len() + to.key_package_ref.as_bytes().len() + RECIPIENT_OVERHEAD_BYTES
    });
    let payload = commit.message.len().saturating_add(commit.welcome.len());
    payload.saturating_add(commit.group_info.len()).saturating_add(recipients.sum())
}

fn policy(policy: &Policy) -> Result<(), Refusal> {
    match policy.beyond() {
        Some((field, max, got)) => Err(Refusal::PolicyInvalid { field, min: 0, max, got }),
        None => Ok(()),
    }
}

fn at_most(field: &'static str, limit: usize, got: usize) -> Result<(), Refusal> {
    if got <= limit {
        return Ok(());
    }
    Err(Refusal::TooLarge { field, limit: limit as u64, got: got as u64 })
}

fn not_empty(kind: EntryKind, field: &'static str, bytes: &Bytes) -> Result<(), Refusal> {
    if bytes.is_empty() { Err(malformed(kind, field, "an MLSMessage", "nothing")) } else { Ok(()) }
}

pub(crate) fn malformed(
    kind: EntryKind,
    field: &'static str,
    expected: &'static str,
    got: &'static str,
) -> Refusal {
    Refusal::Malformed { kind, field, expected, got }
}

/// A commit must leave room for the epoch it leads to.
fn highest_epoch(kind: EntryKind) -> u64 {
    match kind {
        EntryKind::Commit => MAX_EPOCH - 1,
        _ => MAX_EPOCH,
    }
}
