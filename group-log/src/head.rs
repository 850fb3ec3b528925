//! The head of a group: everything that decides whether the next submission is admitted.

use crate::{
    codec::{DecodeError, Reader, Writer},
    content::{CommitRef, EntryKind, GroupKind, Policy, Record},
    ids::{ChainHash, ClientId, EntryId, StateId},
    limits::{MAX_CLIENT_ID_BYTES, MAX_EPOCH, MAX_PAST_EPOCHS, MAX_RETAIN_HOURS, MAX_SEQ},
    turns::Turn,
};

const VERSION: u8 = 1;
/// Of a head with a turn at its end.
const VERSION_WITH_TURN: u8 = 2;
/// Added to either for a group with retention of its own, which then comes first.
const WITH_RETENTION: u8 = 2;
const EPOCH_BOUND: &str = "an epoch of at most 2^62";
const SEQ_BOUND: &str = "a number of at most 2^62";

/// The newest position of a group. About 80 bytes when stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What the group is.
    pub kind: GroupKind,
    /// Its policy now.
    pub policy: Policy,
    /// The epoch in which the log begins.
    pub first_epoch: u64,
    /// The current epoch.
    pub epoch: u64,
    /// The exact current state.
    pub state_id: StateId,
    /// Number of the last entry.
    pub seq: u64,
    /// Chain hash of the last entry.
    pub chain: ChainHash,
    /// Number of the entry that closed the group, once it is closed.
    pub closed: Option<u64>,
    /// Number of the entry with the newest GroupInfo.
    pub group_info_seq: u64,
    /// The epoch that this GroupInfo describes. Behind `epoch` if the last committers published none.
    pub group_info_epoch: u64,
    /// Whose turn it is to commit, if the group takes turns.
    pub turn: Option<Turn>,
}

impl Head {
    /// The group was closed: nothing new is accepted.
    pub fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// The oldest epoch from which application messages are accepted.
    pub fn oldest_application_epoch(&self) -> u64 {
        self.epoch.saturating_sub(self.policy.past_epochs.into()).max(self.first_epoch)
    }

    /// For storage.
    pub fn encode(&self) -> Vec<u8> {
        let version = if self.turn.is_some() { VERSION_WITH_TURN } else { VERSION };
        let writer = match self.policy.has_retention() {
            true => Writer::new(version + WITH_RETENTION)
                .int(self.policy.retain_entries)
                .int(self.policy.retain_hours.into()),
            false => Writer::new(version),
        };
        let writer = writer
            .byte(self.kind.tag())
            .int(self.policy.past_epochs.into())
            .int(self.first_epoch)
            .int(self.epoch)
            .fixed(&self.state_id.0)
            .int(self.seq)
            .fixed(&self.chain.0)
            .int(self.closed.unwrap_or(0))
            .int(self.group_info_seq)
            .int(self.group_info_epoch);
        Turn::encode(self.turn, writer).finish()
    }

    /// Reads [`Head::encode`]. One head has one encoding.
    pub fn decode(bytes: &[u8]) -> Result<Head, DecodeError> {
        let first = bytes.first().copied().unwrap_or(VERSION);
        let has_retention = (VERSION + WITH_RETENTION..=VERSION_WITH_TURN + WITH_RETENTION).contains(&first);
        let has_turn = [VERSION_WITH_TURN, VERSION_WITH_TURN + WITH_RETENTION].contains(&first);
        let version = if has_retention || has_turn { first } else { VERSION };
        let mut reader = Reader::new("head", version, bytes)?;
        let mut policy = Policy { past_epochs: 0, retain_entries: 0, retain_hours: 0 };
        if has_retention {
            policy.retain_entries = reader.int_to("policy.retain_entries", MAX_SEQ, SEQ_BOUND)?;
            let hours = reader.int_to("policy.retain_hours", MAX_RETAIN_HOURS.into(), "0 to 876000")?;
            policy.retain_hours = hours as u32;
            if !policy.has_retention() {
                let expected = "above 0, as is said before it";
                return Err(DecodeError::Value { field: "policy.retain_hours", expected, got: 0 });
            }
        }
        let kind = read_kind(&mut reader)?;
        policy.past_epochs = reader.int_to("policy.past_epochs", MAX_PAST_EPOCHS.into(), "0 to 64")? as u32;
        let first_epoch = reader.int_to("first_epoch", MAX_EPOCH, EPOCH_BOUND)?;
        let epoch = reader.int_to("epoch", MAX_EPOCH, EPOCH_BOUND)?;
        let state_id = StateId(reader.fixed("state_id")?);
        let seq = reader.int_to("seq", MAX_SEQ, SEQ_BOUND)?;
        let chain = ChainHash(reader.fixed("chain")?);
        let closed = reader.int_to("closed", MAX_SEQ, SEQ_BOUND)?;
        let group_info_seq = reader.int_to("group_info_seq", MAX_SEQ, SEQ_BOUND)?;
        let group_info_epoch = reader.int_to("group_info_epoch", MAX_EPOCH, EPOCH_BOUND)?;
        let turn = if has_turn { Some(Turn::decode(&mut reader)?) } else { None };
        reader.finish("head")?;
        Ok(Head {
            kind,
            policy,
            first_epoch,
            epoch,
            state_id,
            seq,
            chain,
            closed: (closed != 0).then_some(closed),
            group_info_seq,
            group_info_epoch,
            turn,
        })
    }
}

