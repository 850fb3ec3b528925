//! Several states of one group side by side, in a compact encoding that shares what they have in common.
//!
//! A state is a list of values of OpenMLS and its epoch keys. Values are packed ([`pack`]), cut into chunks where their content
//! says so ([`chunks`]), and each chunk is stored once per group however many states use it. A chunk is deleted with the last state
//! that uses it. Everything that belongs together is written in one batch, so that a crash leaves the states before or after it.

pub mod chunks;
pub mod pack;
mod record;
mod records;
mod sqlite;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Weak},
};

pub use group_log::StateId;
use openmls::prelude::GroupId;
use zeroize::Zeroizing;

use self::{
    chunks::ChunkHash,
    record::{ChunkId, StateRecord},
};
pub use self::{
    records::{Kind, MemoryRecords, Record, RecordChange, RecordName, Records, StoreError},
    sqlite::SqliteRecords,
};
use super::{
    epoch_keys::EpochKeys,
    key_schedule::DmlsEpoch,
    kv::{KvStorage, Value},
    limits::MAX_STATES_PER_GROUP,
    state::EpochState,
};

/// The states of one group that are kept, and what they are made of. It holds no secrets itself.
pub struct BranchStates {
    group_id: GroupId,
    states: BTreeMap<StateId, Known>,
    chunks: Chunks,
}

/// What is known of a state without reading it.
struct Known {
    parent: Option<StateId>,
    epoch: Option<DmlsEpoch>,
    pending: bool,
    values: BTreeMap<Vec<u8>, Stored>,
}

/// A stored value: its chunks, and which value in memory they were made from.
#[derive(Clone)]
struct Stored {
    made_from: Weak<Zeroizing<Vec<u8>>>,
    chunks: Vec<ChunkId>,
}

/// Which chunks there are, and how many uses each has.
#[derive(Clone, Default)]
struct Chunks {
    by_hash: HashMap<ChunkHash, ChunkId>,
    uses: BTreeMap<ChunkId, (ChunkHash, usize)>,
    /// Found at opening without any use; deleted by the next change.
    orphans: BTreeSet<ChunkId>,
}

/// Changes to the states of a group, to be stored in one step.
#[derive(Default)]
pub struct StateChange<'a> {
    puts: Vec<(StateId, Option<StateId>, &'a EpochState)>,
    deletes: Vec<StateId>,
}

impl<'a> StateChange<'a> {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stores a state under its id, new or changed. `parent` is the state that its commit was made in; it is kept as it was when a
    /// state is stored again with None.
    pub fn put(mut self, id: StateId, parent: Option<StateId>, state: &'a EpochState) -> Self {
        self.puts.push((id, parent, state));
        self
    }

    /// Deletes a state. Deleting one that is not there is no error.
    pub fn delete(mut self, id: StateId) -> Self {
        self.deletes.push(id);
        self
    }
}

/// A change that is ready: write [`Prepared::records`], then hand it to [`BranchStates::apply`].
pub struct Prepared {
    records: Vec<RecordChange>,
    states: BTreeMap<StateId, Option<Known>>,
    chunks: Chunks,
}

impl Prepared {
    /// What is to be written, in one transaction.
    pub fn records(&self) -> &[RecordChange] {
        &self.records
    }
}

impl BranchStates {
    /// Reads which states of a group there are.
    pub fn open(records: &impl Records, group_id: GroupId) -> Result<Self, StoreError> {
        let mut chunks = Chunks::default();
        let (mut states, mut keys) = (BTreeMap::new(), BTreeMap::new());
        for Record { name, body } in records.all(group_id.as_slice())? {
            match name {
                RecordName::State(id) => drop(states.insert(id, StateRecord::decode(&body)?)),
                RecordName::Keys(id) => drop(keys.insert(id, record::decode_keys(&body)?)),
                RecordName::Chunk(id) => {
                    let hash = chunks::hash(&body);
                    chunks.by_hash.insert(hash, id);
                    chunks.uses.insert(id, (hash, 0));
                }
            }
        }
        let mut known = BTreeMap::new();
        for (id, state) in states {
            let keys = keys.remove(&id).ok_or_else(|| StoreError::damaged("a state without its keys"))?;
            state.values.values().flatten().try_for_each(|chunk| chunks.count(*chunk))?;
            known.insert(id, Known::new(state, keys.as_ref()));
        }
        chunks.orphans = chunks.uses.iter().filter(|(_, (_, uses))| *uses == 0).map(|(id, _)| *id).collect();
        Ok(BranchStates { group_id, states: known, chunks })
    }

