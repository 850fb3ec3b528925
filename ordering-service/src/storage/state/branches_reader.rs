//! Reads about branches and gateways, from any task.

use bytes::Bytes;
use concordat_proto::log::v1::BranchEntry;
use group_log::fork::{ForkState, GatewayId};
use prost::Message;

use super::{
    branches::{LAST_GROUP, OpenRow},
    heads,
    keys::{RowKey, trailing_name},
    payload::Payloads,
    place::ReportedAt,
    reader::{ShardReader, get_as},
    rows::{RecordRow, decode_number},
    shard::Rows,
};
use crate::storage::{error::StorageError, wire::DecodeError};

/// A collection that waits for its close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenCollection {
    /// The group.
    pub group_id: Bytes,
    /// Counts the group's collections.
    pub number: u64,
    /// The leader's wall clock when it was opened, in milliseconds since 1970.
    pub opened_at_ms: u64,
    /// Entries that wait for the close.
    pub candidates: u32,
}

/// A gateway that is registered for at least one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownGateway {
    /// Which.
    pub id: GatewayId,
    /// The leader's wall clock when it was last seen, in milliseconds since 1970.
    pub seen_at_ms: u64,
}

impl ShardReader {
    /// Collections that are open, at most `max`.
    pub fn open_collections(&self, max: usize) -> Result<Vec<OpenCollection>, StorageError> {
        self.read(|rows| {
            let mut open = Vec::new();
            let (first, last) = (RowKey::Open { group: &[] }, RowKey::Open { group: &LAST_GROUP });
            scan(rows, &first, &last, max, |key, value| {
                let OpenRow { number, opened_at_ms, candidates } = OpenRow::decode(value)?;
                let group_id = trailing_name(key, 0)?;
                open.push(OpenCollection { group_id, number, opened_at_ms, candidates });
                Ok(())
            })?;
            Ok(open)
        })
    }

    /// The state of a group's branches; the default if there never were any.
    pub fn fork_state(&self, group: &[u8]) -> Result<ForkState, StorageError> {
        self.read(|rows| {
            let state = get_as(rows, &RowKey::Fork { group }, |row| ForkState::decode(&row))?;
            Ok(state.unwrap_or_default())
        })
    }

    /// A collection of the group is open.
    pub(super) fn is_collecting(&self, group: &[u8]) -> Result<bool, StorageError> {
        self.read(|rows| Ok(rows.get(&RowKey::Open { group }.encode())?.is_some()))
    }

    /// Gateways that are registered for any group of this shard, at most `max`.
    pub fn gateways(&self, max: usize) -> Result<Vec<KnownGateway>, StorageError> {
        self.read(|rows| {
            let mut known = Vec::new();
            let (first, last) =
                (RowKey::Gateway { gateway: &[0; 16] }, RowKey::Gateway { gateway: &[0xff; 16] });
            scan(rows, &first, &last, max, |key, value| {
                let id = key.get(1..).and_then(|id| id.try_into().ok());
                let id = id.ok_or(DecodeError::Short { what: "gateway", needed: 17, left: key.len() })?;
                known.push(KnownGateway { id: GatewayId(id), seen_at_ms: decode_number(value)? });
                Ok(())
            })?;
            Ok(known)
        })
    }

    /// When a leader last noted which gateways are there: its wall clock, in milliseconds since 1970.
    pub fn gateways_noted_at_ms(&self) -> Result<Option<u64>, StorageError> {
        self.read(|rows| get_as(rows, &RowKey::Noted, decode_number))
    }

    /// Groups that a gateway is registered for, after `after` in the order of keys, at most `max`.
    pub fn groups_of(
        &self,
        gateway: &GatewayId,
        after: Option<&[u8]>,
        max: usize,
    ) -> Result<Vec<Bytes>, StorageError> {
        self.read(|rows| {
            let GatewayId(gateway) = gateway;
            let mut groups = Vec::new();
            let first = RowKey::GroupOf { gateway, group: after.unwrap_or_default() };
            let last = RowKey::GroupOf { gateway, group: &LAST_GROUP };
            // One more, because the first may be the one to start after.
            scan(rows, &first, &last, max.saturating_add(1), |key, _| {
                let group = trailing_name(key, gateway.len())?;
                if after.is_none_or(|after| group != after) && groups.len() < max {
                    groups.push(group);
                }
                Ok(())
            })?;
            Ok(groups)
        })
    }

    /// Groups in which removals are owed, counted up to `max`.
    pub fn groups_that_owe(&self, max: usize) -> Result<usize, StorageError> {
        self.read(|rows| {
            let mut count = 0;
            let (first, last) = (RowKey::Owed { group: &[] }, RowKey::Owed { group: &LAST_GROUP });
            scan(rows, &first, &last, max, |_, _| {
                count += 1;
                Ok(())
            })?;
            Ok(count)
        })
    }

    /// Gateways whose acknowledgement is missing for something in a group's log to become stable.
    pub fn holding_back(&self, group: &[u8]) -> Result<Vec<GatewayId>, StorageError> {
        self.read(|rows| {
            let Some(head) = heads::head(rows, group)? else { return Ok(Vec::new()) };
            let fork = get_as(rows, &RowKey::Fork { group }, |row| ForkState::decode(&row))?;
            fork.unwrap_or_default().holding_back(head.epoch, |seq| {
                let row = get_as(rows, &RowKey::Record { group, seq }, |row| RecordRow::decode(&row))?;
                let missing = || rows.bad_row("a record", "it is missing");
                Ok(row.ok_or_else(missing)?.record.epoch_after)
            })
        })
    }

    /// Groups in whose log something is not stable yet, in order, after `after`, at most `max`.
    pub fn unstable_groups(&self, after: Option<&[u8]>, max: usize) -> Result<Vec<Bytes>, StorageError> {
        self.read(|rows| {
            let first = RowKey::Unstable { group: after.unwrap_or_default() };
            let last = RowKey::Unstable { group: &LAST_GROUP };
            let mut groups = Vec::new();
            scan(rows, &first, &last, max.saturating_add(1), |key, _| {
                let group = trailing_name(key, 0)?;
                if after != Some(&group[..]) && groups.len() < max {
                    groups.push(group);
                }
                Ok(())
            })?;
            Ok(groups)
        })
    }

    /// Entries that were ever reported, in the order asked for. Those that are not known are left out; stops when the next would
    /// exceed `max_bytes` (but gives at least one).
    pub fn branch_entries(
        &self,
        group: &[u8],
        ids: &[[u8; 32]],
        max_bytes: usize,
    ) -> Result<Vec<BranchEntry>, StorageError> {
        self.read(|rows| {
            let payloads = Payloads::new(rows);
            let (mut entries, mut bytes) = (Vec::new(), 0);
            for id in ids {
                let Some(at) = get_as(rows, &RowKey::Reported { group, id }, ReportedAt::decode)? else {
                    continue;
                };
                let entry = payloads.reported(at)?;
                bytes += entry.encoded_len();
                if bytes > max_bytes && !entries.is_empty() {
                    break;
                }
                entries.push(entry);
            }
            Ok(entries)
        })
    }
}

fn scan(
    rows: &Rows<'_>,
    first: &RowKey<'_>,
    last: &RowKey<'_>,
    max: usize,
    mut row: impl FnMut(&[u8], Bytes) -> Result<(), DecodeError>,
) -> Result<(), StorageError> {
    let mut end = last.encode();
    end.push(0);
    rows.scan(&first.encode(), end, max, |key, value| {
        row(key, Bytes::copy_from_slice(value))
            .map_err(|error| rows.bad_row("a row about branches", error))?;
        Ok(true)
    })
}
