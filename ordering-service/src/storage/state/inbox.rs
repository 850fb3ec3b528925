//! Welcomes that wait for clients that are offline. Bounded for each client: the oldest give way, and are counted.

use bytes::Bytes;
use concordat_proto::{
    log::v1::Refused,
    ordering::v1::{AckWelcomes, WelcomesAcked, outcome::Outcome},
};

use super::{
    batch::Batch,
    keys::{RowKey, trailing_number},
    rows::{InboxRow, WelcomeRow},
};
use crate::storage::{error::StorageError, limits::INBOX_WELCOMES_PER_CLIENT};

/// Puts a Welcome into a client's inbox. `position` is the log index that brought its commit into the log.
pub(super) fn deliver(
    batch: &mut Batch<'_>,
    client: Bytes,
    position: u64,
    row: &WelcomeRow,
) -> Result<(), StorageError> {
    let mut inbox = inbox(batch, &client)?;
    let key = RowKey::Welcome { client: &client, position };
    // The close of a collection can make several commits canonical that welcome one client.
    if let Some(before) = batch.get(&key)? {
        let mut rows = before.to_vec();
        row.put(&mut rows);
        batch.put(&key, rows);
        return Ok(());
    }
    if inbox.waiting >= INBOX_WELCOMES_PER_CLIENT
        && let Some(oldest) = remove(batch, &client, inbox.after, u64::MAX, 1)?.first()
    {
        inbox.after = *oldest;
        inbox.waiting -= 1;
        inbox.dropped += 1;
        batch.dropped += 1;
    }
    inbox.waiting += 1;
    let mut rows = Vec::new();
    row.put(&mut rows);
    batch.put(&RowKey::Welcome { client: &client, position }, rows);
    batch.put(&RowKey::Inbox { client: &client }, inbox.encode());
    batch.inbox_advanced(client, position);
    Ok(())
}

/// Removes what a client has taken in.
pub(super) fn acknowledge(batch: &mut Batch<'_>, ack: AckWelcomes) -> Result<Outcome, StorageError> {
    if let Err(error) = concordat_proto::convert::client_id("client_id", ack.client_id.clone()) {
        return Ok(Outcome::Refused(Refused::from(&error)));
    }
    let client = ack.client_id;
    let mut inbox = inbox(batch, &client)?;
    if ack.position > inbox.after && inbox.waiting > 0 {
        let removed = remove(batch, &client, inbox.after, ack.position, INBOX_WELCOMES_PER_CLIENT as usize)?;
        inbox.waiting = inbox.waiting.saturating_sub(removed.len() as u64);
        inbox.after = removed.last().copied().unwrap_or(inbox.after);
        batch.put(&RowKey::Inbox { client: &client }, inbox.encode());
    }
    let left = u32::try_from(inbox.waiting).unwrap_or(u32::MAX);
    Ok(Outcome::WelcomesAcked(WelcomesAcked { left }))
}

/// Removes a Welcome whose commit is given up, if it still waits. Counted as dropped.
pub(super) fn withdraw(batch: &mut Batch<'_>, client: &Bytes, position: u64) -> Result<(), StorageError> {
    let key = RowKey::Welcome { client, position };
    if batch.get(&key)?.is_some() {
        batch.delete(&key);
        batch.dropped += 1;
        let mut inbox = inbox(batch, client)?;
        inbox.waiting = inbox.waiting.saturating_sub(1);
        inbox.dropped += 1;
        batch.put(&RowKey::Inbox { client }, inbox.encode());
    }
    Ok(())
}

/// Removes the oldest Welcomes after a position. Returns their positions.
fn remove(
    batch: &mut Batch<'_>,
    client: &Bytes,
    after: u64,
    upto: u64,
    max: usize,
) -> Result<Vec<u64>, StorageError> {
    let first = RowKey::Welcome { client, position: after.saturating_add(1) };
    let last = RowKey::Welcome { client, position: upto };
    let mut removed = Vec::new();
    for key in batch.keys(&first, &last, max)? {
        let position =
            trailing_number(&key).map_err(|error| batch.rows.bad_row("a waiting Welcome", error))?;
        batch.delete(&RowKey::Welcome { client, position });
        removed.push(position);
    }
    Ok(removed)
}

fn inbox(batch: &Batch<'_>, client: &[u8]) -> Result<InboxRow, StorageError> {
    Ok(batch.get_as(&RowKey::Inbox { client }, "an inbox", InboxRow::decode)?.unwrap_or_default())
}