    /// The states that are kept.
    pub fn ids(&self) -> impl Iterator<Item = StateId> + '_ {
        self.states.keys().copied()
    }

    /// Whether a state is kept.
    pub fn contains(&self, id: &StateId) -> bool {
        self.states.contains_key(id)
    }

    /// The state that the commit of this state was made in, if it is known.
    pub fn parent(&self, id: &StateId) -> Option<StateId> {
        self.states.get(id)?.parent
    }

    /// Whether a state is the outcome of an own commit that is not settled.
    pub fn is_pending(&self, id: &StateId) -> bool {
        self.states.get(id).is_some_and(|state| state.pending)
    }

    /// The state that a message claims to belong to. What comes of it is up to OpenMLS: a claim decides nothing.
    pub fn route(&self, epoch: &DmlsEpoch) -> Option<StateId> {
        self.states.iter().find(|(_, state)| state.epoch.as_ref() == Some(epoch)).map(|(id, _)| *id)
    }

    /// Whether `ancestor` is `id` or one of its known ancestors.
    pub fn descends(&self, id: &StateId, ancestor: &StateId) -> bool {
        // A damaged store could name a state as its own ancestor, hence the bound.
        let steps = std::iter::successors(Some(*id), |id| self.parent(id)).take(self.states.len() + 1);
        steps.into_iter().any(|step| step == *ancestor)
    }

    /// Reads a state.
    pub fn read(&self, records: &impl Records, id: &StateId) -> Result<EpochState, StoreError> {
        let known = self.states.get(id).ok_or(StoreError::UnknownState(*id))?;
        let group = self.group_id.as_slice();
        let mut values = BTreeMap::new();
        for (key, stored) in &known.values {
            let mut packed = super::secret::SecretBuffer::default();
            for chunk in &stored.chunks {
                packed.extend(&records::required(records, group, RecordName::Chunk(*chunk))?);
            }
            let value: Value = Arc::new(pack::unpack(&packed.into_bytes())?);
            values.insert(key.clone(), value);
        }
        let keys = record::decode_keys(&records::required(records, group, RecordName::Keys(*id))?)?;
        Ok(EpochState { group_id: self.group_id.clone(), values: KvStorage::from_entries(values), keys })
    }

    /// Stores a change: all of it, or nothing.
    pub fn store(&mut self, records: &mut impl Records, change: StateChange<'_>) -> Result<(), StoreError> {
        let prepared = self.prepare(change)?;
        records.apply(self.group_id.as_slice(), prepared.records())?;
        self.apply(prepared);
        Ok(())
    }

    /// Works out what a change means for the records. Nothing changes until [`BranchStates::apply`], and nothing else must be
    /// prepared before it.
    pub fn prepare(&self, change: StateChange<'_>) -> Result<Prepared, StoreError> {
        let mut work = Work { states: self, chunks: self.chunks.clone(), new: Vec::new(), puts: Vec::new() };
        let mut states: BTreeMap<StateId, Option<Known>> = BTreeMap::new();
        let mut removals = Vec::new();
        let kept = change.puts.into_iter().filter(|(id, ..)| !change.deletes.contains(id));
        for (id, parent, state) in kept {
            let known = work.put(id, parent, state)?;
            states.insert(id, Some(known));
        }
        for id in change.deletes {
            states.insert(id, None);
            if self.states.contains_key(&id) {
                removals.push(RecordChange::Delete(RecordName::State(id)));
                removals.push(RecordChange::Delete(RecordName::Keys(id)));
            }
        }
        let added =
            states.iter().filter(|(id, state)| state.is_some() && !self.states.contains_key(id)).count();
        if self.states.len() + added > MAX_STATES_PER_GROUP {
            return Err(StoreError::TooManyStates { most: MAX_STATES_PER_GROUP });
        }
        // Uses are taken before they are given back, so that a chunk that goes on to be used is never written anew.
        for known in states.values().flatten() {
            known
                .values
                .values()
                .flat_map(|stored| &stored.chunks)
                .try_for_each(|id| work.chunks.count(*id))?;
        }
        let replaced = states.keys().filter_map(|id| self.states.get(id));
        let mut gone: BTreeSet<ChunkId> = work.chunks.orphans.clone();
        gone.extend(work.new.iter().map(|(id, _)| *id).filter(|id| !work.chunks.is_used(*id)));
        for chunk in replaced.flat_map(|known| known.values.values()).flat_map(|stored| &stored.chunks) {
            if work.chunks.release(*chunk) {
                gone.insert(*chunk);
            }
        }
        work.chunks.forget(&gone);
        removals.extend(gone.into_iter().map(|id| RecordChange::Delete(RecordName::Chunk(id))));
        let chunks = work.new.into_iter().filter(|(id, _)| work.chunks.uses.contains_key(id));
        let records = removals
            .into_iter()
            .chain(chunks.map(|(id, body)| RecordChange::Put(RecordName::Chunk(id), body)))
            .chain(work.puts)
            .collect();
        Ok(Prepared { records, states, chunks: work.chunks })
    }

    /// Takes note that a prepared change was written.
    pub fn apply(&mut self, prepared: Prepared) {
        for (id, known) in prepared.states {
            match known {
                Some(known) => drop(self.states.insert(id, known)),
                None => drop(self.states.remove(&id)),
            }
        }
        self.chunks = prepared.chunks;
    }
}

