//! Taking in one entry in the state that it was made in: each once, wherever it comes from.

use group_log::{ClientId, Content, EntryId, StateId};
use openmls::prelude::{LeafNodeIndex, Sender};

use super::{send, work::BranchWork};
use crate::{
    demls::{DemlsError, DmlsGroup, DmlsMessage, Processed, StagedDmlsCommit, states::StateChange},
    error::Error,
    event::EventKind,
    identity::client_id_of,
    store::{Place, StoredMessage, branch_entries::Node},
};

/// An entry, and where it is.
pub(super) struct Made<'e> {
    pub(super) id: EntryId,
    /// The state it was made in.
    pub(super) parent: StateId,
    /// Who submitted it, as a gateway authenticated it.
    pub(super) author: Option<&'e ClientId>,
    pub(super) content: &'e Content,
    pub(super) epoch: u64,
    pub(super) place: Place,
}

/// What became of a commit.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// The state that it leads to is held.
    Held,
    /// It removes this client.
    Removed,
    /// It is not for this client: the state it was made in is not held.
    NotEntitled,
    /// It cannot be processed. Nothing has changed.
    Unprocessable(String),
}

impl Made<'_> {
    fn is_final(&self) -> bool {
        matches!(self.place, Place::Canonical { .. })
    }

    /// What is known of it before it is taken in.
    pub(super) fn node(&self, me: &ClientId) -> Node {
        let is_commit = matches!(self.content, Content::Commit(_));
        Node {
            id: self.id,
            parent: self.parent,
            epoch: self.epoch + u64::from(is_commit),
            is_commit,
            is_own: self.author == Some(me),
            processed: false,
            verdict: None,
            intent: Vec::new(),
        }
    }
}

