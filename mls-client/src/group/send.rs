//! Application messages and proposals: what waits to be in the log.

use openmls_traits::OpenMlsProvider;

use super::{commit::encode, work::GroupWork};
use crate::{
    error::Error,
    event::EventKind,
    identity::Identity,
    limits::{MAX_BODY_BYTES, MAX_OUTBOX_MESSAGES},
    store::{OutboxItem, OutboxKind, Place, StoredMessage},
};

/// Adds a message to the outbox. It is encrypted when its turn comes, in the epoch of that moment. Returns its number.
pub(crate) fn enqueue(work: &mut GroupWork, body: Vec<u8>) -> Result<u64, Error> {
    let leaving = work.record.leaving;
    work.active()?;
    if leaving {
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

/// This client wants to be removed: its proposal goes into the outbox. A proposal holds for one epoch; see [`propose_again`].
pub(crate) fn enqueue_leave(work: &mut GroupWork) -> Result<(), Error> {
    work.active()?;
    work.record.leaving = true;
    propose_again(work);
    Ok(())
}

/// The epoch of the last proposal is over and this client is still a member: it goes on asking.
pub(crate) fn propose_again(work: &mut GroupWork) {
    if !work.record.leaving {
        return;
    }
    work.outbox.retain(OutboxItem::is_message);
    work.push_item(OutboxKind::Leave, Vec::new());
}

/// Makes the MLS message of the outbox item `id`, or makes it again in the current epoch.
pub(crate) fn encrypt(work: &mut GroupWork, id: u64, me: &Identity) -> Result<(), Error> {
    let (epoch, state) = (work.record.epoch, work.record.state_id());
    work.active()?;
    let (Some(mls), Some(item)) = (work.mls.as_mut(), work.outbox.iter_mut().find(|item| item.id == id))
    else {
        return Ok(());
    };
    let message = match item.kind {
        OutboxKind::Message => mls
            .create_message(&work.provider, me.signer(), &item.body)
            .map_err(|e| Error::mls("encrypting a message", e))?,
        OutboxKind::Leave => {
            // One's own older proposal would be in the way of a new one in the same epoch.
            mls.clear_pending_proposals(work.provider.storage())
                .map_err(|e| Error::mls("clearing proposals", e))?;
            mls.leave_group(&work.provider, me.signer()).map_err(|e| Error::mls("proposing to leave", e))?
        }
    };
    item.set_message(encode(&message)?, epoch, state);
    Ok(())
}

/// The outbox item `id` is in the log as entry `seq`.
pub(crate) fn sent(work: &mut GroupWork, id: u64, seq: u64, me: &[u8]) {
    let Some(index) = work.outbox.iter().position(|item| item.id == id) else { return };
    let item = work.outbox.remove(index);
    if item.is_message() {
        let (place, epoch, body) = (Place::Canonical { seq }, item.epoch, item.body.clone());
        work.messages.push(StoredMessage {
            seq,
            place,
            epoch,
            sender: me.to_vec(),
            item: Some(id),
            body: body.clone(),
        });
        work.events.push(EventKind::MessageSent { seq, place, epoch, body });
    }
}
