//! The seam to the storage: named records per group, written in atomic batches.

use std::collections::BTreeMap;

use group_log::StateId;
use zeroize::Zeroizing;

use super::record::ChunkId;
use crate::demls::wire::DecodeError;

/// Why states cannot be read or stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The storage below failed.
    #[error("the storage of the group states failed: {0}")]
    Backend(Box<dyn std::error::Error + Send + Sync>),
    /// What was stored is not what was written.
    #[error("the stored group states are damaged: {0}; restore the file, or join the group again")]
    Damaged(String),
    /// The state is not kept.
    #[error("state {0} is not kept")]
    UnknownState(StateId),
    /// More states of a group than are allowed.
    #[error("a group may have at most {most} states side by side; delete those that were settled")]
    TooManyStates {
        /// How many are allowed.
        most: usize,
    },
}

impl StoreError {
    pub(crate) fn damaged(what: &str) -> Self {
        StoreError::Damaged(what.to_owned())
    }
}

impl From<DecodeError> for StoreError {
    fn from(error: DecodeError) -> Self {
        StoreError::Damaged(error.to_string())
    }
}

/// The name of a record within its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordName {
    /// What a state is made of.
    State(StateId),
    /// The epoch keys of a state.
    Keys(StateId),
    /// A piece of the values of one or more states.
    Chunk(u32),
}

/// The kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// See [`RecordName::State`].
    State = 1,
    /// See [`RecordName::Keys`].
    Keys = 2,
    /// See [`RecordName::Chunk`].
    Chunk = 3,
}

impl RecordName {
    /// The name as a storage can keep it: a kind, and bytes that are unique within it.
    pub fn to_parts(self) -> (Kind, Vec<u8>) {
        match self {
            RecordName::State(id) => (Kind::State, id.as_bytes().to_vec()),
            RecordName::Keys(id) => (Kind::Keys, id.as_bytes().to_vec()),
            RecordName::Chunk(id) => (Kind::Chunk, id.to_be_bytes().to_vec()),
        }
    }

    /// Undoes [`RecordName::to_parts`].
    pub fn from_parts(kind: i64, id: &[u8]) -> Result<Self, StoreError> {
        let state = || StateId::from_slice(id).map_err(|error| StoreError::Damaged(error.to_string()));
        match kind {
            1 => Ok(RecordName::State(state()?)),
            2 => Ok(RecordName::Keys(state()?)),
            3 => match id.try_into() {
                Ok(id) => Ok(RecordName::Chunk(ChunkId::from_be_bytes(id))),
                Err(_) => {
                    Err(StoreError::Damaged(format!("a chunk number of {} bytes, expected 4", id.len())))
                }
            },
            other => Err(StoreError::Damaged(format!("a record of kind {other}, expected 1 to 3"))),
        }
    }
}

/// A stored record.
pub struct Record {
    /// Its name.
    pub name: RecordName,
    /// Its content, which may be secret.
    pub body: Zeroizing<Vec<u8>>,
}

/// One change in a batch.
pub enum RecordChange {
    /// Writes a record, new or in the place of the old one.
    Put(RecordName, Zeroizing<Vec<u8>>),
    /// Deletes a record: its bytes must be overwritten, not only unlinked.
    Delete(RecordName),
}

/// Where the records are.
pub trait Records {
    /// All records of a group.
    fn all(&self, group_id: &[u8]) -> Result<Vec<Record>, StoreError>;

    /// One record.
    fn get(&self, group_id: &[u8], name: RecordName) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError>;

    /// Makes all changes, in order, or none. What was replaced or deleted is overwritten.
    fn apply(&mut self, group_id: &[u8], changes: &[RecordChange]) -> Result<(), StoreError>;
}

pub(super) fn required(
    records: &impl Records,
    group_id: &[u8],
    name: RecordName,
) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    records.get(group_id, name)?.ok_or_else(|| StoreError::damaged("a record is missing"))
}

/// Records in memory, zeroized when they go.
#[derive(Clone, Default)]
pub struct MemoryRecords(BTreeMap<(Vec<u8>, RecordName), Zeroizing<Vec<u8>>>);

impl MemoryRecords {
    /// Every byte that is stored for a group, names left out.
    pub fn bytes(&self, group_id: &[u8]) -> usize {
        self.0.iter().filter(|((group, _), _)| group == group_id).map(|(_, body)| body.len()).sum()
    }
}

impl Records for MemoryRecords {
    fn all(&self, group_id: &[u8]) -> Result<Vec<Record>, StoreError> {
        let ours = self.0.iter().filter(|((group, _), _)| group == group_id);
        Ok(ours.map(|((_, name), body)| Record { name: *name, body: body.clone() }).collect())
    }

    fn get(&self, group_id: &[u8], name: RecordName) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        Ok(self.0.get(&(group_id.to_vec(), name)).cloned())
    }

    fn apply(&mut self, group_id: &[u8], changes: &[RecordChange]) -> Result<(), StoreError> {
        for change in changes {
            match change {
                RecordChange::Put(name, body) => {
                    drop(self.0.insert((group_id.to_vec(), *name), body.clone()));
                }
                RecordChange::Delete(name) => drop(self.0.remove(&(group_id.to_vec(), *name))),
            }
        }
        Ok(())
    }
}
