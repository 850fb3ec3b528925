//! What a leader must find without looking at every group: open collections, the groups of a gateway, when a gateway was last seen,
//! groups in which removals are owed.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use concordat_proto::{
    convert,
    log::v1::Refused,
    ordering::v1::{GatewayNoted, NoteGateways, outcome::Outcome},
};
use group_log::{
    EntryKind,
    fork::{Answer, Collecting, Command, ForkState, GatewayId},
};

use super::{
    apply::Origin,
    batch::Batch,
    keys::RowKey,
    rows::{decode_number, encode_number},
};
use crate::storage::{
    error::StorageError,
    limits::{NOTED_GATEWAYS, NOTES_APART, SEEN_RESOLUTION},
    wire::{DecodeError, Fields, Put},
};

/// An open collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenRow {
    /// Counts the collections of the group.
    pub(crate) number: u64,
    /// The leader's wall clock when it was opened, in milliseconds since 1970.
    pub(crate) opened_at_ms: u64,
    /// Entries that wait for the close.
    pub(crate) candidates: u32,
}

impl OpenRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(20);
        bytes.put_int(self.number);
        bytes.put_int(self.opened_at_ms);
        bytes.put_int32(self.candidates);
        bytes
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(bytes);
        let row = OpenRow {
            number: fields.int("number of a collection")?,
            opened_at_ms: fields.int("opening of a collection")?,
            candidates: fields.int32("candidates of a collection")?,
        };
        fields.end()?;
        Ok(row)
    }
}

/// Brings the rows in line with a group's new fork state.
pub(super) fn index(
    batch: &mut Batch<'_>,
    group: &Bytes,
    before: &ForkState,
    after: &ForkState,
    origin: Origin,
) -> Result<(), StorageError> {
    if before.collecting != after.collecting {
        index_collection(batch, group, after.collecting.as_ref(), origin)?;
    }
    if before.owed.len() != after.owed.len() {
        let key = RowKey::Owed { group };
        match after.owed.len() {
            0 => batch.delete(&key),
            owed => batch.put_number(&key, owed as u64),
        }
    }
    let (before, after): (BTreeSet<_>, BTreeSet<_>) =
        (before.gateways.keys().collect(), after.gateways.keys().collect());
    for GatewayId(gateway) in after.difference(&before) {
        batch.put(&RowKey::GroupOf { gateway, group }, Bytes::new());
        put_seen(batch, gateway, origin.at_ms)?;
    }
    for GatewayId(gateway) in before.difference(&after) {
        batch.delete(&RowKey::GroupOf { gateway, group });
        let first = RowKey::GroupOf { gateway, group: &[] };
        if batch.keys(&first, &RowKey::GroupOf { gateway, group: &LAST_GROUP }, 1)?.is_empty() {
            batch.delete(&RowKey::Gateway { gateway });
        }
    }
    Ok(())
}

/// Notes whether something in the log is not stable yet: found by whoever counts the gateways that are waited for. `appended` says
/// which kinds of entries are new, `fork` what the state is now if it is another one.
pub(super) fn note_unstable(
    batch: &mut Batch<'_>,
    group: &Bytes,
    appended: &[EntryKind],
    head_epoch: u64,
    fork: Option<&ForkState>,
) {
    let key = RowKey::Unstable { group };
    let waits = |kind: &EntryKind| matches!(kind, EntryKind::Commit | EntryKind::Side | EntryKind::Late);
    if appended.contains(&EntryKind::Stable)
        && fork.is_some_and(|fork| fork.stable_epoch == head_epoch && fork.pending_marks.is_empty())
    {
        batch.delete(&key);
    } else if appended.iter().any(waits) {
        batch.put(&key, Bytes::new());
    }
}

/// In the order of keys, at or after every group id of at most 256 bytes.
pub(crate) const LAST_GROUP: [u8; 257] = [0xff; 257];