impl Known {
    fn new(state: StateRecord, keys: Option<&EpochKeys>) -> Self {
        let stored = |(key, chunks)| (key, Stored { made_from: Weak::new(), chunks });
        Known {
            parent: state.parent,
            epoch: keys.map(|keys| keys.epoch().clone()),
            pending: keys.is_some_and(EpochKeys::is_pending),
            values: state.values.into_iter().map(stored).collect(),
        }
    }
}

/// A change while it is being prepared.
struct Work<'a> {
    states: &'a BranchStates,
    chunks: Chunks,
    /// New chunks.
    new: Vec<(ChunkId, Zeroizing<Vec<u8>>)>,
    /// New state and key records.
    puts: Vec<RecordChange>,
}

impl Work<'_> {
    fn put(&mut self, id: StateId, parent: Option<StateId>, state: &EpochState) -> Result<Known, StoreError> {
        let before = self.states.states.get(&id);
        let parent = parent.or(before.and_then(|known| known.parent));
        let origin = parent.and_then(|parent| self.states.states.get(&parent));
        let mut values = BTreeMap::new();
        for (key, value) in state.values.entries().iter() {
            let made_from = Arc::downgrade(value);
            let same = |known: &&Known| {
                known.values.get(key).is_some_and(|stored| Weak::ptr_eq(&stored.made_from, &made_from))
            };
            let stored = match before.into_iter().chain(origin).find(same) {
                Some(known) => known.values[key].clone(),
                None => Stored { made_from, chunks: self.cut(value) },
            };
            values.insert(key.clone(), stored);
        }
        let record = StateRecord {
            parent,
            values: values.iter().map(|(key, stored)| (key.clone(), stored.chunks.clone())).collect(),
        };
        let known = Known {
            parent,
            epoch: state.keys.as_ref().map(|keys| keys.epoch().clone()),
            pending: state.keys.as_ref().is_some_and(EpochKeys::is_pending),
            values,
        };
        self.puts.push(RecordChange::Put(RecordName::State(id), record.encode()));
        self.puts.push(RecordChange::Put(RecordName::Keys(id), record::encode_keys(state.keys.as_ref())));
        Ok(known)
    }

    fn cut(&mut self, value: &[u8]) -> Vec<ChunkId> {
        let packed = pack::pack(value);
        let mut ids = Vec::new();
        for chunk in chunks::cut(&packed) {
            let hash = chunks::hash(chunk);
            let id = match self.chunks.by_hash.get(&hash) {
                Some(id) => *id,
                None => {
                    let id = self.chunks.add(hash);
                    self.new.push((id, Zeroizing::new(chunk.to_vec())));
                    id
                }
            };
            ids.push(id);
        }
        ids
    }
}

impl Chunks {
    /// A new chunk under the smallest free id, so that ids stay small.
    fn add(&mut self, hash: ChunkHash) -> ChunkId {
        let used = self.uses.keys().enumerate().find(|(position, id)| **id != *position as ChunkId);
        let id = used.map_or(self.uses.len() as ChunkId, |(position, _)| position as ChunkId);
        self.by_hash.insert(hash, id);
        self.uses.insert(id, (hash, 0));
        id
    }

    fn count(&mut self, id: ChunkId) -> Result<(), StoreError> {
        let (_, uses) =
            self.uses.get_mut(&id).ok_or_else(|| StoreError::damaged("a state with a missing chunk"))?;
        *uses += 1;
        Ok(())
    }

    fn is_used(&self, id: ChunkId) -> bool {
        self.uses.get(&id).is_some_and(|(_, uses)| *uses > 0)
    }

    /// Whether that was the last use.
    fn release(&mut self, id: ChunkId) -> bool {
        match self.uses.get_mut(&id) {
            Some((_, uses)) => {
                *uses -= 1;
                *uses == 0
            }
            None => false,
        }
    }

    fn forget(&mut self, gone: &BTreeSet<ChunkId>) {
        for id in gone {
            if let Some((hash, _)) = self.uses.remove(id)
                && self.by_hash.get(&hash) == Some(id)
            {
                self.by_hash.remove(&hash);
            }
        }
        self.orphans.clear();
    }
}
