//! The ordered rules: what becomes of a submission, and what it changes.
//!
//! [`admit`] and [`apply`] decide alike. `admit` is for asking before anything is replicated, `apply` for the replicated log; what
//! `apply` decides is what happened.

use crate::{
    content::{CommitRef, Content, Create, EntryKind, Record, Submission},
    hash::{ChainLink, chain_hash, create_state_id, entry_id},
    head::Head,
    ids::{ChainHash, ClientId, EntryId, KeyPackageRef, StateId},
    limits::{DEDUPE_WINDOW, Limits},
    refusal::Refusal,
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

/// What one accepted entry changes. To be stored at once, all or nothing, together with the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The new head.
    pub head: Head,
    /// Number of the new entry: the head's.
    pub seq: u64,
    /// What to keep of the entry.
    pub record: Record,
    /// For [`View::commit_ending`]: the epoch that the entry ended. Never deleted.
    pub commit_ending: Option<(u64, CommitRef)>,
    /// For [`View::recent`]: the id of the entry, stored with `seq`.
    pub recent_put: Option<EntryId>,
    /// For [`View::recent`]: an id that has left the window.
    pub recent_delete: Option<EntryId>,
    /// Whom the commit's Welcome is for, each client once, in order.
    pub welcomes: Vec<WelcomeNote>,
}

/// One client that a Welcome waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WelcomeNote {
    /// The client.
    pub client_id: ClientId,
    /// Its KeyPackages that the Welcome uses, in order, each once.
    pub key_package_refs: Vec<KeyPackageRef>,
}

/// What would become of the submission now. Changes nothing.
pub fn admit<V: View>(
    view: &V,
    submission: &Submission,
    limits: &Limits,
) -> Result<Decision, ReadError<V::Error>> {
    if let Err(refusal) = validate(submission, &limits.capped()) {
        return Ok(Decision::Refused(refusal));
    }
    Ok(match decide(view, submission)? {
        Verdict::Known(decision) => decision,
        Verdict::New(new) => Decision::Accepted(new.accepted(submission)),
    })
}

/// What becomes of the submission, and what to store if it is a new entry.
pub fn apply<V: View>(
    view: &V,
    submission: &Submission,
) -> Result<(Decision, Option<Change>), ReadError<V::Error>> {
    if let Err(refusal) = validate(submission, &Limits::REPLICATED) {
        return Ok((Decision::Refused(refusal), None));
    }
    match decide(view, submission)? {
        Verdict::Known(decision) => Ok((decision, None)),
        Verdict::New(new) => {
            let change = new.change(view, submission)?;
            let accepted = Accepted {
                seq: change.seq,
                epoch: change.record.epoch_after,
                state_id: change.record.state_after,
                chain: change.record.chain,
            };
            Ok((Decision::Accepted(accepted), Some(change)))
        }
    }
}

enum Verdict {
    Known(Decision),
    New(Box<NewEntry>),
}

/// An entry that follows the head.
struct NewEntry {
    /// The head before it, or nothing for a create.
    head: Option<Head>,
    id: EntryId,
    /// [`Record::state_id`]
    state_id: StateId,
}

fn decide<V: View>(view: &V, submission: &Submission) -> Result<Verdict, ReadError<V::Error>> {
    let head = view.head()?;
    match (&submission.content, head) {
        (Content::Create(create), head) => decide_create(view, submission, create, head),
        (_, None) => Ok(refused(Refusal::GroupNotFound)),
        (Content::Commit(_), Some(head)) => decide_commit(view, submission, head),
        (_, Some(head)) => decide_other(view, submission, head),
    }
}

fn decide_create<V: View>(
    view: &V,
    submission: &Submission,
    create: &Create,
    head: Option<Head>,
) -> Result<Verdict, ReadError<V::Error>> {
    let state_id = create_state_id(&submission.group_id, submission.epoch, &create.group_info);
    let id = entry_id(&state_id, &submission.content);
    if head.is_none() {
        return Ok(new_entry(None, id, state_id));
    }
    let first = record(view, 1)?;
    Ok(if first.id == id {
        accepted_before(1, &first)
    } else {
        refused(Refusal::GroupExists { expected: first.id, got: id })
    })
}