fn index_collection(
    batch: &mut Batch<'_>,
    group: &Bytes,
    collecting: Option<&Collecting>,
    origin: Origin,
) -> Result<(), StorageError> {
    let key = RowKey::Open { group };
    let Some(Collecting { number, candidates, .. }) = collecting else {
        batch.delete(&key);
        return Ok(());
    };
    let before = batch.get_as(&key, "an open collection", OpenRow::decode)?;
    let opened_at_ms = match before {
        Some(row) if row.number == *number => row.opened_at_ms,
        _ => origin.at_ms,
    };
    batch.put(&key, OpenRow { number: *number, opened_at_ms, candidates: *candidates }.encode());
    Ok(())
}

/// A gateway that does something is there.
pub(super) fn seen(
    batch: &mut Batch<'_>,
    command: &Command,
    answer: &Answer,
    origin: Origin,
) -> Result<(), StorageError> {
    let gateway = match command {
        Command::Report(report) => &report.gateway,
        Command::Ack { gateway, .. }
        | Command::Register { gateway, .. }
        | Command::Release { gateway, .. } => gateway,
        Command::Submit { .. } | Command::Close(_) | Command::Evict { .. } => return Ok(()),
    };
    match answer {
        Answer::Rejected(_) => Ok(()),
        _ => note(batch, &gateway.0, origin.at_ms),
    }
}

/// These gateways are there, as a leader knows it.
pub(super) fn note_gateways(
    batch: &mut Batch<'_>,
    note_gateways: NoteGateways,
    origin: Origin,
) -> Result<Outcome, StorageError> {
    let ids = note_gateways.gateway_ids;
    if ids.len() > NOTED_GATEWAYS {
        let limit = [("limit", NOTED_GATEWAYS.to_string()), ("got", ids.len().to_string())];
        let message = format!("{} gateways at once, the limit is {NOTED_GATEWAYS}", ids.len());
        let reason = concordat_proto::log::v1::Reason::TooLarge;
        return Ok(Outcome::Refused(convert::refused(reason, message, limit)));
    }
    let ids: Result<Vec<_>, _> = ids.iter().map(|id| convert::gateway_id("gateway_ids", id)).collect();
    match ids {
        Ok(ids) => {
            skip_outage(batch, origin.at_ms)?;
            for id in ids {
                note(batch, &id.0, origin.at_ms)?;
            }
            Ok(Outcome::GatewayNoted(GatewayNoted::default()))
        }
        Err(error) => Ok(Outcome::Refused(Refused::from(&error))),
    }
}

/// Without a quorum nobody can be seen: such a time is added to everybody's last sign of life, so that gateways which held branches
/// through a long outage are not taken for gone.
fn skip_outage(batch: &mut Batch<'_>, at_ms: u64) -> Result<(), StorageError> {
    let before = batch.get_number(&RowKey::Noted, "the last note")?.unwrap_or(at_ms);
    let outage = at_ms.saturating_sub(before);
    if Duration::from_millis(outage) > NOTES_APART {
        let (first, last) = (RowKey::Gateway { gateway: &[0; 16] }, RowKey::Gateway { gateway: &[0xff; 16] });
        for (key, seen) in batch.range(&first, &last)? {
            let seen = decode_number(seen).map_err(|error| batch.rows.bad_row("a gateway", error))?;
            batch.put_key(key, encode_number(seen.saturating_add(outage)));
        }
    }
    batch.put_number(&RowKey::Noted, at_ms);
    Ok(())
}

/// Remembers when a gateway was seen, if it is registered for any group, and not with every command.
fn note(batch: &mut Batch<'_>, gateway: &[u8; 16], at_ms: u64) -> Result<(), StorageError> {
    let resolution = u64::try_from(SEEN_RESOLUTION.as_millis()).unwrap_or(u64::MAX);
    match batch.get_number(&RowKey::Gateway { gateway }, "a gateway")? {
        Some(before) if at_ms >= before.saturating_add(resolution) => put_seen(batch, gateway, at_ms),
        _ => Ok(()),
    }
}

fn put_seen(batch: &mut Batch<'_>, gateway: &[u8; 16], at_ms: u64) -> Result<(), StorageError> {
    let key = RowKey::Gateway { gateway };
    let before = batch.get_as(&key, "a gateway", decode_number)?.unwrap_or(0);
    batch.put(&key, encode_number(at_ms.max(before)));
    Ok(())
}
