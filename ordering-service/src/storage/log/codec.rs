//! The binary form of log entries, votes, log ids and memberships: on disk, in snapshots and between nodes.
//!
//! Decoding bad bytes gives a typed error, never a panic, and never allocates more than the bytes given. The command of an
//! entry stays a slice of the bytes that it came in.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::{EntryPayload, Membership, impls::leader_id_adv::LeaderId};

use super::{LogEntry, LogId, StoredMembership, Vote};
use crate::{
    raft::types::{NodeId, NodeInfo, Proposed},
    storage::wire::{DecodeError, Fields, Put},
};

const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// Bytes in front of the command of an entry.
pub const ENTRY_HEADER_BYTES: usize = 1 + 8 + 8 + 8 + 8;

/// Appends an entry to `out`.
pub fn encode_entry(entry: &LogEntry, out: &mut Vec<u8>) {
    if let Some(command) = encode_entry_head(entry, out) {
        out.extend_from_slice(command);
    }
}

/// Appends all of an entry but its command, which comes last and is given back.
pub(crate) fn encode_entry_head<'a>(entry: &'a LogEntry, out: &mut Vec<u8>) -> Option<&'a Bytes> {
    out.put_byte(match &entry.payload {
        EntryPayload::Blank => BLANK,
        EntryPayload::Normal(_) => NORMAL,
        EntryPayload::Membership(_) => MEMBERSHIP,
    });
    put_log_id(&entry.log_id, out);
    match &entry.payload {
        EntryPayload::Blank => None,
        EntryPayload::Normal(Proposed { at_ms, command }) => {
            out.put_int(*at_ms);
            Some(command)
        }
        EntryPayload::Membership(membership) => {
            put_membership(membership, out);
            None
        }
    }
}

/// The index of an encoded entry, without decoding the rest.
pub(crate) fn encoded_index(bytes: &Bytes) -> Result<u64, DecodeError> {
    let mut fields = Fields::new(bytes.clone());
    fields.byte("entry kind")?;
    Ok(take_log_id(&mut fields)?.index)
}

/// Reads one entry that fills `bytes`.
pub fn decode_entry(bytes: Bytes) -> Result<LogEntry, DecodeError> {
    let mut fields = Fields::new(bytes);
    let kind = fields.byte("entry kind")?;
    let log_id = take_log_id(&mut fields)?;
    let payload = match kind {
        BLANK => {
            fields.end()?;
            EntryPayload::Blank
        }
        NORMAL => {
            let at_ms = fields.int("proposal time")?;
            EntryPayload::Normal(Proposed { at_ms, command: fields.rest() })
        }
        MEMBERSHIP => {
            let membership = take_membership(&mut fields)?;
            fields.end()?;
            EntryPayload::Membership(membership)
        }
        got => return Err(DecodeError::Value { what: "entry kind", got: got.into() }),
    };
    Ok(LogEntry { log_id, payload })
}

/// Bytes of memory that an entry counts for.
pub(crate) fn entry_bytes(entry: &LogEntry) -> usize {
    let payload = match &entry.payload {
        EntryPayload::Normal(proposed) => proposed.command.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    };
    payload + crate::storage::limits::ENTRY_OVERHEAD_BYTES
}

/// A vote's binary form.
pub fn encode_vote(vote: &Vote) -> Vec<u8> {
    let mut out = Vec::with_capacity(17);
    put_leader(&vote.leader_id, &mut out);
    out.put_byte(vote.committed.into());
    out
}

/// Reads a vote.
pub fn decode_vote(bytes: Bytes) -> Result<Vote, DecodeError> {
    let mut fields = Fields::new(bytes);
    let vote = Vote { leader_id: take_leader(&mut fields)?, committed: fields.flag("vote committed")? };
    fields.end()?;
    Ok(vote)
}

/// A log id's binary form: 24 bytes.
pub fn encode_log_id(log_id: &LogId) -> Vec<u8> {
    let mut out = Vec::with_capacity(24);
    put_log_id(log_id, &mut out);
    out
}

/// Reads a log id.
pub fn decode_log_id(bytes: Bytes) -> Result<LogId, DecodeError> {
    let mut fields = Fields::new(bytes);
    let log_id = take_log_id(&mut fields)?;
    fields.end()?;
    Ok(log_id)
}

/// The binary form of the last log id that something covers, and the membership at that point.
pub fn encode_position(last: Option<&LogId>, membership: &StoredMembership) -> Vec<u8> {
    let mut out = Vec::new();
    put_optional_log_id(last, &mut out);
    put_optional_log_id(membership.log_id().as_ref(), &mut out);
    put_membership(membership.membership(), &mut out);
    out
}

/// Reads what [`encode_position`] wrote.
pub fn decode_position(bytes: Bytes) -> Result<(Option<LogId>, StoredMembership), DecodeError> {
    let mut fields = Fields::new(bytes);
    let last = take_optional_log_id(&mut fields)?;
    let membership_at = take_optional_log_id(&mut fields)?;
    let membership = take_membership(&mut fields)?;
    fields.end()?;
    Ok((last, StoredMembership::new(membership_at, membership)))
}

fn put_leader(leader: &LeaderId<u64, NodeId>, out: &mut Vec<u8>) {
    out.put_int(leader.term);
    out.put_int(leader.node_id);
}

fn take_leader(fields: &mut Fields) -> Result<LeaderId<u64, NodeId>, DecodeError> {
    Ok(LeaderId { term: fields.int("term")?, node_id: fields.int("leader")? })
}

fn put_log_id(log_id: &LogId, out: &mut Vec<u8>) {
    put_leader(&log_id.leader_id, out);
    out.put_int(log_id.index);
}

