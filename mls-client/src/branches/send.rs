//! Application messages and proposals: what waits to be in the log.

use group_log::{ClientId, Content, EntryId, hash::entry_id};

use super::work::BranchWork;
use crate::{
    error::Error,
    event::EventKind,
    identity::Identity,
    limits::{MAX_BODY_BYTES, MAX_OUTBOX_MESSAGES},
    store::{
        OutboxItem, OutboxKind, Place, StoredMessage, Verdict,
        branch_entries::{self, Node},
        messages,
    },
};

/// Adds a message to the outbox. It is encrypted when its turn comes, in the state of that moment. Returns its number.
pub(crate) fn enqueue(work: &mut BranchWork<'_>, body: Vec<u8>) -> Result<u64, Error> {
    work.active()?;
    if work.record.leaving {
        return Err(Error::Leaving);
    }
    if body.len() > MAX_BODY_BYTES {
        return Err(Error::TooLong { limit: MAX_BODY_BYTES, got: body.len() });
    }
    if work.outbox.len() >= MAX_OUTBOX_MESSAGES {
        return Err(Error::OutboxFull { limit: MAX_OUTBOX_MESSAGES, got: work.outbox.len() });
    }
    Ok(work.push_item(OutboxKind::Message, body))
}

/// This client wants to be removed: its proposal goes into the outbox.
pub(crate) fn enqueue_leave(work: &mut BranchWork<'_>) -> Result<(), Error> {
    work.active()?;
    work.record.leaving = true;
    work.propose_again();
    Ok(())
}

/// Makes the message of the outbox item `id`, or makes it again in the state that this client stands in.
pub(crate) fn encrypt(work: &mut BranchWork<'_>, id: u64, me: &Identity) -> Result<(), Error> {
    let current = work.active()?;
    let mut opened = work.open(&current)?;
    let epoch = opened.mls().epoch().as_u64();
    let Some(item) = work.outbox.iter_mut().find(|item| item.id == id) else { return Ok(()) };
    let message = match item.kind {
        OutboxKind::Message => opened.send(work.crypto, me.signer(), &item.body)?,
        OutboxKind::Leave => opened.propose_leave(work.crypto, me.signer())?,
    };
    item.set_message(message, epoch, current);
    work.store_again(current, opened)
}

/// The outbox item `id` is an entry of the log or of a branch.
pub(super) fn sent(work: &mut BranchWork<'_>, id: u64, place: Place, me: &ClientId) {
    let Some(index) = work.outbox.iter().position(|item| item.id == id) else { return };
    let item = work.outbox.remove(index);
    if item.is_message() {
        let (epoch, body) = (item.epoch, item.body.clone());
        let seq = work.keep_message(|seq| StoredMessage {
            seq,
            place,
            epoch,
            sender: me.as_bytes().to_vec(),
            item: Some(id),
            body: body.clone(),
        });
        work.events.push(EventKind::MessageSent { seq, place, epoch, body });
    }
}

/// The id of the entry that an outbox item is, once it is accepted.
fn entry_of(item: &OutboxItem) -> EntryId {
    let message = item.message.clone().into();
    let content = match item.kind {
        OutboxKind::Message => Content::Application { message },
        OutboxKind::Leave => Content::Proposal { message },
    };
    entry_id(&item.state_id(), &content)
}

/// A gateway answered that an outbox item is accepted. `verdict` is what the log says; nothing if it is on a branch, where `encoded`
/// is what it is now.
pub(crate) fn answered(
    work: &mut BranchWork<'_>,
    item: &OutboxItem,
    verdict: Option<Verdict>,
    encoded: Option<&[u8]>,
    me: &ClientId,
) -> Result<(), Error> {
    let id = entry_of(item);
    let place = match verdict {
        None => Place::Branch { entry: id },
        Some(Verdict { seq, dead: false }) => Place::Canonical { seq },
        Some(Verdict { seq, dead: true }) => Place::Side { entry: id, seq },
    };
    sent(work, item.id, place, me);
    if work.node(&id)?.is_none_or(|node| !node.processed) {
        work.put_node(Node {
            id,
            parent: item.state_id(),
            epoch: item.epoch,
            is_commit: false,
            is_own: true,
            processed: true,
            verdict,
            intent: Vec::new(),
        })?;
        branch_entries::set_body(work.db, &work.group, &id, encoded)?;
    }
    Ok(())
}

/// An outbox item was refused for good.
pub(crate) fn give_up(work: &mut BranchWork<'_>, id: u64, reason: String) {
    let Some(index) = work.outbox.iter().position(|item| item.id == id) else { return };
    let item = work.outbox.remove(index);
    if item.is_message() {
        work.events.push(EventKind::MessageRefused { body: item.body.clone(), reason });
    }
}

impl BranchWork<'_> {
    /// The state of the last proposal to leave is left behind, and this client is still a member: it goes on asking.
    pub(super) fn propose_again(&mut self) {
        if !self.record.leaving {
            return;
        }
        self.outbox.retain(OutboxItem::is_message);
        self.push_item(OutboxKind::Leave, Vec::new());
    }

    /// An own message came late, so that perhaps nobody could read it.
    pub(super) fn send_again(&mut self, id: &EntryId) -> Result<(), Error> {
        if let Some(body) = messages::own_body(self.db, &self.group, id)? {
            self.push_item(OutboxKind::Message, body);
        }
        Ok(())
    }
}
