//! Values of the state machine's rows, where they are more than what the rules encode themselves.

use bytes::Bytes;
use concordat_proto::log::v1::KeyPackage;
use group_log::{ChainHash, GroupKind, Record, StateId};

use super::place::Place;
use crate::storage::wire::{DecodeError, Fields, Put};

/// An entry of a group's log: where its payload is, and what is kept beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordRow {
    pub(crate) place: Place,
    /// It carries a GroupInfo.
    pub(crate) has_group_info: bool,
    pub(crate) record: Record,
}

impl RecordRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let record = self.record.encode();
        // A place of 8 bytes, as nearly all are.
        let mut bytes = Vec::with_capacity(8 + 1 + record.len());
        self.place.put(&mut bytes);
        bytes.put_byte(self.has_group_info.into());
        bytes.extend_from_slice(&record);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        let (place, rest) = Place::split(bytes)?;
        let (has_group_info, record) = match rest {
            [0, record @ ..] => (false, record),
            [1, record @ ..] => (true, record),
            [got, ..] => return Err(DecodeError::Value { what: "GroupInfo", got: (*got).into() }.into()),
            [] => return Err(DecodeError::Short { what: "GroupInfo", needed: 1, left: 0 }.into()),
        };
        Ok(RecordRow { place, has_group_info, record: Record::decode(record)? })
    }
}

/// A stored value does not decode.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RowError {
    #[error(transparent)]
    Fields(#[from] DecodeError),
    #[error(transparent)]
    Rules(#[from] group_log::DecodeError),
}

/// A Welcome that waits. The Welcome itself is in the commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WelcomeRow {
    pub(crate) group: Bytes,
    pub(crate) seq: u64,
    /// Epoch that the Welcome leads to.
    pub(crate) epoch: u64,
    pub(crate) state_id: StateId,
    pub(crate) chain: ChainHash,
    pub(crate) kind: GroupKind,
    /// Where the commit is.
    pub(crate) place: Place,
}

impl WelcomeRow {
    /// Adds to a row. The close of a collection can bring a client several Welcomes at one position.
    pub(crate) fn put(&self, bytes: &mut Vec<u8>) {
        self.place.put(bytes);
        bytes.put_string(&self.group);
        bytes.put_int(self.seq);
        bytes.put_int(self.epoch);
        bytes.extend_from_slice(&self.state_id.0);
        bytes.extend_from_slice(&self.chain.0);
        bytes.put_byte(self.kind.tag());
    }

    /// Reads a whole row.
    pub(crate) fn decode_all(mut bytes: Bytes) -> Result<Vec<Self>, DecodeError> {
        let mut rows = Vec::with_capacity(1);
        while !bytes.is_empty() {
            let (place, rest) = Place::split(&bytes)?;
            let mut fields = Fields::new(bytes.slice_ref(rest));
            rows.push(WelcomeRow::decode(place, &mut fields)?);
            bytes = fields.rest();
        }
        Ok(rows)
    }

    fn decode(place: Place, fields: &mut Fields) -> Result<Self, DecodeError> {
        let group = fields.string("group id")?;
        let seq = fields.int("seq")?;
        let epoch = fields.int("epoch")?;
        let state_id = StateId(fields.array("state id")?);
        let chain = ChainHash(fields.array("chain hash")?);
        let tag = fields.byte("group kind")?;
        let kind =
            GroupKind::from_tag(tag).ok_or(DecodeError::Value { what: "group kind", got: tag.into() })?;
        Ok(WelcomeRow { group, seq, epoch, state_id, chain, kind, place })
    }
}

/// How many Welcomes wait for a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct InboxRow {
    pub(crate) waiting: u64,
    /// Dropped because too many waited.
    pub(crate) dropped: u64,
    /// Nothing waits at or below this position.
    pub(crate) after: u64,
}

impl InboxRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(24);
        bytes.put_int(self.waiting);
        bytes.put_int(self.dropped);
        bytes.put_int(self.after);
        bytes
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(bytes);
        let row = InboxRow {
            waiting: fields.int("welcomes waiting")?,
            dropped: fields.int("welcomes dropped")?,
            after: fields.int("inbox position")?,
        };
        fields.end()?;
        Ok(row)
    }
}

/// Numbers of a client's KeyPackages and claims. Both lie without a gap between their first and next number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyPackagesRow {
    /// The next KeyPackage to hand out.
    pub(crate) first: u64,
    /// Number of the next KeyPackage to come.
    pub(crate) next: u64,
    /// The oldest claim that is remembered.
    pub(crate) first_claim: u64,
    /// Number of the next claim.
    pub(crate) next_claim: u64,
    /// There is a KeyPackage of last resort.
    pub(crate) has_last_resort: bool,
}

impl KeyPackagesRow {
    pub(crate) fn one_time_left(&self) -> u64 {
        self.next - self.first
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(33);
        bytes.put_int(self.first);
        bytes.put_int(self.next);
        bytes.put_int(self.first_claim);
        bytes.put_int(self.next_claim);
        bytes.put_byte(self.has_last_resort.into());
        bytes
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(bytes);
        let row = KeyPackagesRow {
            first: fields.int("first key package")?,
            next: fields.int("next key package")?,
            first_claim: fields.int("first claim")?,
            next_claim: fields.int("next claim")?,
            has_last_resort: fields.flag("last resort")?,
        };
        fields.end()?;
        if row.first > row.next || row.first_claim > row.next_claim {
            return Err(DecodeError::Value { what: "first key package or claim", got: row.first });
        }
        Ok(row)
    }
}

/// The value of a row that holds a KeyPackage.
pub(crate) fn encode_key_package(package: &KeyPackage) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(package.key_package.len() + 80);
    bytes.put_string(&package.key_package_ref);
    bytes.put_byte(package.last_resort.into());
    bytes.extend_from_slice(&package.key_package);
    bytes
}

/// Reads [`encode_key_package`].
pub(crate) fn decode_key_package(bytes: Bytes) -> Result<KeyPackage, DecodeError> {
    let mut fields = Fields::new(bytes);
    Ok(KeyPackage {
        key_package_ref: fields.string("key package reference")?,
        last_resort: fields.flag("last resort")?,
        key_package: fields.rest(),
    })
}

/// A claim in order: who made it, its id, and the one-time KeyPackage it got (empty for a last resort).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClaimOrderRow {
    pub(crate) claimer: Bytes,
    pub(crate) claim: Bytes,
    pub(crate) one_time_ref: Bytes,
}

impl ClaimOrderRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.put_string(&self.claimer);
        bytes.put_string(&self.claim);
        bytes.put_string(&self.one_time_ref);
        bytes
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(bytes);
        let row = ClaimOrderRow {
            claimer: fields.string("claimer")?,
            claim: fields.string("claim id")?,
            one_time_ref: fields.string("key package reference")?,
        };
        fields.end()?;
        Ok(row)
    }
}

/// The value of a row that is one number.
pub(crate) fn encode_number(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

/// Reads [`encode_number`].
pub(crate) fn decode_number(bytes: Bytes) -> Result<u64, DecodeError> {
    let mut fields = Fields::new(bytes);
    let number = fields.int("number")?;
    fields.end()?;
    Ok(number)
}
