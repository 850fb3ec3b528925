//! Branches: what commits do to the membership, entries that gateways accepted without a quorum, and marks in the log.

use std::collections::BTreeMap;

use bytes::Bytes;
use group_log::{
    ClientId, EntryId,
    fork::{BranchEntry, CommitFacts, GatewayId, Item, LeafId, LogEntry, Mark},
};

use super::{WireError, chain_hash, client_id, length, state_id};
use crate::log::v1 as wire;

/// Reads an entry's id: 32 bytes.
pub fn entry_id(field: &'static str, bytes: &[u8]) -> Result<EntryId, WireError> {
    bytes.try_into().map(EntryId).map_err(|_| WireError { field, expected: "32 bytes", got: length(bytes) })
}

/// Reads a gateway's id: 16 bytes.
pub fn gateway_id(field: &'static str, bytes: &[u8]) -> Result<GatewayId, WireError> {
    bytes.try_into().map(GatewayId).map_err(|_| WireError { field, expected: "16 bytes", got: length(bytes) })
}

/// Reads a leaf's id: 32 bytes.
pub fn leaf_id(field: &'static str, bytes: &[u8]) -> Result<LeafId, WireError> {
    bytes.try_into().map(LeafId).map_err(|_| WireError { field, expected: "32 bytes", got: length(bytes) })
}

/// Reads leaf ids, each of 32 bytes. How many there may be is for the rules to say.
pub fn leaf_ids(field: &'static str, leaves: &[Bytes]) -> Result<Vec<LeafId>, WireError> {
    leaves.iter().map(|leaf| leaf_id(field, leaf)).collect()
}

/// Leaf ids for the wire.
pub fn leaves<'l>(leaves: impl IntoIterator<Item = &'l LeafId>) -> Vec<Bytes> {
    leaves.into_iter().map(|leaf| Bytes::copy_from_slice(&leaf.0)).collect()
}

fn entry_ids(field: &'static str, ids: &[Bytes]) -> Result<Vec<EntryId>, WireError> {
    ids.iter().map(|id| entry_id(field, id)).collect()
}

fn ids(ids: &[EntryId]) -> Vec<Bytes> {
    ids.iter().map(EntryId::to_bytes).collect()
}

impl From<&CommitFacts> for wire::CommitFacts {
    fn from(facts: &CommitFacts) -> Self {
        wire::CommitFacts {
            author: facts.author.map(|leaf| Bytes::copy_from_slice(&leaf.0)).unwrap_or_default(),
            removes: leaves(&facts.removes),
            adds: leaves(&facts.adds),
        }
    }
}

impl TryFrom<&wire::CommitFacts> for CommitFacts {
    type Error = WireError;

    fn try_from(facts: &wire::CommitFacts) -> Result<Self, WireError> {
        let author = &facts.author;
        Ok(CommitFacts {
            author: if author.is_empty() { None } else { Some(leaf_id("facts.author", author)?) },
            removes: leaf_ids("facts.removes", &facts.removes)?,
            adds: leaf_ids("facts.adds", &facts.adds)?,
        })
    }
}

/// Facts for the wire; absent if there are none.
pub fn facts_out(facts: &CommitFacts) -> Option<wire::CommitFacts> {
    (!facts.is_empty()).then(|| facts.into())
}

/// Reads facts that may be absent.
pub fn facts_in(facts: Option<&wire::CommitFacts>) -> Result<CommitFacts, WireError> {
    facts.map_or_else(|| Ok(CommitFacts::default()), TryInto::try_into)
}

impl From<BranchEntry> for wire::BranchEntry {
    fn from(entry: BranchEntry) -> Self {
        wire::BranchEntry {
            parent_state_id: entry.parent.to_bytes(),
            author: entry.author.to_bytes(),
            facts: facts_out(&entry.facts),
            content: Some(entry.content.into()),
        }
    }
}

impl TryFrom<wire::BranchEntry> for BranchEntry {
    type Error = WireError;

