//! How a state is written: its parent, the chunks of its values, and its keys.

use std::collections::BTreeMap;

use group_log::StateId;
use zeroize::Zeroizing;

use super::{StoreError, pack};
use crate::demls::{
    epoch_keys::EpochKeys,
    secret::SecretBuffer,
    wire::{DecodeError, Reader},
};

const VERSION: u8 = 1;

/// The number of a chunk within its group, below 2^30.
pub(crate) type ChunkId = u32;

/// The record of a state.
pub(super) struct StateRecord {
    pub(super) parent: Option<StateId>,
    /// The chunks of every value, by key.
    pub(super) values: BTreeMap<Vec<u8>, Vec<ChunkId>>,
}

impl StateRecord {
    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut out = SecretBuffer::default();
        out.push(VERSION);
        out.optional(self.parent.as_ref().map(|parent| &parent.as_bytes()[..]));
        out.number(self.values.len());
        for (key, chunks) in &self.values {
            // Keys contain the group id as a JSON list of numbers.
            out.vector(&pack::pack(key));
            out.number(chunks.len());
            chunks.iter().for_each(|chunk| out.number(*chunk as usize));
        }
        out.into_bytes()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("state record", bytes);
        match reader.byte()? {
            VERSION => {}
            other => return Err(reader.error(format!("expected version {VERSION}, got {other}"))),
        }
        let parent = reader.optional()?.map(StateId::from_slice).transpose();
        let parent = parent.map_err(|error| reader.error(error.to_string()))?;
        let mut values = BTreeMap::new();
        for _ in 0..reader.number()? {
            let key = pack::unpack(reader.vector()?)?.to_vec();
            let count = reader.number()?;
            let mut chunks = Vec::new();
            for _ in 0..count {
                chunks.push(reader.number()? as ChunkId);
            }
            values.insert(key, chunks);
        }
        reader.finish()?;
        Ok(StateRecord { parent, values })
    }
}

/// The keys of a state; none once this member was removed.
pub(super) fn encode_keys(keys: Option<&EpochKeys>) -> Zeroizing<Vec<u8>> {
    keys.map(EpochKeys::encode).unwrap_or_default()
}

pub(super) fn decode_keys(bytes: &[u8]) -> Result<Option<EpochKeys>, StoreError> {
    match bytes {
        [] => Ok(None),
        bytes => Ok(Some(EpochKeys::decode(bytes)?)),
    }
}