/// A commit is compare-and-swap on the epoch and the state. One for a past epoch is answered from the commit that ended that
/// epoch, so that the answer stays the same forever, without an index of its own.
fn decide_commit<V: View>(
    view: &V,
    submission: &Submission,
    head: Head,
) -> Result<Verdict, ReadError<V::Error>> {
    if let Some(refusal) = outside(submission.epoch, head.first_epoch, &head) {
        return Ok(refused(refusal));
    }
    if submission.epoch < head.epoch {
        let winner = commit_ending(view, submission.epoch)?;
        let same_parent = submission.parent_state_id.is_none_or(|parent| parent == winner.parent);
        let same = same_parent && entry_id(&winner.parent, &submission.content) == winner.state_id.into();
        return Ok(Verdict::Known(if same {
            Decision::Accepted(Accepted {
                seq: winner.seq,
                epoch: submission.epoch + 1,
                state_id: winner.state_id,
                chain: winner.chain,
            })
        } else {
            Decision::Superseded { winner_seq: winner.seq }
        }));
    }
    if let Some(refusal) = closed(&head).or_else(|| wrong_state(submission, &head.state_id)) {
        return Ok(refused(refusal));
    }
    let id = entry_id(&head.state_id, &submission.content);
    Ok(new_entry(Some(head), id, id.as_state()))
}

/// Proposals, application messages, policy changes and the close: recognised by their id first, then held against the head.
fn decide_other<V: View>(
    view: &V,
    submission: &Submission,
    head: Head,
) -> Result<Verdict, ReadError<V::Error>> {
    if let Some(refusal) = outside(submission.epoch, head.first_epoch, &head) {
        return Ok(refused(refusal));
    }
    let state_id = match submission.epoch {
        epoch if epoch == head.epoch => head.state_id,
        epoch => commit_ending(view, epoch)?.parent,
    };
    if let Some(refusal) = wrong_state(submission, &state_id) {
        return Ok(refused(refusal));
    }
    let kind = submission.content.kind();
    let id = entry_id(&state_id, &submission.content);
    if let Some(seq) = known(view, kind, &id, &head)? {
        return Ok(accepted_before(seq, &record(view, seq)?));
    }
    let oldest = match kind {
        EntryKind::Application => head.oldest_application_epoch(),
        _ => head.epoch,
    };
    if let Some(refusal) = closed(&head).or_else(|| outside(submission.epoch, oldest, &head)) {
        return Ok(refused(refusal));
    }
    Ok(new_entry(Some(head), id, state_id))
}

/// Number of the entry that already carries this id.
fn known<V: View>(
    view: &V,
    kind: EntryKind,
    id: &EntryId,
    head: &Head,
) -> Result<Option<u64>, ReadError<V::Error>> {
    if kind != EntryKind::Close {
        return Ok(view.recent(id)?);
    }
    Ok(match head.closed {
        Some(seq) if record(view, seq)?.id == *id => Some(seq),
        _ => None,
    })
}

/// Kinds that are recognised through [`View::recent`]. The others need no index: there is one create, one close, and one commit
/// an epoch.
fn is_indexed(kind: EntryKind) -> bool {
    match kind {
        EntryKind::Proposal | EntryKind::Application | EntryKind::PolicyChange => true,
        EntryKind::Create | EntryKind::Commit | EntryKind::Close => false,
    }
}

fn outside(epoch: u64, oldest: u64, head: &Head) -> Option<Refusal> {
    if epoch > head.epoch {
        Some(Refusal::EpochAhead { head_epoch: head.epoch, got: epoch })
    } else if epoch < oldest {
        Some(Refusal::EpochTooOld { oldest, head_epoch: head.epoch, got: epoch })
    } else {
        None
    }
}

fn closed(head: &Head) -> Option<Refusal> {
    head.closed.map(|closed_seq| Refusal::GroupClosed { closed_seq })
}

fn wrong_state(submission: &Submission, expected: &StateId) -> Option<Refusal> {
    match submission.parent_state_id {
        Some(got) if got != *expected => Some(Refusal::WrongState { expected: *expected, got }),
        _ => None,
    }
}

fn refused(refusal: Refusal) -> Verdict {
    Verdict::Known(Decision::Refused(refusal))
}

fn accepted_before(seq: u64, record: &Record) -> Verdict {
    let Record { epoch_after, state_after, chain, .. } = record;
    let accepted = Accepted { seq, epoch: *epoch_after, state_id: *state_after, chain: *chain };
    Verdict::Known(Decision::Accepted(accepted))
}

fn new_entry(head: Option<Head>, id: EntryId, state_id: StateId) -> Verdict {
    Verdict::New(Box::new(NewEntry { head, id, state_id }))
}

fn record<V: View>(view: &V, seq: u64) -> Result<Record, ReadError<V::Error>> {
    view.record(seq)?.ok_or(ReadError::Missing { what: "the record of an entry" })
}