impl Record {
    /// For storage. About 80 bytes and the author; 110 for an application message of a past epoch.
    pub fn encode(&self) -> Vec<u8> {
        let id_is_state = self.id == EntryId::from(self.state_id);
        let moved = self.state_after != self.state_id;
        let writer = Writer::new(VERSION)
            .byte(self.kind.tag())
            .int(self.epoch)
            .int(self.epoch_after)
            .fixed(&self.state_id.0)
            .fixed(&self.chain.0)
            .bytes(self.author.as_ref().map_or(&[], ClientId::as_bytes))
            .byte(u8::from(!id_is_state) | u8::from(moved) << 1);
        let writer = if id_is_state { writer } else { writer.fixed(&self.id.0) };
        let writer = if moved { writer.fixed(&self.state_after.0) } else { writer };
        writer.finish()
    }

    /// Reads [`Record::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
        let mut reader = Reader::new("record", VERSION, bytes)?;
        let tag = reader.byte("kind")?;
        let kind = EntryKind::from_tag(tag).ok_or(DecodeError::Value {
            field: "kind",
            expected: "a kind of entry (1 to 9)",
            got: tag.into(),
        })?;
        let epoch = reader.int_to("epoch", MAX_EPOCH, EPOCH_BOUND)?;
        let epoch_after = reader.int_to("epoch_after", MAX_EPOCH, EPOCH_BOUND)?;
        let state_id = StateId(reader.fixed("state_id")?);
        let chain = ChainHash(reader.fixed("chain")?);
        let author = ClientId::new(reader.bytes("author", MAX_CLIENT_ID_BYTES)?).ok();
        let flags = reader.byte("flags")?;
        if flags > 3 {
            return Err(DecodeError::Value { field: "flags", expected: "0 to 3", got: flags.into() });
        }
        let id = match flags & 1 {
            0 => state_id.into(),
            _ => EntryId(reader.fixed("id")?),
        };
        let state_after = match flags & 2 {
            0 => state_id,
            _ => StateId(reader.fixed("state_after")?),
        };
        reader.finish("record")?;
        Ok(Record { id, kind, epoch, state_id, chain, author, epoch_after, state_after })
    }
}

impl CommitRef {
    /// For storage.
    pub fn encode(&self) -> Vec<u8> {
        Writer::new(VERSION)
            .int(self.seq)
            .fixed(&self.parent.0)
            .fixed(&self.state_id.0)
            .fixed(&self.chain.0)
            .finish()
    }

    /// Reads [`CommitRef::encode`].
    pub fn decode(bytes: &[u8]) -> Result<CommitRef, DecodeError> {
        let mut reader = Reader::new("commit reference", VERSION, bytes)?;
        let seq = reader.int_to("seq", MAX_SEQ, SEQ_BOUND)?;
        let parent = StateId(reader.fixed("parent")?);
        let state_id = StateId(reader.fixed("state_id")?);
        let chain = ChainHash(reader.fixed("chain")?);
        reader.finish("commit reference")?;
        Ok(CommitRef { seq, parent, state_id, chain })
    }
}

fn read_kind(reader: &mut Reader<'_>) -> Result<GroupKind, DecodeError> {
    let tag = reader.byte("kind")?;
    GroupKind::from_tag(tag).ok_or(DecodeError::Value {
        field: "kind",
        expected: "a kind of group (1 to 3)",
        got: tag.into(),
    })
}