fn take_log_id(fields: &mut Fields) -> Result<LogId, DecodeError> {
    Ok(LogId::new(take_leader(fields)?, fields.int("log index")?))
}

fn put_optional_log_id(log_id: Option<&LogId>, out: &mut Vec<u8>) {
    out.put_byte(log_id.is_some().into());
    if let Some(log_id) = log_id {
        put_log_id(log_id, out);
    }
}

fn take_optional_log_id(fields: &mut Fields) -> Result<Option<LogId>, DecodeError> {
    match fields.flag("log id present")? {
        false => Ok(None),
        true => take_log_id(fields).map(Some),
    }
}

fn put_membership(membership: &Membership<NodeId, NodeInfo>, out: &mut Vec<u8>) {
    let configs = membership.get_joint_config();
    out.put_int32(configs.len() as u32);
    for config in configs {
        out.put_int32(config.len() as u32);
        config.iter().for_each(|node| out.put_int(*node));
    }
    let nodes: Vec<_> = membership.nodes().collect();
    out.put_int32(nodes.len() as u32);
    for (node_id, NodeInfo { peer_address, address, site, disk_id }) in nodes {
        out.put_int(*node_id);
        out.put_string(peer_address.as_bytes());
        out.put_string(address.as_bytes());
        out.put_string(site.as_bytes());
        out.extend_from_slice(disk_id);
    }
}

fn take_membership(fields: &mut Fields) -> Result<Membership<NodeId, NodeInfo>, DecodeError> {
    let mut configs = Vec::new();
    for _ in 0..fields.count("voter sets", 4)? {
        let mut config = BTreeSet::new();
        for _ in 0..fields.count("voters", 8)? {
            config.insert(fields.int("voter")?);
        }
        configs.push(config);
    }
    let mut nodes = BTreeMap::new();
    for _ in 0..fields.count("nodes", 8 + 3 * 4 + 16)? {
        let node_id = fields.int("node id")?;
        let info = NodeInfo {
            peer_address: fields.text("peer address")?,
            address: fields.text("address")?,
            site: fields.text("site")?,
            disk_id: fields.array("disk id")?,
        };
        nodes.insert(node_id, info);
    }
    let voters = configs.len() as u64;
    Membership::new(configs, nodes).map_err(|_| DecodeError::Value { what: "membership", got: voters })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn log_ids() -> impl Strategy<Value = LogId> {
        (any::<u64>(), any::<u64>(), any::<u64>())
            .prop_map(|(term, node_id, index)| LogId::new(LeaderId { term, node_id }, index))
    }

    fn nodes() -> impl Strategy<Value = NodeInfo> {
        ("[a-z0-9:.]{0,20}", "[a-z0-9:.]{0,20}", "[a-zé]{0,8}", any::<[u8; 16]>()).prop_map(
            |(peer_address, address, site, disk_id)| NodeInfo { peer_address, address, site, disk_id },
        )
    }

    fn memberships() -> impl Strategy<Value = Membership<NodeId, NodeInfo>> {
        let known = proptest::collection::btree_map(1u64..50, nodes(), 1..6);
        (known, 0usize..3).prop_map(|(known, joint)| {
            let configs = (0..joint).map(|skip| known.keys().skip(skip % known.len()).copied().collect());
            Membership::new(configs.collect(), known.clone()).unwrap()
        })
    }

    fn entries() -> impl Strategy<Value = LogEntry> {
        let payload = prop_oneof![
            Just(EntryPayload::Blank),
            (any::<u64>(), proptest::collection::vec(any::<u8>(), 0..200)).prop_map(|(at_ms, command)| {
                EntryPayload::Normal(Proposed { at_ms, command: command.into() })
            }),
            memberships().prop_map(EntryPayload::Membership),
        ];
        (log_ids(), payload).prop_map(|(log_id, payload)| LogEntry { log_id, payload })
    }

    proptest! {
        #[test]
        fn entries_come_back_as_they_were_written(entry in entries()) {
            let mut bytes = Vec::new();
            encode_entry(&entry, &mut bytes);
            prop_assert_eq!(decode_entry(bytes.into()).unwrap(), entry);
        }

        #[test]
        fn votes_and_log_ids_come_back_as_they_were_written(log_id in log_ids(), committed: bool) {
            let vote = Vote { leader_id: log_id.leader_id, committed };
            prop_assert_eq!(decode_vote(encode_vote(&vote).into()).unwrap(), vote);
            prop_assert_eq!(decode_log_id(encode_log_id(&log_id).into()).unwrap(), log_id);
        }

        #[test]
        fn positions_come_back_as_they_were_written(
            last in proptest::option::of(log_ids()), at in proptest::option::of(log_ids()), members in memberships()
        ) {
            let membership = StoredMembership::new(at, members);
            let back = decode_position(encode_position(last.as_ref(), &membership).into()).unwrap();
            prop_assert_eq!(back, (last, membership));
        }

        #[test]
        fn bad_bytes_are_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let bytes = Bytes::from(bytes);
            let _ = decode_entry(bytes.clone());
            let _ = decode_vote(bytes.clone());
            let _ = decode_log_id(bytes.clone());
            let _ = decode_position(bytes);
        }

        #[test]
        fn a_cut_membership_entry_is_an_error(members in memberships(), log_id in log_ids(), keep in 0.0..1.0f64) {
            let mut bytes = Vec::new();
            encode_entry(&LogEntry { log_id, payload: EntryPayload::Membership(members) }, &mut bytes);
            bytes.truncate((bytes.len() as f64 * keep) as usize);
            prop_assert!(decode_entry(bytes.into()).is_err());
        }
    }
}