impl BranchWork<'_> {
    /// Takes in a commit.
    pub(super) fn take_commit(&mut self, made: &Made<'_>, message: &[u8]) -> Result<Taken, Error> {
        let state = made.id.as_state();
        if self.states.contains(&state) {
            if self.states.is_pending(&state) {
                self.settle(made)?;
            }
            return Ok(Taken::Held);
        }
        if self.node(&made.id)?.is_some_and(|node| node.processed) {
            return Ok(Taken::Removed);
        }
        if !self.states.contains(&made.parent) {
            return Ok(Taken::NotEntitled);
        }
        let mut parent = self.open(&made.parent)?;
        let staged = match processed(self, &mut parent, message) {
            Ok(Processed::Commit(staged)) => staged,
            Ok(_) => return Ok(Taken::Unprocessable("it is not a commit".into())),
            Err(DemlsError::Store(error)) => return Err(DemlsError::from(error).into()),
            Err(error) => return Ok(Taken::Unprocessable(error.to_string())),
        };
        self.note_removals(made, &parent, &staged);
        let merged = match made.is_final() {
            true => parent.merge(self.crypto, staged),
            false => parent.merge_provisionally(self.crypto, staged),
        };
        let mut merged = match merged {
            Ok(merged) => merged,
            Err(error) => return Ok(Taken::Unprocessable(error.to_string())),
        };
        let stays = merged.next.is_active();
        let mut change = StateChange::new().put(made.parent, None, &merged.parent);
        if stays {
            change = change.put(state, Some(made.parent), merged.next.state()?);
        }
        match self.store(change) {
            // Branches must not be in the way of the log.
            Err(Error::Demls(error)) if !made.is_final() && is_full(&error) => {
                return Ok(Taken::Unprocessable(error.to_string()));
            }
            stored => stored?,
        }
        Ok(if stays { Taken::Held } else { Taken::Removed })
    }

    /// An own commit was accepted, by the quorum or on a branch.
    fn settle(&mut self, made: &Made<'_>) -> Result<(), Error> {
        let state = made.id.as_state();
        let (mut parent, mut next) = (self.read(&made.parent)?, self.read(&state)?);
        match made.is_final() {
            true => parent.settle(self.crypto, &mut next)?,
            false => parent.settle_provisionally(self.crypto, &mut next)?,
        }
        self.store(StateChange::new().put(made.parent, None, &parent).put(state, None, &next))
    }

    /// Nobody can join by an external commit any more at a state that the log has left behind.
    pub(super) fn leave_behind(&mut self, state: &StateId) -> Result<(), Error> {
        if !self.states.contains(state) {
            return Ok(());
        }
        let mut read = self.read(state)?;
        if read.refuse_external_commits() {
            self.store(StateChange::new().put(*state, None, &read))?;
        }
        Ok(())
    }

    /// Who removes whom: what removals that are owed later are checked against.
    fn note_removals(&mut self, made: &Made<'_>, parent: &DmlsGroup, staged: &StagedDmlsCommit) {
        let Sender::Member(committer) = staged.sender() else { return };
        let at = |leaf: LeafNodeIndex| {
            parent.mls().member_at(leaf).map(|member| client_id_of(&member.credential).to_vec())
        };
        let Some(by) = at(*committer) else { return };
        for removal in staged.commit().remove_proposals() {
            if let Some(member) = at(removal.remove_proposal().removed()) {
                self.fork.note_removal(made.id, &by, member);
            }
        }
    }

    /// Takes in an application message or a proposal. Returns whether this client was entitled to it.
    pub(super) fn take_message(
        &mut self,
        made: &Made<'_>,
        message: &[u8],
        me: &ClientId,
    ) -> Result<bool, Error> {
        let is_application = matches!(made.content, Content::Application { .. });
        let own = self.outbox.iter().find(|item| !item.message.is_empty() && item.message == message);
        if let Some(item) = own.map(|item| item.id) {
            send::sent(self, item, made.place, me);
        } else {
            if !self.states.contains(&made.parent) {
                return Ok(false);
            }
            let mut parent = self.open(&made.parent)?;
            match processed(self, &mut parent, message) {
                Ok(Processed::Application { credential, content, .. }) if is_application => {
                    self.store_again(made.parent, parent)?;
                    self.hear(made, client_id_of(&credential).to_vec(), content);
                }
                Ok(Processed::Proposal(proposal)) if !is_application => {
                    parent.accept_proposal(*proposal)?;
                    self.store_again(made.parent, parent)?;
                }
                // One's own that is no longer in the outbox: it was told already.
                Ok(_) | Err(DemlsError::OwnMessage) => {}
                Err(DemlsError::Store(error)) => return Err(DemlsError::from(error).into()),
                // A proposal that cannot be processed can be in no valid commit either.
                Err(_) if !is_application => {}
                Err(error) => self.events.push(EventKind::MessageUnreadable {
                    seq: match made.place {
                        Place::Canonical { seq } | Place::Side { seq, .. } => seq,
                        Place::Branch { .. } => 0,
                    },
                    epoch: made.epoch,
                    author: made.author.map(|a| a.as_bytes().to_vec()).unwrap_or_default(),
                    reason: error.to_string(),
                }),
            }
        }
        if !is_application {
            self.events.push(EventKind::Proposed {
                seq: if let Place::Canonical { seq } = made.place { seq } else { 0 },
            });
        }
        Ok(true)
    }

    fn hear(&mut self, made: &Made<'_>, sender: Vec<u8>, body: Vec<u8>) {
        let (epoch, place) = (made.epoch, made.place);
        let seq = self.keep_message(|seq| StoredMessage {
            seq,
            place,
            epoch,
            sender: sender.clone(),
            item: None,
            body: body.clone(),
        });
        self.events.push(EventKind::MessageReceived { seq, place, epoch, sender, body });
    }
}

fn is_full(error: &DemlsError) -> bool {
    matches!(error, DemlsError::Store(crate::demls::states::StoreError::TooManyStates { .. }))
}

fn processed(work: &BranchWork<'_>, state: &mut DmlsGroup, message: &[u8]) -> Result<Processed, DemlsError> {
    state.process(work.crypto, DmlsMessage::decode(message)?)
}
