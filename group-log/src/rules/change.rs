//! What an accepted entry changes.

use super::{Accepted, decide::record};
use crate::{
    content::{CommitRef, Content, Create, EntryKind, Record, Submission},
    hash::{ChainLink, chain_hash},
    head::Head,
    ids::{ChainHash, ClientId, EntryId, KeyPackageRef, StateId},
    limits::DEDUPE_WINDOW,
    turns::{Offer, Turn},
    view::{ReadError, View},
};

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
    /// For [`View::turn_holder`]: a new order in which members commit, in place of any before. Empty: there is none any more.
    pub turn_order: Option<Vec<ClientId>>,
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

/// What somebody made: a submission, or an entry of a branch.
#[derive(Clone, Copy)]
pub(crate) struct Made<'a> {
    pub(crate) epoch: u64,
    pub(crate) author: Option<&'a ClientId>,
    pub(crate) content: &'a Content,
    pub(crate) offer: Offer,
}

impl<'a> From<&'a Submission> for Made<'a> {
    fn from(submission: &'a Submission) -> Self {
        let Submission { epoch, author, content, .. } = submission;
        Made { epoch: *epoch, author: Some(author), content, offer: Offer::default() }
    }
}

/// An entry that follows the head.
pub(crate) struct NewEntry {
    /// The head before it, or nothing for a create.
    pub(crate) head: Option<Head>,
    pub(crate) id: EntryId,
    /// [`Record::state_id`]
    pub(crate) state_id: StateId,
}

impl NewEntry {
    fn seq(&self) -> u64 {
        self.head.map_or(1, |head| head.seq + 1)
    }

    fn chain(&self, made: &Made<'_>) -> ChainHash {
        let link = ChainLink {
            seq: self.seq(),
            epoch: made.epoch,
            state_id: self.state_id,
            author: made.author,
            content: made.content,
        };
        chain_hash(&self.head.map_or(ChainHash::START, |head| head.chain), &link)
    }

    /// Epoch and state of the group after the entry.
    fn position_after(&self, made: &Made<'_>) -> (u64, StateId) {
        match (made.content, self.head) {
            (Content::Commit(_), _) => (made.epoch + 1, self.state_id),
            (_, None) => (made.epoch, self.state_id),
            (_, Some(head)) => (head.epoch, head.state_id),
        }
    }

    pub(super) fn accepted(&self, made: &Made<'_>) -> Accepted {
        let (epoch, state_id) = self.position_after(made);
        Accepted { seq: self.seq(), epoch, state_id, chain: self.chain(made) }
    }

    pub(crate) fn change<V: View>(&self, view: &V, made: &Made<'_>) -> Result<Change, ReadError<V::Error>> {
        let Accepted { seq, epoch, state_id, chain } = self.accepted(made);
        let kind = made.content.kind();
        let record = Record {
            id: self.id,
            kind,
            epoch: made.epoch,
            state_id: self.state_id,
            chain,
            author: made.author.cloned(),
            epoch_after: epoch,
            state_after: state_id,
        };
        let commit_ending = match (kind, self.head) {
            (EntryKind::Commit, Some(head)) => {
                let parent = head.state_id;
                Some((made.epoch, CommitRef { seq, parent, state_id: self.state_id, chain }))
            }
            _ => None,
        };
        Ok(Change {
            head: self.head_after(made, &record, seq),
            seq,
            commit_ending,
            recent_put: is_indexed(kind).then_some(self.id),
            recent_delete: leaving_window(view, seq)?,
            turn_order: self.turn_order(made.content),
            welcomes: welcome_notes(made.content),
            record,
        })
    }

    /// The new order in which members commit, if this is one, or ends one.
    fn turn_order(&self, content: &Content) -> Option<Vec<ClientId>> {
        match content {
            Content::PolicyChange { turns: Some(turns), .. } => Some(turns.order.clone()),
            Content::PolicyChange { turns: None, .. } => {
                self.head.and_then(|head| head.turn).map(|_| Vec::new())
            }
            _ => None,
        }
    }

    fn head_after(&self, made: &Made<'_>, record: &Record, seq: u64) -> Head {
        let Record { epoch_after: epoch, state_after: state_id, chain, .. } = *record;
        let head = match (self.head, made.content) {
            (Some(head), _) => Head { epoch, state_id, seq, chain, ..head },
            (None, Content::Create(Create { kind, policy, .. })) => Head {
                kind: *kind,
                policy: *policy,
                first_epoch: epoch,
                epoch,
                state_id,
                seq,
                chain,
                closed: None,
                group_info_seq: seq,
                group_info_epoch: epoch,
                turn: None,
            },
            (None, _) => unreachable!("without a head only a create is admitted"),
        };
        let Offer { at_ms, members_only } = made.offer;
        match made.content {
            Content::PolicyChange { policy, turns } => {
                let turn = turns.as_ref().map(|turns| Turn::first(turns, at_ms));
                Head { policy: *policy, turn, ..head }
            }
            Content::Close => Head { closed: Some(seq), ..head },
            Content::Commit(commit) => {
                let turn =
                    if members_only { head.turn } else { head.turn.map(|turn| turn.at(at_ms).used(at_ms)) };
                let head = Head { turn, ..head };
                match commit.group_info.is_empty() {
                    true => head,
                    false => Head { group_info_seq: seq, group_info_epoch: epoch, ..head },
                }
            }
            _ => head,
        }
    }
}

/// The id that the entry `seq` pushes out of the window.
pub(crate) fn leaving_window<V: View>(view: &V, seq: u64) -> Result<Option<EntryId>, ReadError<V::Error>> {
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

/// Kinds that are recognised through [`View::recent`]. The others need no index: there is one create, one close, and one commit
/// an epoch.
fn is_indexed(kind: EntryKind) -> bool {
    match kind {
        EntryKind::Proposal | EntryKind::Application | EntryKind::PolicyChange => true,
        EntryKind::Create | EntryKind::Commit | EntryKind::Close => false,
        EntryKind::Side | EntryKind::Late | EntryKind::Stable => false,
    }
}