fn commit_ending<V: View>(view: &V, epoch: u64) -> Result<CommitRef, ReadError<V::Error>> {
    view.commit_ending(epoch)?.ok_or(ReadError::Missing { what: "the commit that ended an epoch" })
}

impl NewEntry {
    fn seq(&self) -> u64 {
        self.head.map_or(1, |head| head.seq + 1)
    }

    fn chain(&self, submission: &Submission) -> ChainHash {
        let link = ChainLink {
            seq: self.seq(),
            epoch: submission.epoch,
            state_id: self.state_id,
            author: Some(&submission.author),
            content: &submission.content,
        };
        chain_hash(&self.head.map_or(ChainHash::START, |head| head.chain), &link)
    }

    /// Epoch and state of the group after the entry.
    fn position_after(&self, submission: &Submission) -> (u64, StateId) {
        match (&submission.content, self.head) {
            (Content::Commit(_), _) => (submission.epoch + 1, self.state_id),
            (_, None) => (submission.epoch, self.state_id),
            (_, Some(head)) => (head.epoch, head.state_id),
        }
    }

    fn accepted(&self, submission: &Submission) -> Accepted {
        let (epoch, state_id) = self.position_after(submission);
        Accepted { seq: self.seq(), epoch, state_id, chain: self.chain(submission) }
    }

    fn change<V: View>(&self, view: &V, submission: &Submission) -> Result<Change, ReadError<V::Error>> {
        let Accepted { seq, epoch, state_id, chain } = self.accepted(submission);
        let kind = submission.content.kind();
        let record = Record {
            id: self.id,
            kind,
            epoch: submission.epoch,
            state_id: self.state_id,
            chain,
            author: Some(submission.author.clone()),
            epoch_after: epoch,
            state_after: state_id,
        };
        let commit_ending = match (kind, self.head) {
            (EntryKind::Commit, Some(head)) => {
                let parent = head.state_id;
                Some((submission.epoch, CommitRef { seq, parent, state_id: self.state_id, chain }))
            }
            _ => None,
        };
        Ok(Change {
            head: self.head_after(submission, &record, seq),
            seq,
            commit_ending,
            recent_put: is_indexed(kind).then_some(self.id),
            recent_delete: leaving_window(view, seq)?,
            welcomes: welcome_notes(&submission.content),
            record,
        })
    }

    fn head_after(&self, submission: &Submission, record: &Record, seq: u64) -> Head {
        let Record { epoch_after: epoch, state_after: state_id, chain, .. } = *record;
        let head = match (&submission.content, self.head) {
            (_, Some(head)) => Head { epoch, state_id, seq, chain, ..head },
            (content, None) => Head {
                kind: match content {
                    Content::Create(create) => create.kind,
                    _ => unreachable!("only a create is admitted without a head"),
                },
                policy: Default::default(),
                first_epoch: epoch,
                epoch,
                state_id,
                seq,
                chain,
                closed: None,
                group_info_seq: seq,
                group_info_epoch: epoch,
            },
        };
        match &submission.content {
            Content::Create(create) => Head { policy: create.policy, ..head },
            Content::PolicyChange { policy } => Head { policy: *policy, ..head },
            Content::Close => Head { closed: Some(seq), ..head },
            Content::Commit(commit) if !commit.group_info.is_empty() => {
                Head { group_info_seq: seq, group_info_epoch: epoch, ..head }
            }
            _ => head,
        }
    }
}

/// The id that the entry `seq` pushes out of the window.
fn leaving_window<V: View>(view: &V, seq: u64) -> Result<Option<EntryId>, ReadError<V::Error>> {
    match seq.checked_sub(DEDUPE_WINDOW) {
        None | Some(0) => Ok(None),
        Some(old) => {
            let record = record(view, old)?;
            Ok(is_indexed(record.kind).then_some(record.id))
        }
    }
}

fn welcome_notes(content: &Content) -> Vec<WelcomeNote> {
    let Content::Commit(commit) = content else { return Vec::new() };
    let mut recipients: Vec<_> = commit.recipients.iter().collect();
    recipients.sort();
    recipients.dedup();
    let mut notes: Vec<WelcomeNote> = Vec::new();
    for recipient in recipients {
        let reference = recipient.key_package_ref.clone();
        match notes.last_mut() {
            Some(note) if note.client_id == recipient.client_id => note.key_package_refs.push(reference),
            _ => notes.push(WelcomeNote {
                client_id: recipient.client_id.clone(),
                key_package_refs: vec![reference],
            }),
        }
    }
    notes
}