    fn try_from(entry: wire::BranchEntry) -> Result<Self, WireError> {
        let expected = "a commit, a proposal or an application message";
        let content = entry.content.ok_or(WireError::missing("branch_entry.content", expected))?;
        Ok(BranchEntry {
            parent: state_id("branch_entry.parent_state_id", &entry.parent_state_id)?,
            author: client_id("branch_entry.author", entry.author)?,
            content: content.try_into()?,
            facts: facts_in(entry.facts.as_ref())?,
        })
    }
}

impl From<Mark> for wire::Content {
    fn from(mark: Mark) -> Self {
        use wire::content::Content as Wire;
        let content = match mark {
            Mark::Side { ids: names, owed } => Wire::Side(wire::Side {
                ids: ids(&names),
                owed: leaves(&owed),
                owed_leaf_indices: Vec::new(),
            }),
            Mark::Late { ids: names } => Wire::Late(wire::Late { ids: ids(&names) }),
            Mark::Stable { position } => Wire::Stable(wire::Stable { position }),
        };
        wire::Content { content: Some(content) }
    }
}

impl From<Item> for wire::Content {
    fn from(item: Item) -> Self {
        match item {
            Item::Content(content) => content.into(),
            Item::Mark(mark) => mark.into(),
        }
    }
}

impl TryFrom<wire::Content> for Item {
    type Error = WireError;

    fn try_from(content: wire::Content) -> Result<Self, WireError> {
        use wire::content::Content as Wire;
        Ok(Item::Mark(match content.content {
            Some(Wire::Side(side)) => Mark::Side {
                ids: entry_ids("content.side.ids", &side.ids)?,
                owed: leaf_ids("content.side.owed", &side.owed)?,
            },
            Some(Wire::Late(late)) => Mark::Late { ids: entry_ids("content.late.ids", &late.ids)? },
            Some(Wire::Stable(wire::Stable { position })) => Mark::Stable { position },
            content => return Ok(Item::Content(wire::Content { content }.try_into()?)),
        }))
    }
}

impl From<LogEntry> for wire::Entry {
    /// Without the bodies, which travel apart.
    fn from(entry: LogEntry) -> Self {
        wire::Entry {
            seq: entry.seq,
            chain_hash: entry.chain.to_bytes(),
            epoch: entry.epoch,
            state_id: entry.state_id.to_bytes(),
            author: entry.author.map(|author| author.to_bytes()).unwrap_or_default(),
            content: Some(entry.item.into()),
            facts: facts_out(&entry.facts),
        }
    }
}

/// An entry of any group's log, whoever wrote it. `bodies` are the entries that a Side or Late mark names, in its order; a reader that
/// only checks hashes needs none.
pub fn log_entry(entry: wire::Entry, bodies: Vec<wire::BranchEntry>) -> Result<LogEntry, WireError> {
    let content = entry.content.ok_or(WireError::missing("entry.content", "what the entry carries"))?;
    Ok(LogEntry {
        seq: entry.seq,
        chain: chain_hash("entry.chain_hash", &entry.chain_hash)?,
        epoch: entry.epoch,
        state_id: state_id("entry.state_id", &entry.state_id)?,
        author: optional_author(entry.author)?,
        item: content.try_into()?,
        facts: facts_in(entry.facts.as_ref())?,
        bodies: bodies.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
    })
}

impl TryFrom<wire::Entry> for LogEntry {
    type Error = WireError;

    /// Without bodies. See [`log_entry`].
    fn try_from(entry: wire::Entry) -> Result<Self, WireError> {
        log_entry(entry, Vec::new())
    }
}

pub(super) fn optional_author(author: Bytes) -> Result<Option<ClientId>, WireError> {
    if author.is_empty() { Ok(None) } else { client_id("entry.author", author).map(Some) }
}

/// Bodies in the order in which a mark names them. What it does not name is dropped, what did not come is left out.
pub fn in_order(mark: &Mark, bodies: Vec<BranchEntry>) -> Vec<BranchEntry> {
    let names: &[EntryId] = match mark {
        Mark::Side { ids, .. } | Mark::Late { ids } => ids,
        Mark::Stable { .. } => &[],
    };
    let mut by_id: BTreeMap<_, _> = bodies.into_iter().map(|body| (body.id(), body)).collect();
    names.iter().filter_map(|id| by_id.remove(id)).collect()
}
